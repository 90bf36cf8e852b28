"""The full sort: obey the sentinel, lock, sort, write the sorting and how it ended."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from spikecanary import diagnosis, forecast, quality, sentinel, sorter, sorteroutput
from spikecanary.failures import (
    BiologicalFailure,
    ConcurrentSortError,
)
from spikecanary.sentinel import Failure, Outcome, Record
from spikecanary.sorter import SortTask
from spikecanary.supervise import folders, watchdogs
from spikecanary.supervise.job import Job
from spikecanary.supervise.processes import Interrupted
from spikecanary.supervise.run import Ended, Supervision

logger = logging.getLogger(__name__)

LOCK = ".sort.lock"


class SortStoppedError(RuntimeError):
    """The canary's verdict forbids this sort."""


class SortFailedError(RuntimeError):
    """The sort failed; the message is one line for people."""


@dataclass(frozen=True)
class Options:
    """How a full sort goes about it; none of these decides its result.

    Attributes
    ----------
    forced : bool
        Sort whatever the sentinel says.
    keep_output : bool
        Keep the sorter's own files beside the outputs (:mod:`spikecanary.sorteroutput`).
    """

    forced: bool = False
    keep_output: bool = True


def run(task: SortTask, results: Path, job: Job, options: Options | None = None) -> Record:
    """Sort a whole recording.

    A biological failure is a result: a sorting with zero units, and ``sort.json`` says why. Both
    outputs appear whole, by rename. Without enough GPU memory it is tried again with smaller
    batches. Files of the sorter that were written for these settings are read instead of sorting.

    Parameters
    ----------
    task : SortTask
        What to sort, and how.
    results : Path
        The recording's results folder: the sentinel, which is obeyed, the journal, and the outputs
        ``sorting`` and ``sort.json``.
    job : Job
        Log, limits, Snakemake's attempt, and the settings to record.
    options : Options, optional
        How to go about it.

    Returns
    -------
    Record
        ``sort.json``, as written.

    Raises
    ------
    SortStoppedError
        The sentinel says stop.
    SortFailedError
        The sort failed, and not for a biological reason; or another process sorts the recording.
    Interrupted
        A signal ended this process; only a line in the journal is left behind.
    """
    options = options or Options()
    canary = check_sentinel(results / "canary.json", forced=options.forced)
    started_at = sentinel.now()
    journal = results / "attempts.jsonl"
    record = None
    _refuse_repetition(journal, results, job.attempt)

    def describe(trial: _Trial) -> Record:
        return trial.describe(
            task,
            canary,
            forced=options.forced,
            started_at=started_at,
            attempt=job.attempt,
            settings=dict(job.recorded_settings),
            canary_settings={**canary.settings, "attempt": canary.attempt},
            forecast=canary.forecast,
            bad_periods=canary.bad_periods,
            log=str(job.log),
        )

    try:
        with (
            folders.hold(results / LOCK, "sorts this recording"),
            folders.work_folder(folders.work_path(results, "sort")) as folder,
        ):
            folders.sweep(results)
            finished = None
            if options.keep_output:
                finished = sorteroutput.find(results, job.recorded_settings)
            # A canary has looked already; what is forced is sorted as it is declared.
            layout = canary.outcome == "skipped" and not options.forced
            high_s = canary.forecast["wall_s"].high if canary.forecast else None
            for trial in _Sort(job, results, folder, layout=layout, high_s=high_s).trials(
                task, finished
            ):
                record = describe(trial)
                if options.keep_output and trial.sorter_ended_well:
                    _keep_sorter_output(trial, record, results)
                if record.outcome != "failed":
                    trial.move_sorting(results / "sorting")
                    sentinel.write_record(results / "sort.json", record)
                sentinel.append_journal(journal, "sort", record)
                if record.outcome == "sorted" and finished is None:
                    forecast.remember(results.parent, canary, record)
    except ConcurrentSortError as err:
        record = describe(_Trial(task, results, Ended(), err))
        sentinel.append_journal(journal, "sort", record)
    except Interrupted as err:
        sentinel.append_interrupted(journal, "sort", task.row.id, started_at, err)
        raise
    if record is None or record.outcome == "failed":
        raise SortFailedError(_describe_failed(task, record, job.log))
    logger.info("%s: %s: %s", record.recording, record.outcome, record.reason)
    return record


def check_sentinel(path: Path, *, forced: bool) -> Record:
    """Read the sentinel and obey it.

    Raises
    ------
    SortStoppedError
        The verdict is *stop*, and the recording is not forced.
    RecordError
        The sentinel cannot be read.
    """
    canary = sentinel.read_record(path)
    if canary.verdict == "stop" and not forced:
        category = canary.failure.category if canary.failure else "unknown"
        todo = canary.failure.remedy if canary.failure else ""
        if category == "biological":  # no other would sort all the same
            todo = f"To sort it all the same: canary: {{force: [{canary.recording}]}} in the config"
        msg = f"{canary.recording}: its canary says stop ({category}): {canary.reason}. {todo}"
        raise SortStoppedError(msg)
    return canary


def _refuse_repetition(journal: Path, results: Path, attempt: int) -> None:
    """Refuse to repeat a sort that failed for anything but a lack of resources.

    A new invocation begins at attempt 1, and tries again. An attempt that was killed (by the batch
    system, for its memory) has left its work folder and no line in the journal; neither has one
    that was refused.
    """
    sorts = [line for line in sentinel.read_journal(journal) if line.get("kind") == "sort"]
    if attempt == 1 or not sorts or any(results.glob(".sort-*")):
        return
    last = sorts[-1]
    category = (last.get("failure") or {}).get("category")
    if last.get("outcome") == "failed" and last["attempt"] < attempt and category != "resource":
        msg = f"{last['recording']}: not tried again, it would fail again: {last['reason']}"
        raise SortFailedError(msg)


def _describe_failed(task: SortTask, record: Record | None, log: Path) -> str:
    reason = record.reason.rstrip(".") if record else "it was never tried"
    remedy = f" {record.failure.remedy}" if record and record.failure else ""
    return f"{task.row.id}: the sort failed: {reason}.{remedy} See {log}"


class _Trial(diagnosis.Try):
    """One try of a full sort."""

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
    def sorter_ended_well(self) -> bool:
        """Whether the sorter itself ended well, even where its result could not be read."""
        return bool(self.ended.facts.get("sorter_ended_well"))

    def reason(self) -> str:
        """Return one line for people: how this try ended."""
        if self.ended.result is not None:
            return f"{self.ended.result['n_units']} units, {self.ended.result['n_spikes']} spikes"
        reason = self.ended.describe() if self.failure is None else str(self.failure)
        if self.outcome == "failed" and self.ended.facts.get("stage") in ("read", "save"):
            reason = (
                f"{reason.rstrip('.')}. The sorter itself ended well, and its files are in "
                f"{sorteroutput.NAME}/ of the recording's results: the next run reads them again. "
                "Remove that folder to sort anew"
            )
        return reason

    def describe(self, task: SortTask, canary: Record, **of_job: Any) -> Record:
        """Describe this try as the record of a task, with the fields that its job knows."""
        found = self.ended.result or {}
        n_units = 0 if self.outcome == "unsortable" else found.get("n_units")
        odd = list(quality.describe({**found, "n_units": n_units}, self.header, canary))
        for line in odd:
            logger.warning("%s: %s", task.row.id, line)
        return diagnosis.make_record(
            task,
            self.header,
            self.ended,
            params=self.ended.facts.get("sorter_params"),
            verdict="proceed",
            outcome=self.outcome,
            reason=self.reason(),
            failure=Failure.of(self.failure) if self.failure else None,
            warnings=[*self.warnings, *self.ended.warnings, *odd],
            n_units=n_units,
            n_spikes=found.get("n_spikes"),
            **of_job,
        )

    def move_sorting(self, path: Path) -> None:
        """Move the sorting to its place, in one step."""
        made = self.folder / "sorting"
        if self.outcome == "unsortable":
            sorter.save_empty_sorting(made, self.header["sampling_frequency_hz"])
        if path.exists():  # of an earlier sort, if it was not Snakemake that started this one
            path.rename(self.folder / "replaced")
        made.replace(path)


def _keep_sorter_output(trial: _Trial, record: Record, results: Path) -> None:
    work = trial.folder / "sorter"
    sorteroutput.keep(work, results, record.settings, record.sorter.version)


class _Sort:
    """A full sort on this node: inspect, sort, smaller batches."""

    def __init__(
        self, job: Job, results: Path, folder: Path, *, layout: bool, high_s: float | None
    ) -> None:
        self.job = job
        self.layout = layout
        self.high_s = high_s
        self.results = results
        self.folder = folder

    def trials(self, task: SortTask, finished: Path | None) -> Iterator[_Trial]:
        """Yield each try; the last decides. Its folder is removed when the next is asked for."""
        if finished is not None:
            with folders.work_folder(self.folder / "try-again") as folder:
                yield self._read(task, folder, finished)
            return
        yield from diagnosis.tries(task, self.job.retry, self.folder, self._try)

    def _read(self, task: SortTask, folder: Path, finished: Path) -> _Trial:
        """Read what the sorter wrote for this very task."""
        ended, failure = diagnosis.sort(
            task, folder=folder, supervision=self._supervision(task), finished=finished
        )
        note = f"not sorted again: read from {finished}, which was written for these settings"
        logger.warning("%s: %s", task.row.id, note)
        return _Trial(task, folder, ended, failure, warnings=(note,))

    def _try(self, task: SortTask, folder: Path) -> _Trial:
        """Inspect recording and node, then sort."""
        inspection = diagnosis.inspect(
            task,
            strict=self.job.preflight.strict,
            folder=self.folder,
            supervision=self._supervision(task),
            layout=self.layout,
        )
        inspected = inspection.ended
        notes = inspected.result["notes"] if inspected.result else []
        for line in (*notes, *(check.line() for check in inspection.checks)):
            logger.warning("%s: %s", task.row.id, line)
        if inspected.result is None or inspection.failure:
            return _Trial(task, folder, replace(inspected, result=None), inspection.failure)
        supervision = self._supervision(task, inspected.result["header"]["duration_s"])
        if self.high_s is not None:
            slow = partial(quality.check_forecast, high_s=self.high_s)
            supervision = replace(supervision, watchdogs=[*supervision.watchdogs, slow])
        ended, failure = diagnosis.sort(task, folder=folder, supervision=supervision)
        return _Trial(task, folder, ended, failure)

    def _supervision(self, task: SortTask, duration_s: float = 0.0) -> Supervision:
        """Return how the next child process is watched."""
        limit_s = watchdogs.inactivity_limit_s(self.job.watchdogs, duration_s)
        return self.job.supervision(task, self.results, limit_s)
