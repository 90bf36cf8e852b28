"""What a full sort will take, from what its canary measured, and whether that fits.

A cost is a fixed share plus a rate times the recording's length. Of time, the fixed share is what
the stages before and after the sort took. By how much full sorts with the same settings really
grew corrects the next forecasts.
"""

import contextlib
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from pydantic import AwareDatetime, BaseModel, ConfigDict, PositiveFloat

from spikecanary import sentinel
from spikecanary.config import Config, ForecastSettings, WatchdogSettings
from spikecanary.failures import GPU_MEMORY, CapacityForecastError
from spikecanary.sentinel import Interval, Measured, Record
from spikecanary.sorter import SortTask
from spikecanary.sorter.registry import CPU_SORTERS, MEMORY_KNOBS
from spikecanary.supervise import gpus, memory

MB = 1e6
#: The share of a window's time and disk that grows with the recording: at least, likely, at most.
#: A window has compilation and buffers in it that do not grow (benchmarks/forecast.py).
GROWING = (0.1, 0.7, 1.0)
#: Memory grows by this share of the samples (float32): spykingcircus2's by three quarters. That of
#: sorters that work batch by batch grows with their spikes, by a twentieth; a GPU holds one batch
#: (benchmarks/forecast.py).
MEMORY_GROWING = (0.0, 0.35, 1.0)
OF_BATCHES = {"mem_mb": (0.0, 0.04, 0.12), "vram_mb": (0.0, 0.0, 0.02)}
#: How far off forecasts are: about twice the median error that benchmarks/forecast.py measures.
SPREAD = 0.4
#: A longer sort does not need less memory than a window's measured peak: only this share of it is
#: left to chance (benchmarks/capacity.py).
FLOOR_SPREAD = 0.15
#: Finished sorts grow by a share of their windows between these.
SHARES = (0.0, 5.0)
#: Without a canary's measurement and finished sorts: a fixed cost, and one a minute of recording.
#: Disk is a copy of the recording.
RATES = {"wall_s": (60.0, 60.0), "mem_mb": (8000.0, 20.0)}
#: A full sort requests at least this.
LEAST_REQUEST = {"runtime": 10, "mem_mb": 4000, "disk_mb": 1000}
#: Snakemake's resources: the cost that each covers, and its unit in that cost's.
RESOURCES = {"runtime": ("wall_s", 60), "mem_mb": ("mem_mb", 1), "disk_mb": ("disk_mb", 1)}
#: The settings that limit them.
LIMITS = {"runtime": "max_runtime_min", "mem_mb": "max_mem_mb", "disk_mb": "max_disk_mb"}
#: What a sort's next attempt requests more of, by the failure of the last.
LACKED = {
    "HostMemoryWatchdogError": "mem_mb",
    "SorterTimeoutError": "runtime",
    "DiskExhaustionError": "disk_mb",
}
#: Of a long history so many sorts count.
MOST_SORTS = 100
#: What each cost is called, its unit, and what would make the sort fit.
TEXTS = {
    "wall_s": (
        "time",
        "s",
        "raise forecast.max_runtime_min, or split the recording (start_s, end_s)",
    ),
    "mem_mb": (
        "memory",
        "MB",
        "raise forecast.max_mem_mb on a larger machine, or split the recording (start_s, end_s)",
    ),
    "disk_mb": ("disk space", "MB", "free disk space, or work elsewhere (job.scratch, pathvars)"),
    "results_mb": ("disk space of the results", "MB", "free disk space, or move them (pathvars)"),
    "vram_mb": ("GPU memory", "MB", "use a larger GPU"),
}

#: Costs that grow with the size of the samples.
OF_SAMPLES = ("mem_mb", "vram_mb")

Forecast = dict[str, Interval]


class FinishedSort(BaseModel):
    """A full sort that ended: its length, what it took, and :func:`measure_growth` before it."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    recording: str
    duration_s: PositiveFloat
    actual: dict[str, float]
    window: dict[str, tuple[float, float]] = {}  # empty in notes of earlier versions
    at: AwareDatetime = datetime(2000, 1, 1, tzinfo=UTC)  # when it ended; these do not say it


def costs_of(measured: Measured) -> dict[str, float]:
    """Return what a sort took: ``wall_s``, ``mem_mb``, ``disk_mb``, ``vram_mb`` with a GPU."""
    found = {
        "wall_s": measured.wall_s,
        "mem_mb": measured.peak_rss_mb,
        "disk_mb": measured.disk_mb,
        "vram_mb": measured.peak_vram_mb,
    }
    return {name: value for name, value in found.items() if value is not None}


def forecast_sort(canary: Record, history: Sequence[FinishedSort] = ()) -> Forecast:
    """Forecast the full sort of a recording from its sentinel.

    The last of its windows that was sorted counts, and finished full sorts with the same sorter,
    parameters and preprocessing. Returns ``wall_s`` (of the sorting process), ``mem_mb`` (peak of
    its process tree), ``disk_mb`` (of its work folder), ``vram_mb``; empty where the canary
    measured nothing.
    """
    found: Forecast = {}
    shares = learn_shares(history)
    for name, (cost, growing) in measure_growth(canary).items():
        is_memory, sorter = name in OF_SAMPLES, canary.sorter.name
        known = OF_BATCHES[name] if is_memory and sorter in MEMORY_KNOBS else MEMORY_GROWING
        low, likely, high = (cost + x * growing for x in (known if is_memory else GROWING))
        found[name] = _interval(low, likely, high, FLOOR_SPREAD if is_memory else SPREAD)
        if name in shares:
            found[name] = _narrow(found[name], *(cost + each * growing for each in shares[name]))
    return found


def measure_growth(canary: Record) -> dict[str, tuple[float, float]]:
    """Return what a canary's window took, and what the rest adds at its rate, by cost.

    Time, but for a fixed share, and disk grow as the recording does, memory as its samples do.
    """
    windows = [each for each in canary.windows if each.measured and each.n_units is not None]
    if not windows or windows[-1].measured is None or canary.duration_s is None:
        return {}
    window, measured = windows[-1], windows[-1].measured
    stages = measured.stages_s.items()
    fixed_s = sum(time for stage, time in stages if stage not in ("sort", "read", "save"))
    length_s = window.end_s - window.start_s
    growth = max(0.0, canary.duration_s / length_s - 1)
    # The size of the samples beyond the window, as float32.
    samples_mb = 4e-6 * (canary.n_channels or 0) * (canary.sampling_frequency_hz or 0.0)
    samples_mb *= max(0.0, canary.duration_s - length_s)
    found = {}
    for name, cost in costs_of(measured).items():
        growing = (cost - fixed_s if name == "wall_s" else cost) * growth
        found[name] = (cost, samples_mb if name in OF_SAMPLES else max(0.0, growing))
    return found


def _interval(low: float, likely: float, high: float, below: float = SPREAD) -> Interval:
    return Interval(
        low=round(low * (1 - below), 1), likely=round(likely, 1), high=round(high * (1 + SPREAD), 1)
    )


def _narrow(guess: Interval, low: float, likely: float, high: float) -> Interval:
    """Return what was learned: wider where it is of shorter recordings, but not than the guess."""
    nearest = _interval(likely, likely, likely)
    low, high = min(round(low, 1), nearest.low), max(round(high, 1), nearest.high)
    return Interval(
        low=max(low, guess.low) if guess.low <= likely else low,
        likely=nearest.likely,
        high=min(high, guess.high) if guess.high >= likely else high,
    )


def learn_shares(history: Sequence[FinishedSort]) -> dict[str, list[float]]:
    """Return which share of :func:`measure_growth` finished sorts added: low, likely and high.

    These are medians, by cost. A sort that is much longer than its window says more of it than one
    that is not, so its share is nearer to what it may be.
    """
    shares: dict[str, list[list[float]]] = {}
    for each in history:
        for name, (cost, growing) in each.window.items():
            if growing > 0 and name in each.actual:
                actual = [each.actual[name] * (1 + x) for x in (-SPREAD, 0, SPREAD)]
                shares.setdefault(name, []).append([(used - cost) / growing for used in actual])
    least, most = SHARES
    return {
        name: [min(most, max(least, statistics.median(x))) for x in zip(*of, strict=True)]
        for name, of in shares.items()
    }


def forecast_by_rates(
    duration_s: float, n_bytes: float, history: Sequence[FinishedSort] = ()
) -> Forecast:
    """Forecast a full sort without a canary, by what finished sorts took for each second.

    Without any of the same settings, the fixed :data:`RATES` count.
    """
    costs = {name: fixed + rate * duration_s / 60 for name, (fixed, rate) in RATES.items()}
    costs["disk_mb"] = n_bytes / MB
    for name in ("wall_s", "disk_mb"):
        rates = [each.actual[name] / each.duration_s for each in history if name in each.actual]
        if rates:
            costs[name] = statistics.median(rates) * duration_s
    return {name: _interval(cost, cost, cost) for name, cost in costs.items()}


def forecast_canary_s(window_s: float, history: Sequence[FinishedSort] = ()) -> float:
    """Forecast a canary's time, as those of finished sorts took, else as a sort of its window."""
    known = [each.window["wall_s"][0] for each in history if "wall_s" in each.window]
    return statistics.median(known or [forecast_by_rates(window_s, 0.0)["wall_s"].likely])


# What finished sorts took is kept in the results folder, by the digest of their settings.


def history_path(results: Path, params_digest: str) -> Path:
    """Return where finished sorts of one sorter with its parameters are noted."""
    return results / "history" / f"{params_digest}.jsonl"


def remember(results: Path, canary: Record, sort: Record) -> None:
    """Note a full sort that ended, so that it corrects the next forecasts."""
    if sort.measured is None or not sort.duration_s:
        return
    entry = FinishedSort(
        recording=sort.recording,
        duration_s=sort.duration_s,
        actual=costs_of(sort.measured),
        window=measure_growth(canary),
        at=datetime.fromisoformat(sort.finished_at),
    )
    path = history_path(results, sort.sorter.params_digest)
    sentinel.append_line(path, entry.model_dump(mode="json"))


def read_history(path: Path) -> list[FinishedSort]:
    """Read the newest finished sorts, oldest first; lines that do not parse are left out."""
    try:
        return _read_history(path, path.stat().st_mtime_ns)
    except OSError:
        return []


@functools.lru_cache(maxsize=8)
def _read_history(path: Path, _changed_ns: int) -> list[FinishedSort]:
    found = []
    for entry in sentinel.read_journal(path)[-MOST_SORTS:]:
        with contextlib.suppress(ValueError):
            found.append(FinishedSort.model_validate(entry))
    return found


#: A forecast, and the costs in it that are no guess: a canary or finished sorts have measured them.
Known = tuple[Forecast, set[str]]


def forecast_recording(results: Path, task: SortTask) -> Known:
    """Forecast the full sort of a recording from its results folder; empty if nothing is known."""
    return forecast_since(results, task, None)[-1]


def forecast_since(results: Path, task: SortTask, began: datetime | None) -> list[Known]:
    """Forecast the full sort of a recording as it was forecast when a run began, and since.

    With each sort that ended since, the forecast may be lower; without ``began`` that of now alone.
    """
    canary = sentinel.read_if_readable(Record, results / task.row.id / "canary.json")
    if canary is None or canary.duration_s is None:
        return [({}, set())]
    history = read_history(history_path(results, task.digest()))
    same = canary.sorter.params_digest == task.digest()
    found = list[Known]()
    for n in range(sum(began is None or x.at < began for x in history), len(history) + 1):
        if measured := forecast_sort(canary, history[:n]) if same else {}:
            found.append((measured, {*measured}))
            continue
        known = {name for each in history[:n] for name in each.actual} & {"wall_s", "disk_mb"}
        found.append((forecast_by_rates(canary.duration_s, 0.0, history[:n]), known))
    return found


# What jobs request from Snakemake.


def count_gpus(config: Config, sorter: str) -> int:
    """Return the number of GPUs that a canary requests, and a sort without a forecast."""
    if config.job.gpu is not None:
        return config.job.gpu
    if sorter in CPU_SORTERS:
        return 0
    if config.sorter.device == "auto":
        return int(gpus.count() > 0)
    return int(config.sorter.device == "cuda")


def default_request(config: Config, sorter: str, runtime_min: int) -> dict[str, int]:
    """Return what a canary requests, and a sort without a forecast."""
    return {
        "mem_mb": min(config.job.mem_mb, config.forecast.max_mem_mb),
        "runtime": min(runtime_min, config.forecast.max_runtime_min),
        "disk_mb": LEAST_REQUEST["disk_mb"],
        "gpu": count_gpus(config, sorter),
    }


def sort_request(
    config: Config, results: Path, task: SortTask, attempt: int, *, began: datetime | None = None
) -> dict[str, int]:
    """Return what a sort requests: ``runtime`` (min), ``mem_mb``, ``disk_mb``, ``gpu``.

    The high end of the forecast, times the safety factor, within the configured limits. A later
    attempt of Snakemake's asks for more of what the ones before lacked. A sort whose canary used a
    GPU requests at least one. With ``began``, when the run began that submitted its job, it is at
    least what was requested then or since.
    """
    asked = default_request(config, task.sorter.name, config.job.sort_runtime_min)
    gpu = asked.pop("gpu")
    forecasts = forecast_since(results, task, began)
    requests = [_request_known(config.forecast, asked, *each) for each in forecasts]
    asked = {name: max(each[name] for each in requests) for name in asked}
    if attempt > 1:
        n_tries = 1 + config.retry.gpu_memory_times * (task.sorter.name in MEMORY_KNOBS)
        times = count_lacks(results / task.row.id / "attempts.jsonl", attempt, n_tries)
        for name, n in asked.items():
            asked[name] = max(n, min(getattr(config.forecast, LIMITS[name]), times[name] * n))
    if config.job.gpu is None and "vram_mb" in forecasts[-1][0]:
        gpu = max(gpu, 1)
    return {**asked, "gpu": gpu}


def _request_known(
    settings: ForecastSettings, asked: Mapping[str, int], expected: Forecast, known: set[str]
) -> dict[str, int]:
    """Return what a forecast requests; of what is a guess no less than what is asked anyway."""
    found = request(settings, expected)
    guessed = {name for name in found if RESOURCES[name][0] not in known}
    return {**asked, **found, **{name: max(found[name], asked[name]) for name in guessed}}


def request(settings: ForecastSettings, forecast: Mapping[str, Interval]) -> dict[str, int]:
    """Return Snakemake's resources for a forecast; what is not forecast is missing."""
    asked = {}
    for name, (cost, unit) in RESOURCES.items():
        if cost in forecast:
            needed = math.ceil(settings.safety * forecast[cost].high / unit)
            asked[name] = min(getattr(settings, LIMITS[name]), max(LEAST_REQUEST[name], needed))
    return asked


def count_lacks(journal: Path, attempt: int, n_tries: int = 1) -> dict[str, int]:
    """Return how many times as much as its first a sort's attempt requests, by resource.

    Once more for each attempt of this run that lacked it. One that left no line in the journal was
    killed from outside, and nobody knows for want of what: more of each. So was one that lacked GPU
    memory fewer than ``n_tries`` times, each with a line: it went on, with smaller batches.
    """
    tried: dict[Any, list[Mapping[str, Any]]] = {}
    for n, entry in enumerate(sentinel.read_attempts_of_run(journal, "sort")):
        tried.setdefault(entry.get("attempt", f"line {n}"), []).append(entry)
    n_killed, lacks = max(0, attempt - 1 - len(tried)), []
    for lines in tried.values():
        failed = (lines[-1].get("failure") or {}).get("class")
        n_killed += failed in {each.__name__ for each in GPU_MEMORY} and len(lines) < n_tries
        lacks.append(find_lack(lines[-1]))
    return {name: 1 + n_killed + lacks.count(name) for name in RESOURCES}


def find_lack(entry: Mapping[str, Any]) -> str | None:
    """Return the resource for want of which an attempt of a journal ended, if it was for one.

    A batch system interrupts a job at its time limit. Who kills a sort alone, or one of the
    processes that help it, by SIGKILL, is the kernel where memory runs out.
    """
    failure = entry.get("failure") or {}
    if entry.get("outcome") == "interrupted":
        return "runtime"
    reason = str(entry.get("reason"))
    if not failure and ("killed by SIGKILL" in reason or "BrokenProcessPool" in reason):
        return "mem_mb"
    return LACKED.get(str(failure.get("class")))


# The capacity check.


def available(
    folder: Path, settings: ForecastSettings, watchdogs: WatchdogSettings
) -> dict[str, float]:
    """Return what a full sort may use, as far as it is limited, for a recording's results folder.

    The disk space that the watchdogs keep free is not available.
    """
    kept_free_mb = watchdogs.min_free_disk_mb or 0.0
    found = {
        "wall_s": 60.0 * settings.max_runtime_min,
        "mem_mb": min(float(settings.max_mem_mb), memory.read()[1] / MB or math.inf),
        "disk_mb": psutil.disk_usage(str(folder)).free / MB - kept_free_mb,
    }
    gpu_mb = [each.total / MB for each in gpus.memories()]
    return found | ({"vram_mb": max(gpu_mb)} if gpu_mb else {})


def check_capacity(
    forecast: Mapping[str, Interval], available: Mapping[str, float], task: SortTask
) -> tuple[CapacityForecastError | None, list[str]]:
    """Compare a forecast with what is available.

    Returns the failure where even the low end does not fit, and a warning for each high end that
    does not.
    """
    warnings: list[str] = []
    for cost, limit in available.items():
        if cost not in forecast:
            continue
        name, unit, knob = TEXTS[cost]
        expected = forecast[cost]
        numbers = (
            f"{name} {expected.low:.0f} to {expected.high:.0f} {unit} (likely "
            f"{expected.likely:.0f}), there is {limit:.0f} {unit}"
        )
        if cost == "vram_mb" and task.sorter.name in MEMORY_KNOBS:
            knob = f"lower {MEMORY_KNOBS[task.sorter.name][0]} (sorter.params), or {knob}"
        if expected.low > limit:
            remedy = f"To make it fit: {knob}."
            found = CapacityForecastError(
                f"the full sort does not fit: {numbers}",
                remedy=remedy,
                what=name,
                low=expected.low,
                high=expected.high,
                room=limit,
            )
            return found, warnings
        if expected.high > limit:
            warnings.append(f"the full sort may not fit: {numbers}. To be safe: {knob}")
    return None, warnings
