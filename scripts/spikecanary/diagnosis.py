"""From how a supervised sort ended, and its data, to a failure: text is not everything."""

import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikecanary import signals, sorter
from spikecanary.config import SignalSettings
from spikecanary.failures import (
    BiologicalFailure,
    ClassifiedSortFailure,
    DependencyError,
    RecordingUnreadableError,
)
from spikecanary.failures.classify import by_text, classify
from spikecanary.recording import size_bytes
from spikecanary.sorter import SortTask
from spikecanary.supervise.run import Ended, Supervision, call, supervise


def read_ending(ended: Ended) -> ClassifiedSortFailure | None:
    """Tell the failure from the exception, the log and how the child ended."""
    if ended.stopped_by is not None:
        return ended.stopped_by
    log = f"{ended.facts.get('sorter_log', '')}\n{ended.log}"
    if ended.error is not None:
        return classify(ended.error, log)
    if ended.signum == signal.SIGILL:
        return DependencyError("a program uses instructions that this machine's CPU does not have")
    return None if ended.result is not None else by_text("", log)


def too_short(task: SortTask, header: Mapping[str, Any], length_s: float) -> str | None:
    """Say that a sort is of at most one batch, whose failures are no evidence."""
    batch_s = task.batch_s(header["sampling_frequency_hz"])
    if batch_s is None or length_s > batch_s:
        return None
    return (
        f"{length_s:.2f} s are at most one batch of {task.sorter.name} ({batch_s:.2f} s), which it "
        "cannot sort"
    )


def sort(
    task: SortTask,
    settings: SignalSettings,
    *,
    folder: Path,
    supervision: Supervision,
    finished: Path | None = None,
) -> tuple[Ended, ClassifiedSortFailure | None]:
    """Sort in a supervised child process, and tell the failure if it is a known one.

    Parameters
    ----------
    task : SortTask
        What to sort: a whole recording, or the window of a canary's clone.
    settings : SignalSettings
        Thresholds of the signal check, by which a biological failure is told apart.
    folder : Path
        Where to work; exists and is empty. ``diagnosis`` beside it is used too.
    supervision : Supervision
        How the child processes are watched.
    finished : Path, optional
        What the sorter wrote for this very task; it is read instead of sorting.

    Returns
    -------
    (Ended, ClassifiedSortFailure or None)
        How it ended, with a warning where the recording grew meanwhile.
    """
    before = size_bytes(task.row)
    ended = supervise(
        sorter.sort,
        {
            "task": task.model_dump(mode="json"),
            "folder": str(folder),
            "finished": finished and str(finished),
        },
        folder=folder,
        supervision=supervision,
    )
    after = size_bytes(task.row)
    if after > before:
        grown = (
            f"the recording grew while it was sorted, from {before:,} to {after:,} bytes: is it "
            "still being recorded or copied?"
        )
        ended = replace(ended, warnings=(grown, *ended.warnings))
    if ended.result is not None:
        return ended, None
    if after < before and ended.stopped_by is None:
        shrank = (
            f"the recording shrank while it was sorted: {before:,} bytes before, {after:,} after"
        )
        where = {"path": task.row.paths[0], "reader": task.row.reader}
        return ended, RecordingUnreadableError(shrank, **where)
    return ended, _diagnose(ended, task, settings, folder.with_name("diagnosis"), supervision)


def _diagnose(
    ended: Ended, task: SortTask, settings: SignalSettings, folder: Path, supervision: Supervision
) -> ClassifiedSortFailure | None:
    """Tell the failure of a sort, looking at its data where the text alone is no proof."""
    failure = read_ending(ended)
    header = ended.facts.get("header")
    of_sort = ended.error is not None and ended.facts.get("stage") in ("sort", "read")
    of_data = failure is None or isinstance(failure, BiologicalFailure)
    if header is None or not of_sort or not of_data:
        return failure
    window_s = task.window_s
    length_s = window_s[1] - window_s[0] if window_s else header["duration_s"]
    if too_short(task, header, length_s):
        return None
    looked = call(
        signals.check_window,
        {
            "row": task.row.model_dump(mode="json"),
            "window_s": window_s,
            "settings": settings.model_dump(mode="json"),
        },
        folder=folder,
        supervision=supervision,
    )
    return failure if looked.result is None else signals.tell_apart(failure, looked.result)
