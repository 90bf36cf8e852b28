"""The plan: what a batch will run and take, from headers alone, before anything runs."""

import contextlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary import forecast, preflight
from spikecanary.config import Config, SorterSettings
from spikecanary.failures import ClassifiedSortFailure, IOStallError
from spikecanary.failures.classify import classify
from spikecanary.recording import describe_header, layout, open_recording, stamps
from spikecanary.reruns import State
from spikecanary.sorter import parameters, registry, settings_for
from spikecanary.supervise.child import describe_error
from spikecanary.table import Recording
from spikecanary.texts import count, duration, one_line, sentences, shorten

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import BaseRecording

#: Sampling rates outside of this range are unusual for spikes, in Hz.
USUAL_HZ = (10_000.0, 50_000.0)
#: Gains outside of this range are unusual, in uV per count.
USUAL_UV = (0.01, 100.0)
#: A header that is not read after so many s, as on a file system that does not answer, is given up.
LIMIT_S = 120


class Action(StrEnum):
    """What the next run does with a recording."""

    DONE = "done"
    OUTPUTS = "outputs"
    SORT = "sort"
    CANARY = "canary"
    CANARY_AND_SORT = "canary + sort"
    SORT_UNTESTED = "sort without canary"
    STOPPED = "stopped"
    ERROR = "error"


WITH_CANARY = (Action.CANARY, Action.CANARY_AND_SORT)
WITH_SORT = (Action.SORT, Action.CANARY_AND_SORT, Action.SORT_UNTESTED)
WITH_OUTPUTS = (*WITH_SORT, Action.OUTPUTS)


def make(
    config: Config,
    rows: Sequence[Recording],
    results: Path,
    n_workers: int,
    headers: Mapping[str, Mapping[str, Any]] | None = None,
) -> "pd.DataFrame":
    """Plan every recording, a row each: header, ``action``, times in s, disk in MB, problems.

    ``results`` has what has been done so far. ``n_workers`` processes read the headers, unless
    ``headers`` has them, by recording.
    """
    import pandas as pd

    headers = read_headers(rows, n_workers) if headers is None else headers
    repeated = _find_repeated(rows)
    names = {row.sorter or config.sorter.name for row in rows}
    not_here = {name: _why_not_here(settings_for(name, config.sorter)) for name in names}
    planned, n_guessed = [], 0
    for row in rows:
        header = headers[row.id]
        state = State(config, row, results / row.id)
        action, why = _choose_action(state, header)
        changed = f"sorted before, and changed since: {state.changes}" if state.changes else ""
        left_out = parameters.describe_switched_off(state.task.sorter, state.task.preprocessing)
        found = [each for each in _find_problems(header) if each not in why]
        is_due = action in WITH_CANARY + WITH_SORT
        lacking = not_here[state.task.sorter.name] if is_due else ""
        problems = [why, changed, lacking, *found, *left_out, repeated.get(row.id, "")]
        estimate, is_guess = _estimate_jobs(state, results, header, action)
        n_guessed += is_guess
        planned.append(
            {
                "recording": row.id,
                "duration_s": header.get("duration_s"),
                "n_channels": header.get("n_channels"),
                "size_mb": round(_size_bytes(state, header) / 1e6, 1),
                "action": action,
                **estimate,
                "problems": "; ".join(filter(None, problems)),
            }
        )
    table = pd.DataFrame(planned).astype({"duration_s": float, "n_channels": "Int64"})
    table.attrs |= {"n_guessed": n_guessed, "outputs": bool(config.outputs)}
    return table


def read_headers(rows: Sequence[Recording], n_workers: int) -> dict[str, dict[str, Any]]:
    """Return the :func:`read_header` of many recordings, by recording."""
    found = map_in_processes(read_header, rows, n_workers)
    crashed = {row.id: {"problem": f"the reader {row.reader} crashed on it"} for row in rows}
    return {row.id: found.get(at) or crashed[row.id] for at, row in enumerate(rows)}


def map_in_processes(
    function: Callable[[Any], Any], items: Sequence[Any], n_workers: int
) -> dict[int, Any]:
    """Call a function on many items, and return the results by the items' places.

    A reader that crashes its process costs its own item only, which is missing.
    """
    found = _try_in_processes(function, dict(enumerate(items)), n_workers)
    for at, item in enumerate(items):
        if at not in found:  # from when one crashed
            found |= _try_in_processes(function, {at: item}, 1)
    return found


def _try_in_processes(
    function: Callable[[Any], Any], items: Mapping[int, Any], n_workers: int
) -> dict[int, Any]:
    found, waiting = dict[int, Any](), dict[Future[Any], int]()
    with ProcessPoolExecutor(n_workers, initializer=_begin_worker) as pool:
        with contextlib.suppress(BrokenProcessPool):  # by an item before the last was handed over
            for at, item in items.items():
                waiting[pool.submit(_call, function, item)] = at
        for future in as_completed(waiting):
            with contextlib.suppress(BrokenProcessPool):
                found[waiting[future]] = future.result()
    return found


def _begin_worker() -> None:
    """Let a worker end with the process that started it, and give up what takes too long."""

    def end_with_starter() -> None:
        starter = multiprocessing.parent_process()
        if starter is not None:
            starter.join()
        os._exit(1)

    def give_up(*_: Any) -> None:
        msg = f"not read within {LIMIT_S} s"
        raise IOStallError(msg)

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, give_up)
    threading.Thread(target=end_with_starter, daemon=True).start()


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    signal.alarm(LIMIT_S)
    found = function(item)
    signal.alarm(0)
    return found


def read_header(row: Recording, opened: "BaseRecording | None" = None) -> dict[str, Any]:
    """Return a recording's :func:`~spikecanary.recording.describe_header`, ``gains`` and ``notes``.

    Where it cannot be opened: ``problem`` alone. ``opened`` as of
    :func:`~spikecanary.recording.open_recording`.
    """
    notes: list[str] = []
    try:
        recording = open_recording(row, notes, opened=opened)
        gains = recording.get_channel_gains()
        known = [] if gains is None else sorted({float(gain) for gain in gains})
        for path in row.paths if row.reader == "binary" else ():
            notes += layout.describe_remainder(path, layout.Layout.of(row))
        return describe_header(recording) | {"gains": known, "notes": notes}
    except Exception as err:  # noqa: BLE001 - whatever it is, it is this row's
        return {"problem": describe_problem(err)}


def describe_problem(error: Exception, remedy: str = "") -> str:
    """Say why a recording cannot be opened, and what to do, as its canary would.

    A remedy that is given takes the place of the failure's own.
    """
    known, words = classify(describe_error(error)), f"{type(error).__name__}: {error}"
    if known is not None:
        words = str(known) if str(error) in str(known) else f"{known} ({words})"
        remedy = remedy or known.remedy
    return sentences(one_line(words), one_line(remedy))


def _choose_action(state: State, header: Mapping[str, Any]) -> tuple[Action, str]:
    """Return what the next run does with a recording, and why it is not sorted."""
    config, record = state.config, state.sentinel
    action, why = Action.SORT, ""
    if state.problem is not None:
        action, why = Action.ERROR, state.problem
    elif state.is_done:
        action = Action.DONE
    elif state.sort_stands:
        action = Action.OUTPUTS if (state.folder / "sorting").exists() else Action.SORT
    elif not state.canary_is_due and not state.may_sort and record and record.failure:
        action, why = Action.STOPPED, f"stopped: {record.failure.class_name}"
    elif "problem" in header:
        action = Action.CANARY if state.canary_is_due else Action.SORT
    elif certain := state.task.check_length(
        header["n_samples"], header["sampling_frequency_hz"]
    ) or next(preflight.check_channels(state.task, header), None):
        action, why = Action.CANARY, sentences(certain, certain.remedy)
    elif state.canary_is_due:
        enough_s = max(config.canary.window_s, config.canary.min_recording_s)
        is_tested = config.canary.window_s and header["duration_s"] >= enough_s
        action = Action.CANARY_AND_SORT if is_tested else Action.SORT_UNTESTED
    return action, why


def _size_bytes(state: State, header: Mapping[str, Any]) -> int:
    """Return the size of a recording's files; at a URL of its samples."""
    if not state.row.is_remote or "dtype" not in header:
        return stamps.size_bytes(state.data)
    return int(header["n_samples"] * header["n_channels"] * np.dtype(header["dtype"]).itemsize)


def _estimate_jobs(
    state: State, results: Path, header: Mapping[str, Any], action: Action
) -> tuple[dict[str, float], bool]:
    """Estimate the times of a recording's canary and sort, and the sort's disk space.

    Also say whether they are guessed by its length alone. A canary that is certain to stop takes
    no time.
    """
    history = forecast.read_history(forecast.history_path(results, state.task.digest()))
    canary_s = forecast.forecast_canary_s(state.config.canary.window_s, history)
    found = {"canary_s": round(canary_s) if action is Action.CANARY_AND_SORT else 0.0}
    if action not in WITH_SORT or "duration_s" not in header:
        return {**found, "sort_s": 0.0, "disk_mb": 0.0}, False
    measured, known = forecast.forecast_recording(results, state.task)
    size = _size_bytes(state, header)
    expected = forecast.forecast_by_rates(header["duration_s"], size, history)
    expected |= {name: measured[name] for name in known}
    costs = {"sort_s": "wall_s", "disk_mb": "disk_mb"}
    found |= {column: round(expected[cost].likely) for column, cost in costs.items()}
    return found, not (known or history)


def _why_not_here(settings: SorterSettings) -> str:
    """Say why a sorter cannot run on this machine, where jobs need not run; or nothing."""
    try:
        registry.find_sorter(settings)
    except ClassifiedSortFailure as err:
        return str(err)
    return ""


def _find_problems(header: Mapping[str, Any]) -> Iterator[str]:
    """Name what is missing or unusual about a recording."""
    if "problem" in header:
        yield header["problem"]
        return
    rate_hz, gains = header["sampling_frequency_hz"], header["gains"]
    if not USUAL_HZ[0] <= rate_hz <= USUAL_HZ[1]:
        yield f"unusual sampling rate: {rate_hz:g} Hz"
    yield from header["notes"]
    if not header["n_probes"]:
        yield "no probe"
    if not gains:
        yield "no gain to uV"
    elif not all(USUAL_UV[0] <= gain <= USUAL_UV[1] for gain in gains):
        yield f"unusual gain: {gains[0]:g} to {gains[-1]:g} uV per count"


def _find_repeated(rows: Iterable[Recording]) -> dict[str, str]:
    """Name recordings that are the same data as an earlier one, sorted the same way."""
    first: dict[str, str] = {}
    repeated = {}
    for row in rows:
        same = row.model_copy(update={"paths": tuple(map(os.path.realpath, row.paths))})
        data = same.model_dump_json(exclude={"id", "line", "metadata"})
        if (earlier := first.setdefault(data, row.id)) != row.id:
            repeated[row.id] = f"the same data as {earlier}"
    return repeated


def describe(table: "pd.DataFrame", most: int = 20) -> str:
    """Describe a plan for people: its first rows, its problems, its totals."""
    shown = table.drop(columns=["problems"]).head(most)
    times = ["duration_s", "canary_s", "sort_s"]
    shown[times] = shown[times].map(lambda time_s: duration(time_s) if time_s > 0 else "")
    shown = shown.rename(columns=lambda name: name.removesuffix("_s"))
    shown["n_channels"] = shown["n_channels"].astype(object).fillna("")
    lines = [shown.to_string(index=False, na_rep="", float_format="{:.0f}".format)]
    if len(table) > most:
        lines.append(f"... and {len(table) - most} more")
    problems = table[table["problems"] != ""]
    if len(problems):
        lines += ["", f"{count(len(problems), 'recording')} with problems:"]
        alike = problems.groupby("problems", sort=False)["recording"].agg(list)
        lines += [f"  {shorten(ids)}: {text}" for text, ids in alike.iloc[:most].items()]
        more = sum(map(len, alike.iloc[most:]))  # recordings, as are counted above
        lines += [f"  ... and {more} more"] if more else []
    return "\n".join([*lines, "", describe_totals(table)])


def _size(size_mb: float) -> str:
    """Return a size as people say it."""
    return f"{size_mb:.0f} MB" if size_mb < 100 else f"{size_mb / 1000:.1f} GB"  # noqa: PLR2004


def describe_totals(table: "pd.DataFrame") -> str:
    """Describe a plan's totals: recordings by action, jobs, device time, disk."""
    counts = table["action"].value_counts()
    counted = ", ".join(f"{n} {action}" for action, n in counts.items())
    n_canaries, n_sorts, n_made = (
        table["action"].isin(kind).sum() for kind in (WITH_CANARY, WITH_SORT, WITH_OUTPUTS)
    )
    jobs_s = table["canary_s"] + table["sort_s"]
    due_s = jobs_s[jobs_s > 0] if jobs_s.any() else jobs_s
    outputs = f", and the outputs of {count(n_made, 'recording')}"
    lines = (
        f"{count(len(table), 'recording')}: {counted}\n"
        f"At most {count(n_canaries, 'canary', 'canaries')}, {count(n_sorts, 'sort')}"
        f"{outputs if table.attrs.get('outputs', True) else ''}. Canaries and sorts take "
        f"{duration(jobs_s.sum())} in all (median {duration(due_s.median())}, longest "
        f"{duration(jobs_s.max())}), and {_size(table['disk_mb'].max())} of disk for the largest"
    )
    if guessed := table.attrs.get("n_guessed"):
        lines += (
            f"\nTimes of {count(guessed, 'recording')} are guessed from the length: nothing has "
            "been sorted with these settings yet"
        )
    return lines
