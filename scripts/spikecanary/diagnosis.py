"""From how a supervised sort ended, and its data, to a failure: text is not everything."""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikecanary import recordings, signals, supervisor
from spikecanary.classify import by_text, classify
from spikecanary.config import SignalSettings
from spikecanary.failures import (
    BiologicalFailure,
    ClassifiedSortFailure,
    DependencyError,
    RecordingUnreadableError,
)
from spikecanary.sorters import SortTask
from spikecanary.supervisor import Ended, Supervision


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


def diagnose(
    ended: Ended,
    task: SortTask,
    window_s: tuple[float, float] | None,
    settings: SignalSettings,
    *,
    folder: Path,
    by: Supervision,
    size_bytes: int,
) -> ClassifiedSortFailure | None:
    """Tell the failure of a sort, looking at its data where the text alone is no proof.

    Parameters
    ----------
    ended : Ended
        How :func:`spikecanary.sorters.sort` ended.
    task : SortTask
        What was sorted.
    window_s : (float, float) or None
        The window, in s; None: the whole recording.
    settings : SignalSettings
        Thresholds of the signal check.
    folder : Path
        Where a child process may work.
    by : Supervision
        How it is watched.
    size_bytes : int
        Size of the recording before the sort.
    """
    now_bytes = recordings.size_bytes(task.row)
    if ended.stopped_by is None and now_bytes < size_bytes:
        return RecordingUnreadableError(
            f"the recording shrank while it was sorted: {size_bytes:,} bytes before, "
            f"{now_bytes:,} after",
            path=task.row.paths[0],
            reader=task.row.reader,
        )
    failure = read_ending(ended)
    header = ended.facts.get("header")
    of_sort = ended.error is not None and ended.facts.get("stage") == "sort"
    of_data = failure is None or isinstance(failure, BiologicalFailure)
    if header is None or not of_sort or not of_data:
        return failure
    length_s = window_s[1] - window_s[0] if window_s else header["duration_s"]
    if too_short(task, header, length_s):
        return None
    looked = supervisor.call(
        "spikecanary.signals:check_window",
        {
            "row": task.row.model_dump(mode="json"),
            "window_s": window_s,
            "settings": settings.model_dump(mode="json"),
        },
        folder=folder,
        by=by,
    )
    return failure if looked.result is None else signals.tell_apart(failure, looked.result)


def growth_warning(task: SortTask, size_bytes: int) -> str | None:
    """Say that a recording is larger than it was before a sort, in bytes."""
    now_bytes = recordings.size_bytes(task.row)
    if now_bytes <= size_bytes:
        return None
    return (
        f"the recording grew while it was sorted, from {size_bytes:,} to {now_bytes:,} bytes: is "
        "it still being recorded or copied?"
    )
