"""The full sort: obey the sentinel, lock, sort, write the sorting and how it ended."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spikecanary import checkup, diagnosis, forecast, sentinel, sorter, sorteroutput
from spikecanary.config import RetrySettings, SignalSettings
from spikecanary.failures import (
    BiologicalFailure,
    ClassifiedSortFailure,
    ConcurrentSortError,
    GpuMemoryWatchdogError,
    GPUOutOfMemoryError,
)
from spikecanary.preflight import Check
from spikecanary.sentinel import Failure, Outcome, Record, SorterInfo
from spikecanary.sorter import SortTask
from spikecanary.supervise import folders, watchdogs
from spikecanary.supervise.interrupts import Interrupted
from spikecanary.supervise.job import Job
from spikecanary.supervise.run import Ended, Supervision, call

logger = logging.getLogger(__name__)

LOCK = ".sort.lock"
#: What smaller batches can help against.
GPU_MEMORY = (GPUOutOfMemoryError, GpuMemoryWatchdogError)


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
    job: Job,
    retry: RetrySettings | None = None,
    signals: SignalSettings | None = None,
    forced: bool = False,
    attempt: int = 1,
    keep_output: bool = True,
    recorded_settings: Mapping[str, Any] | None = None,
) -> Record:
    """Sort a whole recording.

    A biological failure is a result: a sorting with zero units, and ``sort.json`` says
    why. Both outputs appear whole, by rename. Where the GPU's memory is not enough, it is
    tried again with smaller batches. Where the sorter's own files stand that were written for
    these settings, they are read, and nothing is sorted.

    Parameters
    ----------
    task : SortTask
        What to sort, and how.
    sentinel_path : Path
        The canary's sentinel, which is obeyed.
    sorting_path, record_path : Path
        The outputs: SpikeInterface sorting folder and ``sort.json``.
    journal_path : Path
        Where each attempt is noted.
    job : Job
        Where to log, and what the job may use.
    retry : RetrySettings, optional
        What is tried again.
    signals : SignalSettings, optional
        Thresholds by which a biological failure is told apart.
    forced : bool
        Sort whatever the sentinel says.
    attempt : int
        The how manieth time Snakemake runs this job. What failed for want of something is
        tried again, what failed otherwise would fail again.
    keep_output : bool
        Keep the sorter's own files beside the outputs (:mod:`spikecanary.sorteroutput`).
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
        The sort failed for another than a biological reason; another process sorts the
        recording.
    Interrupted
        This process was told to end; nothing is left behind but a line in the journal.
    """
    canary = check_sentinel(sentinel_path, forced=forced)
    started_at = sentinel.now()
    results = record_path.parent
    settings = dict(recorded_settings or {})
    record = None
    _check_worth(journal_path, results, attempt)

    def describe(trial: _Trial) -> Record:
        noted: dict[str, Any] = {"forced": forced, "started_at": started_at, "attempt": attempt}
        noted["settings"] = settings
        noted["canary_settings"] = {**canary.settings, "attempt": canary.attempt}
        noted["forecast"] = canary.forecast
        return trial.describe(task, job.log).model_copy(update=noted)

    try:
        with folders.hold(results / LOCK, "sorts this recording"):
            folders.sweep(results)
            with folders.work_folder(folders.work_path(results, "sort")) as folder:
                sort = _Sort(job, signals or SignalSettings(), results, folder)
                finished = sorteroutput.find(results, settings) if keep_output else None
                for trial in sort.trials(task, retry or RetrySettings(), finished):
                    record = describe(trial)
                    if keep_output and trial.has_output:
                        work = trial.folder / "sorter"
                        sorteroutput.keep(work, results, settings, record.sorter.version)
                    if record.outcome != "failed":
                        trial.keep(sorting_path)
                        sentinel.write_record(record_path, record)
                    sentinel.append_journal(journal_path, "sort", record)
                    if record.outcome == "sorted" and finished is None:
                        forecast.remember(results.parent, canary, record)
    except ConcurrentSortError as err:
        record = describe(_Trial(task, results, Ended(), err))
        sentinel.append_journal(journal_path, "sort", record)
    except Interrupted as err:
        sentinel.append_interrupted(journal_path, "sort", task.row.id, started_at, err)
        raise
    if record is None or record.outcome == "failed":
        raise SortFailedError(_say_failed(task, record, job.log))
    logger.info("%s: %s: %s", record.recording, record.outcome, record.reason)
    return record


def _check_worth(journal_path: Path, results: Path, attempt: int) -> None:
    """Refuse to repeat at once a sort that failed for another reason than want of a resource.

    A try that was killed (by the batch system, for its memory) has left its work folder and
    no line in the journal.
    """
    sorts = [line for line in sentinel.read_journal(journal_path) if line.get("kind") == "sort"]
    if attempt == 1 or not sorts or any(results.glob(".sort-*")):
        return
    last = sorts[-1]
    category = (last.get("failure") or {}).get("category")
    if (
        last.get("outcome") == "failed"
        and last.get("attempt") == attempt - 1
        and (category != "resource")
    ):
        msg = f"{last['recording']}: not tried again, it would fail again: {last['reason']}"
        raise SortFailedError(msg)


def _say_failed(task: SortTask, record: Record | None, log: Path) -> str:
    reason = record.reason.rstrip(".") if record else "it was never tried"
    remedy = f" {record.failure.remedy}" if record and record.failure else ""
    return f"{task.row.id}: the sort failed: {reason}.{remedy} See {log}"


@dataclass(frozen=True)
class _Trial:
    """One try of a full sort: how it ended, and the failure if it is a known one."""

    task: SortTask
    folder: Path
    ended: Ended
    failure: ClassifiedSortFailure | None
    warnings: tuple[str, ...] = ()

    @property
    def header(self) -> Mapping[str, Any]:
        """The recording's header, as far as it could be read."""
        return self.ended.facts.get("header") or {}

    @property
    def outcome(self) -> Outcome:
        """``failed`` means that the job fails."""
        if self.ended.result is not None:
            return "sorted"
        biological = isinstance(self.failure, BiologicalFailure)
        return "unsortable" if biological and self.header else "failed"

    @property
    def has_output(self) -> bool:
        """Whether the sorter itself ended well, even where its result could not be read."""
        return bool(self.ended.facts.get("sorter_ended_well"))

    def describe(self, asked: SortTask, log: Path) -> Record:
        """Describe this try as the record of the sort that was asked for."""
        ended = self.ended
        n_units = 0 if self.outcome == "unsortable" else None
        if ended.result is not None:
            n_units = ended.result["n_units"]
            reason = f"{n_units} units, {ended.result['n_spikes']} spikes"
        elif self.failure is not None:
            reason = str(self.failure)
        else:
            header = self.header
            short = header and diagnosis.too_short(asked, header, header["duration_s"])
            reason = short or ended.describe()
        if self.outcome == "failed" and ended.facts.get("stage") in ("read", "save"):
            reason = (
                f"{reason.rstrip('.')}. The sorter itself ended well, and its files are in "
                f"{sorteroutput.NAME}/ of the recording's results: the next run reads them again. "
                "Remove that folder to sort anew"
            )
        return Record(
            recording=asked.row.id,
            verdict="proceed",
            outcome=self.outcome,
            reason=reason,
            failure=Failure.of(self.failure) if self.failure else None,
            warnings=[*self.warnings, *ended.warnings],
            sorter=SorterInfo(
                name=asked.sorter.name,
                version=ended.facts.get("sorter_version"),
                params_digest=asked.digest(),
                params=ended.facts.get("sorter_params"),
            ),
            n_units=n_units,
            n_spikes=ended.result["n_spikes"] if ended.result else None,
            duration_s=self.header.get("duration_s"),
            n_channels=self.header.get("n_channels"),
            sampling_frequency_hz=self.header.get("sampling_frequency_hz"),
            measured=ended.measured,
            started_at="",
            finished_at=sentinel.now(),
            versions=sentinel.package_versions(),
            log=str(log),
        )

    def keep(self, path: Path) -> None:
        """Move the sorting to its place, in one step."""
        if self.outcome == "unsortable":
            rate_hz = self.header["sampling_frequency_hz"]
            sorter.save_empty_sorting(self.folder / "sorting", rate_hz)
        if path.exists():  # of an earlier sort, where it was not Snakemake that started this one
            path.rename(self.folder / "replaced")
        (self.folder / "sorting").replace(path)


class _Sort:
    """A full sort on this node: preflight, sort, smaller batches."""

    def __init__(self, job: Job, signals: SignalSettings, results: Path, folder: Path) -> None:
        self.job = job
        self.signals = signals
        self.results = results
        self.folder = folder

    def trials(
        self, task: SortTask, retry: RetrySettings, finished: Path | None
    ) -> Iterator[_Trial]:
        """Yield each try; the last decides. Its folder is removed when the next is asked for."""
        if finished is not None:
            with folders.work_folder(self.folder / "try-again") as folder:
                yield self._read(task, folder, finished)
            return
        warnings: tuple[str, ...] = ()
        for number in range(1, retry.gpu_memory_times + 2):
            with folders.work_folder(self.folder / f"try-{number}") as folder:
                trial = replace(self._try(task, folder), warnings=warnings)
                yield trial
            short = isinstance(trial.failure, GPU_MEMORY)
            smaller = task.with_less_memory(retry.gpu_memory_factor) if short else None
            if smaller is None or number > retry.gpu_memory_times:
                return
            changed = sorter.changed_params(task, smaller)
            note = f"the GPU's memory was not enough, so it was sorted with {changed}"
            logger.warning("%s: %s: again with %s", task.row.id, trial.failure, changed)
            warnings, task = (*warnings, note), smaller

    def _read(self, task: SortTask, folder: Path, finished: Path) -> _Trial:
        """Read what the sorter wrote for this very task."""
        supervision = self._supervision(task, 0.0)
        ended, failure = diagnosis.sort(
            task, self.signals, folder=folder, supervision=supervision, finished=finished
        )
        note = f"not sorted again: read from {finished}, which was written for these settings"
        logger.warning("%s: %s", task.row.id, note)
        return _Trial(task, folder, ended, failure, warnings=(note,))

    def _try(self, task: SortTask, folder: Path) -> _Trial:
        """Check the node, then sort."""
        looked = call(
            checkup.look,
            {
                "task": task.model_dump(mode="json"),
                "folder": str(self.folder),
                "limits": self.job.preflight.model_dump(mode="json"),
                "settings": None,
            },
            folder=folder / "look",
            supervision=self._supervision(task, 0.0),
        )
        if looked.result is None:
            return _Trial(task, folder, looked, diagnosis.read_ending(looked))
        checks = [Check(**check) for check in looked.result["preflight"]]
        for check in checks:
            logger.warning("%s: %s", task.row.id, check.line())
        failed = [check for check in checks if check.level == "fail"]
        if failed:
            return _Trial(task, folder, replace(looked, result=None), failed[0].error())
        supervision = self._supervision(task, looked.result["header"]["duration_s"])
        ended, failure = diagnosis.sort(task, self.signals, folder=folder, supervision=supervision)
        return _Trial(task, folder, ended, failure)

    def _supervision(self, task: SortTask, duration_s: float) -> Supervision:
        """Return how the next child process is watched."""
        limit_s = watchdogs.inactivity_limit_s(self.job.watchdogs, duration_s)
        return self.job.supervision(task, self.results, limit_s)
