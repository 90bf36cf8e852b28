"""The forecast: from what a canary measured to what the full sort will take.

Costs that every sort has (imports, compilation, a container's start) are told apart from
costs that grow with the recording: by two windows of different length, by the stages of a
single one, and by the full sorts that have ended in this results folder.
"""

import functools
import json
import math
import shutil
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from spikecanary import sentinel
from spikecanary.config import Config, ForecastSettings, WatchdogSettings
from spikecanary.failures import CapacityForecastError
from spikecanary.sentinel import Interval, Measured, Record, RecordError, Window
from spikecanary.sorter import MEMORY_KNOBS, SortTask
from spikecanary.supervise import gpus

#: Two windows tell a slope where the shorter one is at most this share of the longer.
TWO_SHARE = 0.75
#: Of a single window nobody knows what part of the sort grows with the recording: this share
#: is taken to, between the other two.
SINGLE_SHARE, SINGLE_LEAST, SINGLE_MOST = 0.8, 0.4, 1.0
#: Costs that are memory, and the share of its samples that a sorter holds: spykingcircus2 about
#: a third more or less, kilosort4 nothing (benchmarks/forecast.py).
MEMORIES = ("mem_mb", "vram_mb")
MEMORY_SHARE = 0.35
#: How far off forecasts are, without and with finished sorts to learn from: about twice the
#: median error that benchmarks/forecast.py measures.
SPREAD, SPREAD_LEARNED = 0.4, 0.25
#: A window's peak of memory is measured, and a longer sort with the same parameters does not take
#: less: only so much of it is left to chance (benchmarks/capacity.py).
FLOOR_SPREAD = 0.15
#: What finished sorts say is believed within these limits.
CORRECTION = (0.2, 5.0)
#: Snakemake's resources: of which cost, and in which unit of it.
REQUESTS = {"runtime": ("wall_s", 60), "mem_mb": ("mem_mb", 1), "disk_mb": ("disk_mb", 1)}
#: So much of the newest history is read: about a hundred sorts.
HISTORY_BYTES = 64_000


class Line(BaseModel):
    """A cost that every sort has, and one for each second of the recording."""

    model_config = ConfigDict(frozen=True)

    fixed: float
    per_s: float

    def at(self, duration_s: float) -> float:
        """Return the cost of a recording of that length."""
        return self.fixed + self.per_s * duration_s


class Model(BaseModel):
    """What a canary's windows say of a cost: the likely line, and the two around it."""

    model_config = ConfigDict(frozen=True)

    low: Line
    likely: Line
    high: Line


class Finished(BaseModel):
    """A full sort that has ended: its length, what was forecast at first, and what it took."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    recording: str
    duration_s: float
    models: dict[str, Model]
    actual: dict[str, float]


def costs(measured: Measured) -> dict[str, float]:
    """Return what a sort took: ``wall_s``, ``mem_mb``, ``disk_mb``, ``vram_mb`` if it used one."""
    found = {
        "wall_s": measured.wall_s,
        "mem_mb": measured.peak_rss_mb,
        "disk_mb": measured.disk_mb,
        "vram_mb": measured.peak_vram_mb,
    }
    return {name: value for name, value in found.items() if value is not None}


def data_mb_per_s(n_channels: int, sampling_frequency_hz: float) -> float:
    """Return the size of a recording's samples as float32, in MB for each second."""
    return 4e-6 * n_channels * sampling_frequency_hz


def models(
    windows: Iterable[Window], data_mb_per_s: float, history: Sequence[Finished] = ()
) -> dict[str, Model]:
    """Tell fixed from growing costs by the windows that were sorted.

    Parameters
    ----------
    windows : iterable of Window
        Those of a sentinel; windows whose sort failed say nothing.
    data_mb_per_s : float
        Size of the samples: more memory than that does not grow with the recording.
    history : sequence of Finished
        Full sorts with the same sorter and parameters, whose fixed costs stand for those that
        a single window does not tell.

    Returns
    -------
    dict
        A :class:`Model` for each of :func:`costs`; empty where no window was sorted.
    """
    points = sorted(
        (
            (each.end_s - each.start_s, each.measured)
            for each in windows
            if each.measured is not None and each.n_units is not None
        ),
        key=lambda point: point[0],
    )
    if not points:
        return {}
    (near_s, near), (far_s, far) = points[0], points[-1]
    two = near_s <= TWO_SHARE * far_s
    found = {}
    for name, value in costs(far).items():
        fixed = [each.models[name].likely.fixed for each in history if name in each.models]
        lower = costs(near).get(name) if two else None
        if name in MEMORIES:
            slope = data_mb_per_s if lower is None else (value - lower) / (far_s - near_s)
            found[name] = _of_memory(far_s, value, min(max(0.0, slope), data_mb_per_s))
        elif lower is not None:
            found[name] = _through((near_s, lower), (far_s, value))
        elif fixed:
            found[name] = _through((0.0, statistics.median(fixed)), (far_s, value))
        else:
            found[name] = _of_one(far_s, value, _startup_s(far) if name == "wall_s" else 0.0)
    return found


def _startup_s(measured: Measured) -> float:
    """Return the time of the stages that do not grow with the recording, in s."""
    return sum(
        time for stage, time in measured.stages_s.items() if stage not in ("sort", "read", "save")
    )


def _through(near: tuple[float, float], far: tuple[float, float]) -> Model:
    """Return the line through two windows' costs, neither falling nor below zero."""
    (near_s, least), (far_s, most) = near, far
    slope = min(max(0.0, (most - least) / (far_s - near_s)), most / far_s)
    line = Line(fixed=most - slope * far_s, per_s=slope)
    return Model(low=line, likely=line, high=line)


def _of_one(length_s: float, cost: float, startup: float) -> Model:
    """Return the lines of one window's cost, of which some part grows."""

    def line(share: float) -> Line:
        growing = share * max(0.0, cost - startup)
        return Line(fixed=cost - growing, per_s=growing / length_s)

    return Model(low=line(SINGLE_LEAST), likely=line(SINGLE_SHARE), high=line(SINGLE_MOST))


def _of_memory(length_s: float, cost: float, slope: float) -> Model:
    """Return the lines of a memory peak, from no growth to that of ``slope``.

    Two short windows tell it badly: compiling and buffers weigh more than their data. So
    their slope is a limit, not the estimate.
    """

    def line(share: float) -> Line:
        return Line(fixed=cost - share * slope * length_s, per_s=share * slope)

    return Model(low=line(0.0), likely=line(MEMORY_SHARE), high=line(1.0))


def predict(
    by: Mapping[str, Model], duration_s: float, history: Sequence[Finished] = ()
) -> dict[str, Interval]:
    """Forecast a full sort.

    Parameters
    ----------
    by : dict
        The :func:`models` of its canary.
    duration_s : float
        Length of the recording in s.
    history : sequence of Finished
        Full sorts with the same sorter and parameters.

    Returns
    -------
    dict
        ``wall_s`` (of the sorting process), ``mem_mb`` (peak of its tree), ``disk_mb`` (of
        its work folder), ``vram_mb``: each an interval.
    """
    forecast = {}
    for name, model in by.items():
        learned = _learn(name, history)
        spread = SPREAD if learned is None else SPREAD_LEARNED
        correct = learned or Line.at
        likely = correct(model.likely, duration_s)
        low, high = (
            (likely, likely) if learned else (model.low.at(duration_s), model.high.at(duration_s))
        )
        least = FLOOR_SPREAD if name in MEMORIES and learned is None else spread
        forecast[name] = Interval(
            low=round(low * (1 - least), 1),
            likely=round(likely, 1),
            high=round(high * (1 + spread), 1),
        )
    return forecast


def _learn(name: str, history: Sequence[Finished]) -> Callable[[Line, float], float] | None:
    """Return a better way to use a line, by sorts that have ended; None without any.

    Of time the growing part is corrected, since its fixed part is measured well; of the
    others the whole.
    """
    known = [each for each in history if name in each.models and name in each.actual]
    if not known:
        return None
    ratios = []
    for each in known:
        line = each.models[name].likely
        fixed = line.fixed if name == "wall_s" else 0.0
        expected = line.at(each.duration_s) - fixed
        if expected > 0:
            ratios.append((each.actual[name] - fixed) / expected)
    if not ratios:
        return None
    least, most = CORRECTION
    ratio = min(most, max(least, statistics.median(ratios)))

    def correct(line: Line, duration_s: float) -> float:
        fixed = line.fixed if name == "wall_s" else 0.0
        return fixed + ratio * (line.at(duration_s) - fixed)

    return correct


def models_of(canary: Record, history: Sequence[Finished] = ()) -> dict[str, Model]:
    """Return the :func:`models` of a sentinel; empty where it measured nothing."""
    if canary.n_channels is None or canary.sampling_frequency_hz is None:
        return {}
    rate = data_mb_per_s(canary.n_channels, canary.sampling_frequency_hz)
    return models(canary.windows, rate, history)


def history_path(results: Path, params_digest: str) -> Path:
    """Return the history of one sorter with its parameters in a results folder."""
    return results / "history" / f"{params_digest}.jsonl"


def finished(canary: Record, sort: Record, history: Sequence[Finished]) -> Finished | None:
    """Describe a full sort that has ended; None where its canary measured nothing."""
    by = models_of(canary, history)
    if not by or sort.measured is None or sort.duration_s is None:
        return None
    return Finished(
        recording=sort.recording,
        duration_s=sort.duration_s,
        models=by,
        actual=costs(sort.measured),
    )


def remember(results: Path, canary: Record, sort: Record) -> None:
    """Note a full sort that has ended, so that it sharpens the next forecasts."""
    path = history_path(results, sort.sorter.params_digest)
    entry = finished(canary, sort, read_history(path))
    if entry is not None:
        sentinel.append_line(path, entry.model_dump(mode="json"))


def read_history(path: Path) -> list[Finished]:
    """Read the newest full sorts of a history, oldest first; torn lines are left out."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - HISTORY_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(Finished.model_validate(json.loads(line)))
        except (ValueError, ValidationError):
            continue
    return found


def request(
    settings: ForecastSettings, forecast: Mapping[str, Interval], attempt: int = 1
) -> dict[str, int]:
    """Return what a full sort's job asks for: ``runtime`` in min, ``mem_mb``, ``disk_mb``.

    The forecast's high end times a safety factor times the attempt, within the configured
    limits. What is not forecast is missing.
    """
    asked = {}
    for name, (cost, unit) in REQUESTS.items():
        if cost in forecast:
            least, most = settings.limits(name)
            wanted = max(least, math.ceil(settings.safety * forecast[cost].high / unit))
            asked[name] = min(most, attempt * wanted)
    return asked


def of_recording(
    results: Path, recording: str, params_digest: str, settings: ForecastSettings
) -> dict[str, Interval]:
    """Forecast the full sort of a recording from what stands in a results folder.

    Parameters
    ----------
    results : Path
        The results folder.
    recording : str
        The recording.
    params_digest : str
        The digest of sorter, parameters and preprocessing.
    settings : ForecastSettings
        With the rates for recordings whose canary was skipped.

    Returns
    -------
    dict
        As :func:`predict`; empty where nothing is known of the recording.
    """
    try:
        canary = sentinel.read_record_if_any(results / recording / "canary.json")
    except RecordError:
        return {}
    if canary is None or canary.duration_s is None:
        return {}
    path = history_path(results, params_digest)
    history = _read_history(path, _changed(path))
    by = models_of(canary, history)
    if by and canary.sorter.params_digest == params_digest:
        return predict(by, canary.duration_s, history)
    return by_rates(settings, canary.duration_s, 0.0)


def _changed(path: Path) -> int:
    """Return when a file was changed, in ns; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@functools.lru_cache(maxsize=8)
def _read_history(path: Path, _changed_ns: int) -> list[Finished]:
    return read_history(path)


def by_rates(
    settings: ForecastSettings, duration_s: float, n_bytes: float, history: Sequence[Finished] = ()
) -> dict[str, Interval]:
    """Forecast a full sort that had no canary.

    Parameters
    ----------
    settings : ForecastSettings
        With the rates.
    duration_s : float
        Length of the recording in s.
    n_bytes : float
        Its size.
    history : sequence of Finished
        Full sorts with the same sorter and parameters: their rates are better.
    """
    minutes, rates = duration_s / 60, settings.rates
    likely = {
        "wall_s": rates.sort_s + rates.sort_s_per_min * minutes,
        "mem_mb": rates.mem_mb + rates.mem_mb_per_min * minutes,
        "disk_mb": rates.disk_per_recording * n_bytes / 1e6,
    }
    for name in likely:
        known = [each for each in history if name in each.models and name in each.actual]
        if known:
            by = {name: known[-1].models[name]}
            likely[name] = predict(by, duration_s, known)[name].likely
    return {
        name: Interval(low=value * (1 - SPREAD), likely=value, high=value * (1 + SPREAD))
        for name, value in likely.items()
    }


MB = 1e6
#: What each cost is called, its unit for people, and what would make it fit.
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
    "disk_mb": ("disk space", "MB", "free disk space, or move the results folder (pathvars)"),
    "vram_mb": ("GPU memory", "MB", "use a larger GPU"),
}


def room(folder: Path, settings: ForecastSettings, watchdogs: WatchdogSettings) -> dict[str, float]:
    """Return what a full sort's job may have, as far as it is limited.

    Parameters
    ----------
    folder : Path
        The recording's results folder.
    settings : ForecastSettings
        With the most that a job may ask for.
    watchdogs : WatchdogSettings
        What they leave free of the disk is no room.
    """
    kept_mb = watchdogs.min_free_disk_mb or 0.0
    found = {
        "wall_s": 60.0 * settings.max_runtime_min,
        "mem_mb": min(float(settings.max_mem_mb), psutil.virtual_memory().total / MB),
        "disk_mb": psutil.disk_usage(str(folder)).free / MB - kept_mb,
    }
    free = gpus.total_mb()
    return found | ({"vram_mb": max(free)} if free else {})


def check(
    forecast: Mapping[str, Interval], room: Mapping[str, float], task: SortTask
) -> tuple[CapacityForecastError | None, list[str]]:
    """Compare a forecast with the room there is.

    Parameters
    ----------
    forecast : dict
        Of :func:`spikecanary.forecast.predict`.
    room : dict
        Of :func:`room`.
    task : SortTask
        What is to be sorted, for the remedy.

    Returns
    -------
    (CapacityForecastError or None, list of str)
        The failure where even the low end does not fit; a warning for each high end that
        does not.
    """
    warnings: list[str] = []
    for cost, limit in room.items():
        if cost not in forecast:
            continue
        name, unit, knob = TEXTS[cost]
        expected = forecast[cost]
        numbers = (
            f"{name} {expected.low:.0f} to {expected.high:.0f} {unit} (likely "
            f"{expected.likely:.0f}), there is {limit:.0f} {unit}"
        )
        knob = _smaller_batches(task) + knob if cost == "vram_mb" else knob
        if expected.low > limit:
            return (
                CapacityForecastError(
                    f"the full sort does not fit: {numbers}. To make it fit: {knob}",
                    what=name,
                    low=expected.low,
                    high=expected.high,
                    room=limit,
                ),
                warnings,
            )
        if expected.high > limit:
            warnings.append(f"the full sort may not fit: {numbers}. To be safe: {knob}")
    return None, warnings


def _smaller_batches(task: SortTask) -> str:
    """Name the sorter's parameter that makes it take less GPU memory."""
    if task.sorter.name not in MEMORY_KNOBS:
        return ""
    return f"lower {MEMORY_KNOBS[task.sorter.name][0]} (sorter.params), or "


def count_gpus(config: Config) -> int:
    """Return the number of GPUs that a canary asks for, and a sort of which nothing is known."""
    if config.job.gpu is not None:
        return config.job.gpu
    if config.sorter.device == "auto":
        return int(shutil.which("nvidia-smi") is not None)
    return int(config.sorter.device == "cuda")


def without_forecast(config: Config) -> dict[str, int]:
    """Return what a sort asks for of which nothing is known."""
    return {
        "mem_mb": config.job.mem_mb,
        "runtime": config.job.sort_runtime_min,
        "disk_mb": config.forecast.min_disk_mb,
        "gpu": count_gpus(config),
    }


def of_sort(config: Config, results: Path, task: SortTask, attempt: int) -> dict[str, int]:
    """Return what a sort asks for, by the forecast of its canary as far as there is one.

    Parameters
    ----------
    config : Config
        With the limits of what may be asked for.
    results : Path
        The results folder.
    task : SortTask
        What is sorted.
    attempt : int
        Which attempt at the job this is; each gets as much again. A sort whose canary was seen to
        use a GPU asks for one at least.
    """
    unknown = without_forecast(config)
    expected = of_recording(results, task.row.id, task.digest(), config.forecast)
    gpu = unknown.pop("gpu")
    if config.job.gpu is None and "vram_mb" in expected:
        gpu = max(gpu, 1)
    asked = request(config.forecast, expected, attempt)
    times = {name: attempt * value for name, value in unknown.items()}
    return {**times, **asked, "gpu": gpu}
