"""The full sort: obey the sentinel, sort, write the sorting and how it ended."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikecanary import diagnosis, sentinel, sorters, supervisor
from spikecanary.config import PreflightSettings, SignalSettings
from spikecanary.failures import BiologicalFailure, ClassifiedSortFailure
from spikecanary.preflight import Check
from spikecanary.sentinel import Failure, Outcome, Record, SorterInfo
from spikecanary.sorters import SortTask
from spikecanary.supervisor import Ended

logger = logging.getLogger(__name__)


class SortStoppedError(RuntimeError):
    """The canary's verdict forbids this sort."""


class SortFailedError(RuntimeError):
    """The sort failed; the message is one line for people."""


def check_sentinel(path: Path, *, forced: bool) -> Record:
    """Read the sentinel and obey it.

    Raises
    ------
    SortStoppedError
        The verdict is *stop*, and the recording is not forced.
    RecordError
        The sentinel cannot be read.
    """
    verdict = sentinel.read_record(path)
    if verdict.verdict == "stop" and not forced:
        category = verdict.failure.category if verdict.failure else "unknown"
        msg = (
            f"{verdict.recording}: its canary says stop ({category}): {verdict.reason}. To sort "
            f"it all the same, set in the config: canary: {{force: [{verdict.recording}]}}"
        )
        raise SortStoppedError(msg)
    return verdict


def run(
    task: SortTask,
    *,
    sentinel_path: Path,
    sorting_path: Path,
    record_path: Path,
    journal_path: Path,
    log: Path,
    limits: PreflightSettings | None = None,
    signals: SignalSettings | None = None,
    forced: bool = False,
    recorded_settings: Mapping[str, Any] | None = None,
) -> Record:
    """Sort a whole recording.

    A biological failure is a result: a sorting with zero units, and ``sort.json`` says
    why. Both outputs appear whole, by rename.

    Parameters
    ----------
    task : SortTask
        What to sort, and how.
    sentinel_path : Path
        The canary's sentinel, which is obeyed.
    sorting_path, record_path : Path
        The outputs: SpikeInterface sorting folder and ``sort.json``.
    journal_path, log : Path
        Where to note the attempt and what happens.
    limits : PreflightSettings, optional
        Limits of the preflight.
    signals : SignalSettings, optional
        Thresholds by which a biological failure is told apart.
    forced : bool
        Sort whatever the sentinel says.
    recorded_settings : dict, optional
        What ``sort.json`` notes as the settings it was made with.

    Returns
    -------
    Record
        ``sort.json``, as written.

    Raises
    ------
    SortStoppedError
        The sentinel says stop.
    SortFailedError
        The sort failed for another than a biological reason.
    Interrupted
        This process was told to end; nothing is left behind.
    """
    check_sentinel(sentinel_path, forced=forced)
    started_at = sentinel.now()
    folder = supervisor.work_path(record_path.parent, "sort")
    with supervisor.work_folder(folder):
        work = folder / "work"
        work.mkdir()
        ended, failure = _sort(task, limits or PreflightSettings(), folder, log)
        if ended.result is None and failure is None:
            failure = diagnosis.diagnose(
                ended,
                task,
                None,
                signals or SignalSettings(),
                folder=folder / "diagnosis",
                log=log,
            )
        record = _describe(task, ended, failure, log).model_copy(
            update={
                "forced": forced,
                "started_at": started_at,
                "settings": dict(recorded_settings or {}),
            }
        )
        if record.outcome == "failed":
            sentinel.append_journal(journal_path, "sort", record)
            remedy = f" {record.failure.remedy}" if record.failure else ""
            reason = record.reason.rstrip(".")
            msg = f"{task.row.id}: the sort failed: {reason}.{remedy} See {log}"
            raise SortFailedError(msg)
        if record.outcome == "unsortable":
            rate = ended.facts["header"]["sampling_frequency_hz"]
            sorters.save_empty_sorting(work / "sorting", rate)
        (work / "sorting").replace(sorting_path)
    sentinel.write_record(record_path, record)
    sentinel.append_journal(journal_path, "sort", record)
    logger.info("%s: %s: %s", record.recording, record.outcome, record.reason)
    return record


def _sort(
    task: SortTask, limits: PreflightSettings, folder: Path, log: Path
) -> tuple[Ended, ClassifiedSortFailure | None]:
    """Check the node, then sort; return how that ended, and what the preflight found."""
    plain = task.model_dump(mode="json")
    looked = supervisor.call(
        "spikecanary.checkup:look",
        {
            "task": plain,
            "folder": str(folder),
            "limits": limits.model_dump(mode="json"),
            "settings": None,
        },
        folder=folder / "look",
        log=log,
    )
    if looked.result is None:
        return looked, diagnosis.read_ending(looked)
    checks = [Check(**check) for check in looked.result["preflight"]]
    for check in checks:
        logger.warning("%s: %s", task.row.id, check.line())
    failed = [check for check in checks if check.level == "fail"]
    if failed:
        return replace(looked, result=None), failed[0].error()
    ended = supervisor.supervise(
        "spikecanary.sorters:sort",
        {"task": plain, "folder": str(folder / "work")},
        folder=folder / "work",
        log=log,
        threads=task.n_jobs,
    )
    return ended, None


def _describe(
    task: SortTask, ended: Ended, found: ClassifiedSortFailure | None, log: Path
) -> Record:
    """Describe how the sort ended; ``failed`` means that the job fails."""
    header: dict[str, Any] = ended.facts.get("header") or {}
    n_units: int | None = None
    outcome: Outcome = "failed"
    if ended.result is not None:
        outcome, n_units = "sorted", ended.result["n_units"]
        reason = f"{n_units} units, {ended.result['n_spikes']} spikes"
    elif found is not None:
        reason = str(found)
        if isinstance(found, BiologicalFailure) and header:
            outcome, n_units = "unsortable", 0
    else:
        short = header and diagnosis.too_short(task, header, header["duration_s"])
        reason = short or ended.describe()
    return Record(
        recording=task.row.id,
        verdict="proceed",
        outcome=outcome,
        reason=reason,
        failure=Failure.of(found) if found else None,
        sorter=SorterInfo(
            name=task.sorter.name,
            version=ended.facts.get("sorter_version"),
            params_digest=task.digest(),
        ),
        n_units=n_units,
        duration_s=header.get("duration_s"),
        n_channels=header.get("n_channels"),
        measured=ended.measured,
        started_at="",
        finished_at=sentinel.now(),
        versions=sentinel.package_versions(),
        log=str(log),
    )
