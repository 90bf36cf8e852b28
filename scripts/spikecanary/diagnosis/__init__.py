"""What a canary and a full sort do alike: sort, tell the failure, describe the end."""

import itertools
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikecanary import sentinel, signals, sorter
from spikecanary.config import RetrySettings
from spikecanary.failures import (
    GPU_MEMORY,
    BiologicalFailure,
    ClassifiedSortFailure,
    RecordingUnreadableError,
    SorterParameterError,
)
from spikecanary.recording import stamps
from spikecanary.sentinel import Failure, Record, SorterInfo
from spikecanary.sorter import SortTask
from spikecanary.supervise import folders
from spikecanary.supervise.job import Job
from spikecanary.supervise.run import Ended, Supervision, call, supervise

logger = logging.getLogger(__name__)

#: Each retry for want of GPU memory has batches of this share of the last.
SMALLER = 0.5
#: What a sorter says by what it returns.
NO_UNITS = "the sorter found no units"
#: Errors of a GPU that come and go (SpikeInterface issue 3550, PyTorch 3912, nnUNet 1739,
#: grand-challenge 2836). Those of a bug come again: device-side asserts, illegal addresses.
TRANSIENT = re.compile(
    r"^(?:[\w.]*Error: )?(?:CUDA error: (?:unknown error|unspecified launch failure|"
    r"uncorrectable ECC error)|(?:CUDA|cuDNN|cusolver) error: "
    r"CU\w+_STATUS_(?:EXECUTION_FAILED|INTERNAL_ERROR|NOT_INITIALIZED))",
    re.MULTILINE,
)


def make_record(
    task: SortTask,
    job: Job,
    header: Mapping[str, Any],
    ended: Ended | None,
    *,
    params: dict[str, Any] | None = None,
    **fields: Any,
) -> Record:
    """Describe how a canary or a full sort ended, as its record.

    ``header`` is the recording's, as far as it could be read; ``ended`` the child process that
    counts, if any ran; ``params`` all that the sorter ran with; ``fields`` what the two have of
    their own.
    """
    return Record(
        recording=task.row.id,
        sorter=SorterInfo(
            name=task.sorter.name,
            version=ended.facts.get("sorter_version") if ended else None,
            params_digest=task.digest(),
            params=params,
        ),
        duration_s=header.get("duration_s"),
        n_samples=header.get("n_samples"),
        n_channels=header.get("n_channels"),
        sampling_frequency_hz=header.get("sampling_frequency_hz"),
        parts=ended.facts.get("parts", []) if ended else [],
        measured=ended.measured if ended else None,
        settings=job.recorded_settings,
        log=str(job.log),
        finished_at=sentinel.now(),
        versions=sentinel.package_versions(),
        **fields,
    )


def tries(
    task: SortTask, retry: RetrySettings, folder: Path, attempt: Callable[[SortTask, Path], Ended]
) -> Iterator[tuple[Path, Ended]]:
    """Yield the folder of each try of a sort, and how it ended; the last decides.

    The folder is removed when the next is asked for, and warnings say why one is not the first.
    What lacks GPU memory is tried again with smaller batches, as often as the config says; after an
    error of the GPU that comes and goes, the same sort is tried once more.
    """
    warnings: tuple[str, ...] = ()
    times, transient_times = retry.gpu_memory_times, 1
    for number in itertools.count(1):
        with folders.work_folder(folder / f"try-{number}") as work:
            ended = attempt(task, work)
            yield work, replace(ended, warnings=(*warnings, *ended.warnings))
        lacks_memory = times > 0 and isinstance(ended.failure, GPU_MEMORY)
        smaller = task.with_less_memory(SMALLER) if lacks_memory else None
        if smaller is not None:
            times -= 1
            was, now = task.sorter.params, smaller.sorter.params
            changed = {name: value for name, value in now.items() if was.get(name) != value}
            task = smaller
            note = f"the GPU's memory was not enough, so it was sorted with {changed}"
        elif transient_times and (found := TRANSIENT.search((ended.error or {}).get("text", ""))):
            transient_times -= 1
            note = f"the GPU failed ({found[0]}), and the same sort was tried once more"
        else:
            return
        logger.warning("%s: %s", task.row.id, note)
        warnings = (*warnings, note)


def sort(
    task: SortTask, *, folder: Path, supervision: Supervision, finished: Path | None = None
) -> Ended:
    """Sort in a supervised child process, classify its failure, warn where the recording changed.

    ``folder``, where to work, exists and is empty; ``diagnosis`` beside it is used too. Where
    ``finished`` has what the sorter wrote for this very task, that is read instead of sorting.
    """
    before = stamps.of_recording(task.row, None)
    arguments = {"task": task, "folder": folder, "finished": finished}
    ended = supervise(sorter.sort, arguments, folder=folder, supervision=supervision)
    after = stamps.of_recording(task.row, None)
    if shrank := _describe_shrunk(ended, stamps.size_bytes(before), stamps.size_bytes(after)):
        where = {"path": task.row.paths[0], "reader": task.row.reader}
        remedy = "Let nothing write to it, and run again."
        shorter = RecordingUnreadableError(shrank, **where, remedy=remedy)
        return replace(ended, result=None, failure=shorter)
    if changes := stamps.describe_changes(before, after):
        changed = (
            f"the recording changed while it was sorted, and is sorted again: {changes}. Is it "
            "still being recorded or copied?"
        )
        ended = replace(ended, warnings=(changed, *ended.warnings))
    if ended.result is not None:
        return ended
    failure = _diagnose(ended, task, folder.with_name("diagnosis"), supervision)
    return replace(ended, failure=failure)


def doubt_silence(scanned: Ended) -> str:
    """Say why a recording may not be silent, by its scan; nothing where that saw no activity."""
    if scanned.result is None:
        return f"and the scan for activity failed ({scanned.describe()})"
    return "though a scan of the recording sees activity" if not scanned.result["silent"] else ""


def describe_missed(ended: Ended, suspects: str) -> Failure:
    """Describe that a sorter found nothing in a recording that may be active: no biology."""
    name, message = "NoUnits", NO_UNITS
    if ended.error is not None:
        name, message = ended.error_name, ended.describe()
    return Failure(class_name=name, message=message, remedy=suspects, evidence={"active": True})


def _describe_shrunk(ended: Ended, before: int, after: int) -> str:
    """Say that a recording became smaller while it was sorted, with both sizes; or nothing."""
    header = ended.facts.get("header") or {}
    n_before, n_after = header.get("n_samples"), ended.facts.get("n_samples_after")
    samples = f" ({n_before:,} samples before, {n_after:,} after)" if n_after else ""
    is_less = after < before or bool(n_after and n_before and n_after < n_before)
    if not is_less or ended.stopped_by is not None:
        return ""
    return (
        f"the recording shrank while it was sorted: {before:,} bytes before, {after:,} after"
        f"{samples}"
    )


def _diagnose(
    ended: Ended, task: SortTask, folder: Path, supervision: Supervision
) -> ClassifiedSortFailure | None:
    """Classify a sort's failure, by its data where the text alone is no proof."""
    failure = ended.failure
    in_sorter = ended.error is not None and ended.facts["stage"] in ("sort", "read")
    may_be_data = failure is None or isinstance(failure, BiologicalFailure)
    if not in_sorter or not may_be_data:
        return failure
    header = ended.facts["header"]
    start_s, end_s = task.window_s or (0.0, header["duration_s"])
    rate_hz = header["sampling_frequency_hz"]
    if task.check_length(round((end_s - start_s) * rate_hz), rate_hz):
        return None
    checked = call(
        signals.check_window,
        {"row": task.row, "window_s": task.window_s},
        folder=folder,
        supervision=supervision,
    )
    if checked.result is not None:
        failure = signals.tell_apart(failure, checked.result)
    return failure or _explain_by_range(ended, task)


def _explain_by_range(ended: Ended, task: SortTask) -> SorterParameterError | None:
    """Explain an unknown failure by parameters beyond the range that the sorter states, if any."""
    params, name = task.sorter.params, task.sorter.name
    beyond = ended.facts.get("out_of_range")
    if not beyond or "CUDA" in ended.describe():  # a GPU fails for reasons of its own
        return None
    named = ", ".join(f"{key}: {params[key]} ({range_})" for key, range_ in beyond.items())
    msg = f"{name} states another range for a parameter, and fails: {named}: {ended.describe()}"
    remedy = f"Give {' and '.join(beyond)} a value of that range in sorter.params."
    return SorterParameterError(msg, remedy=remedy, sorter=name, parameter=next(iter(beyond)))
