"""The plan: what a batch will run and take, from headers alone, before anything runs."""

import math
import statistics
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikecanary import forecast
from spikecanary.config import Config
from spikecanary.failures import ClassifiedSortFailure
from spikecanary.recording import describe_header, open_recording, size_bytes
from spikecanary.reruns import State
from spikecanary.sorter import SortTask
from spikecanary.table import Recording

if TYPE_CHECKING:
    import pandas as pd

#: Sampling rates outside of this range are unusual for spikes, in Hz.
USUAL_HZ = (10_000.0, 50_000.0)
#: Gains outside of this range are unusual, in uV per count.
USUAL_UV = (0.01, 100.0)
#: Recordings that one worker opens before the next is given to it.
CHUNK = 20
COLUMNS = (
    "recording",
    "duration_s",
    "n_channels",
    "size_mb",
    "action",
    "canary_s",
    "sort_s",
    "disk_mb",
    "problems",
)


def inspect(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Read the headers of some recordings; of one that cannot be read, why.

    For a worker process: takes and returns plain data.
    """
    warnings.simplefilter("ignore")
    return [_inspect(Recording.model_validate(row)) for row in rows]


def _inspect(row: Recording) -> dict[str, Any]:
    try:
        recording = open_recording(row)
        header = describe_header(recording)
        gains = recording.get_channel_gains()
    except ClassifiedSortFailure as err:
        return {"problem": str(err)}
    return header | {"gains": [] if gains is None else sorted({float(gain) for gain in gains})}


def read_headers(rows: Sequence[Recording], n_workers: int) -> dict[str, dict[str, Any]]:
    """Read the headers of many recordings at once.

    A reader that crashes its process costs its own recording only.

    Returns
    -------
    dict
        By recording: its :func:`spikecanary.recording.header` and ``gains``, or ``problem``.
    """
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    found = dict(_read_chunks(chunks, n_workers))
    for row in rows:
        if row.id not in found:  # of a chunk whose process died
            found |= dict(_read_chunks([[row]], 1))
            found.setdefault(row.id, {"problem": f"the reader {row.reader} crashed on it"})
    return found


def _read_chunks(
    chunks: Sequence[Sequence[Recording]], n_workers: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    with ProcessPoolExecutor(n_workers) as pool:
        waiting = {
            pool.submit(inspect, [row.model_dump() for row in chunk]): chunk for chunk in chunks
        }
        for future in as_completed(waiting):
            try:
                yield from zip((row.id for row in waiting[future]), future.result(), strict=True)
            except BrokenProcessPool:
                continue


def make(
    config: Config, rows: Sequence[Recording], results: Path, n_workers: int
) -> "pd.DataFrame":
    """Plan every recording.

    Parameters
    ----------
    config : Config
        The config.
    rows : sequence of Recording
        The recordings.
    results : Path
        The results folder, with what has been done so far.
    n_workers : int
        Processes that read headers.

    Returns
    -------
    pandas.DataFrame
        One row a recording: header, ``action`` (what will happen), estimated times in s and
        peak disk in MB, problems.
    """
    import pandas as pd

    headers = read_headers(rows, n_workers)
    twice = _find_twice(rows)
    planned = []
    for row in rows:
        header = headers[row.id]
        state = State(config, row, results / row.id)
        action = _act(state, header)
        planned.append(
            {
                "recording": row.id,
                "duration_s": header.get("duration_s"),
                "n_channels": header.get("n_channels"),
                "size_mb": round(size_bytes(row) / 1e6, 1),
                "action": action,
                **_estimate(config, state.task, results, header, action),
                "problems": "; ".join([*_problems(header), *twice.get(row.id, [])]),
            }
        )
    table = pd.DataFrame(planned, columns=list(COLUMNS))
    return table.astype({"n_channels": "Int64"})


def _act(state: State, header: Mapping[str, Any]) -> str:
    """Say what the next run does with a recording."""
    config, record = state.config, state.sentinel
    if state.problem is not None:
        return f"error: {state.problem}"
    if state.is_done:
        return "done"
    if state.sort_stands:
        return "sort" if not (state.folder / "sorting").exists() else "outputs"
    if "problem" in header:
        return "canary"
    if state.canary_is_due or record is None:
        enough = max(config.canary.window_s, config.canary.min_recording_s)
        too_short = header.get("duration_s", enough) < enough or not config.canary.window_s
        return "skip + sort" if too_short else "canary + sort"
    return "sort" if state.may_sort else f"stopped: {record['failure']}"


def _estimate(
    config: Config, task: SortTask, results: Path, header: Mapping[str, Any], action: str
) -> dict[str, Any]:
    """Estimate the times and the disk space of what will happen."""
    canary_s = config.forecast.rates.canary_s if action.startswith("canary") else 0.0
    if not action.endswith("sort") or "duration_s" not in header:
        return {"canary_s": canary_s, "sort_s": 0.0, "disk_mb": 0.0}
    expected = forecast.of_recording(results, task.row.id, task.digest(), config.forecast)
    if not expected:
        history = forecast.read_history(forecast.history_path(results, task.digest()))
        expected = forecast.by_rates(
            config.forecast, header["duration_s"], size_bytes(task.row), history
        )
    return {
        "canary_s": canary_s,
        "sort_s": round(expected["wall_s"].likely),
        "disk_mb": round(expected["disk_mb"].likely),
    }


def _problems(header: Mapping[str, Any]) -> Iterator[str]:
    """Name what is missing or unusual about a recording."""
    if "problem" in header:
        yield header["problem"]
        return
    rate_hz = header["sampling_frequency_hz"]
    if not USUAL_HZ[0] <= rate_hz <= USUAL_HZ[1]:
        yield f"unusual sampling rate: {rate_hz:g} Hz"
    if not header["has_probe"]:
        yield "no probe"
    if not header["gains"]:
        yield "no gain to uV"
    elif not all(USUAL_UV[0] <= gain <= USUAL_UV[1] for gain in header["gains"]):
        yield f"unusual gain: {header['gains'][0]:g} to {header['gains'][-1]:g} uV per count"


def _find_twice(rows: Iterable[Recording]) -> dict[str, list[str]]:
    """Name recordings that read the same data as another one before them."""
    first: dict[Any, str] = {}
    twice = {}
    for row in rows:
        paths = tuple(str(Path(path).resolve()) for path in row.paths)
        data = (paths, row.stream_id, str(row.reader_options), row.start_s, row.end_s)
        if data in first:
            twice[row.id] = [f"the same data as {first[data]}"]
        first.setdefault(data, row.id)
    return twice


def describe(table: "pd.DataFrame", n_parallel: int, most: int = 20) -> str:
    """Describe a plan for people: its first rows, its problems, its totals.

    Parameters
    ----------
    table : DataFrame
        Of :func:`make`.
    n_parallel : int
        Canaries and sorts that run at the same time.
    most : int
        Rows that are shown.
    """
    shown = table.drop(columns=["problems"]).head(most)
    lines = [shown.to_string(index=False, na_rep="", float_format=lambda value: f"{value:.0f}")]
    if len(table) > most:
        lines.append(f"... and {len(table) - most} more")
    problems = table[table["problems"] != ""]
    if len(problems):
        lines += ["", f"{len(problems)} recordings with problems:"]
        lines += [f"  {row.recording}: {row.problems}" for row in problems.head(most).itertuples()]
    return "\n".join([*lines, "", totals(table, n_parallel)])


def totals(table: "pd.DataFrame", n_parallel: int) -> str:
    """Describe a plan's totals: jobs, hours of device time, disk, wall time."""
    actions = table["action"].str.replace(r": .*", "", regex=True).value_counts().to_dict()
    n_canaries = int(table["action"].str.startswith("canary").sum())
    n_sorts = int(table["action"].str.endswith("sort").sum())
    jobs_s = [float(each) for each in table["canary_s"] + table["sort_s"]]
    longest = max(jobs_s, default=0.0)
    wall_s = max(math.fsum(jobs_s) / n_parallel, longest)
    peak_mb = math.fsum(sorted(table["disk_mb"], reverse=True)[:n_parallel])
    counted = ", ".join(f"{count} {action}" for action, count in actions.items())
    median_s = statistics.median(jobs_s) if jobs_s else 0.0
    return (
        f"{len(table)} recordings: {counted}\n"
        f"{n_canaries} canaries and {n_sorts} sorts at most, "
        f"{math.fsum(jobs_s) / 3600:.1f} hours of device time (median {median_s / 60:.1f} min, "
        f"longest {longest / 60:.1f} min)\n"
        f"{n_parallel} at a time: {wall_s / 3600:.1f} hours of wall time, "
        f"{peak_mb / 1000:.1f} GB of disk at the peak"
    )
