"""The full sort: obey the sentinel, lock, sort, write the sorting and how it ended."""

import contextlib
import json
import logging
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from spikecanary import diagnosis, forecast, preflight, sentinel
from spikecanary.diagnosis import quality
from spikecanary.failures import (
    BiologicalFailure,
    ClassifiedSortFailure,
    DiskExhaustionError,
    InsufficientActivityError,
    NoGoodChannelsError,
)
from spikecanary.failures.classify import classify
from spikecanary.sentinel import Failure, Measured, Outcome, Record
from spikecanary.sorter import SortTask, activity, sorteroutput
from spikecanary.supervise import folders, watchdogs
from spikecanary.supervise.child import describe_error
from spikecanary.supervise.job import Job
from spikecanary.supervise.processes import Interrupted
from spikecanary.supervise.run import Ended, Supervision, call
from spikecanary.texts import PlainError, as_yaml, sentences

logger = logging.getLogger(__name__)

LOCK = ".sort.lock"
#: What a canary tests, of the settings that a sort records.
TESTED = ("task", "data")
#: The evidence of a failure that says what its attempt might use, by what it lacked.
EVIDENCE = {"mem_mb": "limit_mb", "runtime": "limit_s"}
#: An attempt has more where it may use so many times as much as the one before.
MORE = 1.05


class SortStoppedError(PlainError):
    """The canary's verdict forbids this sort."""


class SortFailedError(PlainError):
    """The sort failed; the message is one line for people."""


def run(
    task: SortTask, results: Path, job: Job, *, forced: bool = False, keep_output: bool = True
) -> Record:
    """Sort a whole recording.

    A biological failure is a result: a sorting with zero units, and ``sort.json`` says why; without
    a category where a scan does not confirm it. So are no units without an exception. Both outputs
    appear whole, by rename. Without enough GPU memory it is tried again with smaller batches. Files
    of the sorter that were written for these settings are read instead of sorting.

    ``results`` is the recording's results folder: the sentinel, which is obeyed unless the sort is
    ``forced``, the journal, and the outputs ``sorting`` and ``sort.json``, which is returned. The
    sorter's own files are kept beside them (:mod:`spikecanary.sorter.sorteroutput`).

    Raises SortStoppedError where the sentinel says stop, SortFailedError where the sort failed, and
    not for a biological reason, or another process sorts the recording, and Interrupted where a
    signal ended this process, which leaves only a line in the journal.
    """
    may_read = keep_output and not task.row.is_remote  # whose stamp proves nothing
    finished = sorteroutput.find(results, job.recorded_settings) if may_read else None
    # A finished sort stands, whatever a later canary came to.
    may_sort = forced or finished is not None
    canary = check_sentinel(results / "canary.json", job.recorded_settings, forced=may_sort)
    journal = results / "attempts.jsonl"
    _refuse_repetition(journal, job)
    sort = _Sort(task, results, job, canary, forced=forced, may_read=may_read)
    try:
        with (
            folders.hold(results / LOCK, "sorts this recording"),
            folders.work_folders(results, "sort", job.scratch) as folder,
        ):
            attempt = partial(sort.attempt, finished=finished)
            for work, ended in diagnosis.tries(task, job.retry, folder, attempt):
                record = sort.describe(ended)
                if keep_output and ended.facts.get("sorter_ended_well"):
                    _keep_output(work / "sorter", results, record)
                if record.outcome != "failed":
                    is_raised = record.outcome == "unsortable" and ended.error is not None
                    if is_raised and record.sampling_frequency_hz:
                        sorteroutput.save_empty(work / "sorting", record.sampling_frequency_hz)
                    sentinel.move(work / "sorting", results / "sorting")
                    took = record.measured if finished is None else _measured_before(journal)
                    timed = record.model_copy(update={"measured": took})
                    sentinel.write_record(results / "sort.json", timed)
                sentinel.append_journal(journal, "sort", record)
                if record.outcome == "sorted" and finished is None:
                    forecast.remember(results.parent, canary, record)
    except (ClassifiedSortFailure, OSError) as err:  # a full disk, a right that was taken away
        error = describe_error(err)
        record = sort.describe(Ended(error=error, failure=classify(error, "", job.signatures)))
        sentinel.append_journal(journal, "sort", record)
    except Interrupted as err:
        sentinel.append_interrupted(journal, "sort", task.row.id, sort.started_at, err)
        raise
    if record.outcome == "failed":
        remedy = record.failure.remedy if record.failure else ""
        why = sentences(f"{task.row.id}: the sort failed: {record.reason}", remedy)
        msg = f"{why} See {job.log}"
        raise SortFailedError(msg)
    logger.info("%s: %s: %s", record.recording, record.outcome, record.reason)
    return record


def _measured_before(journal: Path) -> Measured | None:
    """Return what the sort took whose files are read; None where the journal has lost it."""
    for entry in reversed(sentinel.read_journal(journal)):
        with contextlib.suppress(ValueError):
            measured = Measured.model_validate(entry.get("measured"))
            if entry.get("kind") == "sort" and {"sort", "read"} <= measured.stages_s.keys():
                return measured
    return None


def _keep_output(work: Path, results: Path, record: Record) -> None:
    """Keep the sorter's own files; where they cannot be, that must not cost the sorting."""
    try:
        sorteroutput.keep(work, results, record.settings, record.sorter.version)
    except (OSError, DiskExhaustionError) as err:
        logger.warning("%s: the sorter's own files are not kept: %s", record.recording, err)


def check_sentinel(path: Path, settings: Mapping[str, Any], *, forced: bool) -> Record:
    """Read the sentinel and obey it, unless the recording is forced.

    Raises SortStoppedError where the verdict is *stop*, or of another task or other data than those
    of the sort's ``settings``; RecordError where it cannot be read.
    """
    canary = sentinel.read_record(path)
    if canary.verdict == "stop" and not forced:
        category = canary.failure.category if canary.failure else "unknown"
        todo = canary.failure.remedy if canary.failure else ""
        if category == "biological":  # no other would sort all the same
            name = as_yaml(canary.recording)
            todo = f"To sort it all the same: canary: {{force: [{name}]}} in the config"
        msg = f"{canary.recording}: its canary says stop ({category}): {canary.reason}. {todo}"
        raise SortStoppedError(msg)
    # Where Snakemake's memory is lost or another folder's, no canary may have run.
    now = json.loads(json.dumps({name: settings[name] for name in TESTED if name in settings}))
    if not forced and any(canary.settings.get(name, now[name]) != now[name] for name in now):
        todo = f"To test it first, add to your command: --forcerun {shlex.quote(str(path))}"
        msg = f"{canary.recording}: its canary tested other settings or data. {todo}"
        raise SortStoppedError(msg)
    return canary


def _refuse_repetition(journal: Path, job: Job) -> None:
    """Refuse to repeat a sort that failed for anything but a lack of what it has more of now.

    A new invocation begins at attempt 1, and tries again. An attempt that was killed, or refused,
    has left no line in the journal.
    """
    ended = sentinel.read_attempts_of_run(journal, "sort")
    last: dict[str, Any] = {"attempt": job.attempt, **ended[-1]} if ended else {}
    if last.get("outcome") != "failed" or last["attempt"] >= job.attempt:
        return
    failure, why = last.get("failure") or {}, "it would fail again"
    if (lack := forecast.find_lack(last)) is not None:
        had = (failure.get("evidence") or {}).get(EVIDENCE.get(lack, ""))
        has = {"mem_mb": job.mem_mb, "runtime": job.left_s()}.get(lack)
        if not had or not has or has > MORE * had:
            return
        why = f"it may have no more than before (forecast.{forecast.LIMITS[lack]})"
    elif failure.get("category") == "resource" or failure.get("class") == "ConcurrentSortError":
        return
    elif failure.get("category") == "environment" and last.get("host") != socket.gethostname():
        return  # it may be the other node that is broken
    msg = f"{last.get('recording')}: not tried again, {why}: {last.get('reason')}"
    raise SortFailedError(msg)


@dataclass(frozen=True)
class _Sort:
    """One full sort, by its job and its canary: inspect, sort, smaller batches, describe."""

    task: SortTask
    results: Path
    job: Job
    canary: Record
    forced: bool
    may_read: bool  #: what the sorter wrote is read again
    started_at: str = field(default_factory=sentinel.now)

    def attempt(self, task: SortTask, work: Path, *, finished: Path | None) -> Ended:
        """Inspect and sort once, or read what the sorter wrote for this very task."""
        if finished is not None:
            note = f"not sorted again: read from {finished}, which was written for these settings"
            logger.warning("%s: %s", task.row.id, note)
            supervision = self._supervision()
            ended = diagnosis.sort(task, folder=work, supervision=supervision, finished=finished)
            return self._scan_empty(replace(ended, warnings=(note, *ended.warnings)), work)
        arguments = {
            "task": task,
            "folder": work,
            "canary": None,
            "strict": self.job.preflight.strict,
            # A canary has looked already; what is forced is sorted as it is declared.
            "layout": self.canary.outcome == "skipped" and not self.forced,
        }
        inspected = call(
            preflight.inspect_recording_and_node,
            arguments,
            folder=work.with_name("inspect"),
            supervision=self._supervision(),
        )
        if inspected.result is None:
            return inspected
        for line in inspected.result["notes"]:
            logger.warning("%s: %s", task.row.id, line)
        supervision = self._supervision(inspected.result["header"]["duration_s"])
        if self.canary.forecast:
            expected = self.canary.forecast["wall_s"]
            slow = partial(quality.check_forecast, high_s=expected.high)
            supervision = replace(
                supervision,
                watchdogs=[*supervision.watchdogs, slow],
                expected_s=expected.likely,
            )
        return self._scan_empty(diagnosis.sort(task, folder=work, supervision=supervision), work)

    def _scan_empty(self, ended: Ended, work: Path) -> Ended:
        """Ask a scan where a sort found nothing, whether it raised or returned no units."""
        header, failure = ended.facts.get("header"), ended.failure
        if ended.result is not None and ended.result["n_units"] == 0:
            failure = InsufficientActivityError(diagnosis.NO_UNITS)
        if not header or not isinstance(failure, InsufficientActivityError | NoGoodChannelsError):
            return ended
        scanned = call(
            activity.scan,
            {"task": self.task},
            folder=work.with_name("scan"),
            supervision=self._supervision(),
        )
        facts = {**ended.facts, "doubt": diagnosis.doubt_silence(scanned)}
        return replace(ended, result=None, failure=failure, facts=facts)

    def _supervision(self, duration_s: float = 0.0) -> Supervision:
        limit_s = watchdogs.inactivity_limit_s(self.job.watchdogs, duration_s)
        return self.job.supervision(self.task, self.results, limit_s)

    def describe(self, ended: Ended) -> Record:
        """Describe how a try ended; where its outcome is ``failed``, the job fails."""
        canary = self.canary
        header, found = ended.facts.get("header") or {}, ended.result or {}
        outcome: Outcome = "failed"
        reason = ended.describe() if ended.failure is None else str(ended.failure)
        failure = Failure.of(ended.failure) if ended.failure else None
        if found:
            outcome = "sorted"
            reason = f"{found['n_units']} units, {found['n_spikes']} spikes"
        elif header and isinstance(ended.failure, BiologicalFailure):
            outcome = "unsortable"
            if doubt := ended.facts.get("doubt"):
                failure = diagnosis.describe_missed(ended, self.task.suspects)
                reason = f"{reason}, {doubt}"
        elif ended.facts.get("stage") in ("read", "save") and self.may_read:
            reason = (
                f"{reason.rstrip('.')}. The sorter itself ended well, and its files are in "
                f"{sorteroutput.NAME}/ of the recording's results: the next run reads them again. "
                "Remove that folder to sort anew"
            )
        n_units = 0 if outcome == "unsortable" else found.get("n_units")
        odd = list(quality.describe({**found, "n_units": n_units}, header, canary))
        for line in odd:
            logger.warning("%s: %s", self.task.row.id, line)
        return diagnosis.make_record(
            self.task,
            self.job,
            header,
            ended,
            params=ended.facts.get("sorter_params"),
            verdict="proceed",
            outcome=outcome,
            reason=reason,
            failure=failure,
            warnings=[*ended.warnings, *odd],
            n_units=n_units,
            n_spikes=found.get("n_spikes"),
            forced=self.forced,
            started_at=self.started_at,
            attempt=self.job.attempt,
            canary_settings={**canary.settings, "attempt": canary.attempt},
            forecast=canary.forecast,
            bad_periods=canary.bad_periods,
        )
