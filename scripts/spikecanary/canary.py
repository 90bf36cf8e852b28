"""The canary: sort a short window of a recording, write the verdict to the sentinel."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikecanary import diagnosis, forecast, preflight, sentinel
from spikecanary.config import CanarySettings
from spikecanary.failures import (
    BiologicalFailure,
    ClassifiedSortFailure,
    DiskExhaustionError,
    HostMemoryWatchdogError,
    InsufficientActivityError,
    IOStallError,
    PreprocessingError,
    SettingsError,
    SorterTimeoutError,
)
from spikecanary.forecast import Forecast
from spikecanary.recording import stamps
from spikecanary.sentinel import Failure, Measured, Outcome, Record, Window
from spikecanary.signals import SignalReport
from spikecanary.sorter import LEAST_BATCHES, SortTask, activity, learning
from spikecanary.sorter.learning import Learned
from spikecanary.sorter.registry import MATLAB_KILOSORTS
from spikecanary.supervise import folders, watchdogs
from spikecanary.supervise.job import Job
from spikecanary.supervise.processes import Interrupted
from spikecanary.supervise.run import Ended, Supervision, call
from spikecanary.texts import PlainError, count, sentences

logger = logging.getLogger(__name__)

#: Where others raise what becomes these, another process may have used the memory or the disk, and
#: storage or a server may answer again: they say little of the full sort, and do not stop it. What
#: a watchdog or the preflight found does.
RAW_RESOURCES = (HostMemoryWatchdogError, DiskExhaustionError, IOStallError, SorterTimeoutError)
#: Sorters that read a recording's own file where it is a plain one; others make a copy of it.
READ_BINARY = (*MATLAB_KILOSORTS, "kilosort4", "pykilosort", "tridesclous")
#: A second window that begins this near to the first is the same, in s.
SAME_WINDOW_S = 0.5


@dataclass(frozen=True)
class Attempt:
    """One window that was sorted, and how it ended."""

    window: Window
    ended: Ended

    @property
    def is_suspicious(self) -> bool:
        """Whether the data may be to blame: a biological failure, or no units."""
        return isinstance(self.ended.failure, BiologicalFailure) or self.window.n_units == 0


@dataclass
class Evidence:
    """What the steps of a canary found, in their order; what was not reached is empty."""

    skip: str = ""  # why there is no canary
    header: Mapping[str, Any] = field(default_factory=dict)
    failed: Ended | None = None  # the inspection before the sort, where it failed
    certain: ClassifiedSortFailure | None = None  # why the full sort cannot end well
    signals: SignalReport | None = None
    attempts: list[Attempt] = field(default_factory=list)  # the last decides
    doubt: str | None = None  # why it may not be silent, by a scan; None: no scan was made
    suspects: str = ""  # what may hide the activity that a scan saw
    learned: Learned | None = None  # where the window did not teach enough
    expected: Forecast = field(default_factory=dict)  # of the full sort
    warnings: list[str] = field(default_factory=list)

    @property
    def counted(self) -> Attempt | None:
        """The window whose units count: the last, or one without units before one that failed."""
        if not self.attempts:
            return None
        last, without = self.attempts[-1], [a for a in self.attempts if a.window.n_units == 0]
        return without[0] if last.is_suspicious and without else last


@dataclass(frozen=True)
class Decision:
    """The outcome of a canary, and why."""

    outcome: Outcome
    reason: str
    failure: Failure | None = None
    warning: str = ""


KILLED = Decision(
    "unexpected",
    "the canary's job was killed or failed, so it proved nothing (its log is the one before)",
)


def run(
    task: SortTask,
    settings: CanarySettings,
    results: Path,
    job: Job,
    attempt: int = 0,
    *,
    refused: Sequence[str] = (),
) -> Record:
    """Test whether a recording can be sorted, and write sentinel and journal.

    Never fails because the data or the machine is bad: whatever happens becomes a verdict. What is
    not classified becomes ``proceed``, because a smoke test is not a hard gate.

    Of ``task``, the full sort, a clone is run on a short window. ``results`` is the recording's
    results folder, with ``canary.json`` and ``attempts.jsonl``; ``attempt`` the number of its
    environment and resource stops so far. From a job's own second attempt on nothing is sorted:
    it was killed before, and its wave must not wait any longer. ``refused`` is what is wrong with
    settings of the steps after the sort, which would fail then.

    Raises Interrupted where a signal ended this process, which leaves only a line in the journal,
    PlainError where no sentinel can be written, OSError where an earlier job's files cannot be
    removed.
    """
    started_at, journal = sentinel.now(), results / "attempts.jsonl"
    evidence = Evidence(warnings=list(_describe_changes(results / "sort.json", job)))
    try:
        with folders.work_folders(results, "canary", job.scratch) as folder:
            if refused:
                evidence.certain = SettingsError("; ".join(refused))
            elif job.attempt == 1:
                _Canary(task, settings, job, results, folder, evidence).collect()
        decision = decide(evidence, settings.stop_on) if job.attempt == 1 else KILLED
    except Interrupted as err:
        sentinel.append_interrupted(journal, "canary", task.row.id, started_at, err)
        raise
    except folders.LeftoverError:
        raise
    except ClassifiedSortFailure as err:
        decision = _stop(err, settings.stop_on)
    except Exception as err:
        # Of a full disk no traceback, which says nothing.
        logger.error("the canary itself failed: %s", err, exc_info=not isinstance(err, OSError))  # noqa: TRY400
        decision = Decision(
            "unexpected",
            f"the canary itself failed: {type(err).__name__}: {err}",
            Failure(class_name=type(err).__name__, message=str(err)),
        )
    record = _describe(task, job, evidence, decision, attempt=attempt, started_at=started_at)
    try:
        sentinel.write_record(results / "canary.json", record)
    except OSError as err:
        msg = f"{task.row.id}: its verdict cannot be written to {results}: {err}"
        remedy = "Free disk space, or make that folder writable, and run again."
        raise PlainError(sentences(msg, remedy)) from err
    sentinel.append_journal(journal, "canary", record)
    _log_verdict(record)
    return record


@dataclass
class _Canary:
    """The steps of one canary, in their order; the first that decides is the last."""

    task: SortTask
    settings: CanarySettings
    job: Job
    results: Path  # the recording's folder
    folder: Path  # where to work
    evidence: Evidence
    window_s: float = 0.0

    def collect(self) -> None:
        """Inspect header, node and signal, sort, and forecast the full sort."""
        evidence, self.window_s = self.evidence, self.settings.window_s
        if not self.window_s:
            evidence.skip = "no canary: canary.window_s is 0"
            return
        self._inspect()
        if evidence.skip or evidence.failed or evidence.certain:
            return
        self._sort(0.0, self.window_s, "leading")
        if evidence.attempts[-1].is_suspicious:
            self._ask_again()
        decision = decide(evidence, self.settings.stop_on)
        if decision.outcome == "passed" and not evidence.attempts[-1].is_suspicious:
            self._forecast()

    def _inspect(self) -> None:
        """Look at header, node and signal, and choose the window's length."""
        evidence, inspect = self.evidence, preflight.inspect_recording_and_node
        how = {"canary": self.settings, "strict": self.job.preflight.strict}
        ended = self._call(inspect, folder=self.folder, **how)
        evidence.header, found = ended.facts.get("header", {}), ended.result
        if found is None:
            evidence.failed = ended
            return
        evidence.skip = found["skip"]
        evidence.warnings += found["notes"]
        if evidence.skip:
            return
        report = evidence.signals = SignalReport.model_validate(found["signals"])
        evidence.warnings += report.warnings()
        if self.task.silence_bad_periods and any(each.is_dead for each in report.bad_periods):
            evidence.warnings.append("its flat and railed periods are set to zero for the sort")
        evidence.certain = report.failure(bad_periods_stop=self.settings.bad_periods == "stop")
        self.window_s = found["window_s"]
        if self.window_s > self.settings.window_s:
            evidence.warnings.append(
                f"canary.window_s {self.settings.window_s:g} s was made {self.window_s:g} s: "
                f"a window of about one batch of {self.task.sorter.name} proves nothing"
            )

    def _sort(self, start_s: float, end_s: float, why: str) -> None:
        """Sort one window with the code of the full sort."""

        def sort(task: SortTask, folder: Path) -> Ended:
            return diagnosis.sort(task, folder=folder, supervision=self._supervision())

        with folders.work_folder(self.folder / why.replace(" ", "-")) as folder:
            window_task = self.task.model_copy(update={"window_s": (start_s, end_s)})
            *_, (_, ended) = diagnosis.tries(window_task, self.job.retry, folder, sort)
        found = ended.result or {}
        message = f"{found['n_units']} units" if found else ended.describe()
        logger.info(
            "%s: window %g to %g s (%s): %s", self.task.row.id, start_s, end_s, why, message
        )
        window = Window(
            start_s=start_s,
            end_s=end_s,
            why=why,
            ended=message,
            n_units=found.get("n_units"),
            n_spikes=found.get("n_spikes"),
            measured=_without_copy(self.task, ended),
        )
        self.evidence.attempts.append(Attempt(window, ended))
        self.evidence.warnings += ended.warnings

    def _ask_again(self) -> None:
        """Give a second opinion on too little activity: by what the full sort will learn from.

        Of a sorter that learns from certain batches, these are counted; of others, a second
        window is sorted, where a scan of the recording sees the most activity.
        """
        evidence, window_s = self.evidence, self.window_s
        learn_s = self.task.learn_s(evidence.header["sampling_frequency_hz"])
        shortest_s = min(window_s, max(LEAST_BATCHES * learn_s, window_s / 2))
        learned = evidence.learned = self._count_clips()
        scan = None if learned else self._scan(shortest_s)
        active_s: float | None = scan["start_s"] if scan else None
        start_s = learned.richest_s if learned else active_s
        if start_s is not None and start_s >= SAME_WINDOW_S:
            end_s = min(start_s + window_s, evidence.header["duration_s"])
            if end_s - start_s >= shortest_s:
                self._sort(start_s, end_s, "most active")
        if not evidence.attempts[-1].is_suspicious:
            return
        scan = self._scan(shortest_s) if learned else scan
        is_answered = learned is not None and (learned.start_s is not None or learned.is_enough)
        if learned is not None and learned.richest_s == 0.0:
            # The first batch was enough: correcting drift may have lost its spikes.
            failed = isinstance(evidence.attempts[-1].ended.failure, InsufficientActivityError)
            is_answered = not failed or self.task.sorter.params.get("nblocks") == 0
        if scan and evidence.doubt and not (is_answered and len(evidence.attempts) == 1):
            evidence.certain = activity.explain_missed(scan, self.task, evidence.header)
            evidence.suspects = self.task.suspects
        is_known = scan is not None or (learned is not None and learned.start_s is not None)
        if learned and not learned.is_enough and evidence.certain is None and is_known:
            silent = evidence.doubt == ""
            evidence.certain = learning.explain_too_few(learned, self.task, silent=silent)

    def _scan(self, shortest_s: float) -> dict[str, Any] | None:
        """Scan the recording for activity."""
        scanned = self._call(activity.scan, shortest_s=shortest_s)
        self.evidence.doubt = diagnosis.doubt_silence(scanned)
        scan: dict[str, Any] | None = scanned.result
        return scan

    def _count_clips(self) -> Learned | None:
        """Count what the full sort will learn from, where that can be told."""
        if not learning.is_countable(self.task):
            return None
        counted = self._call(learning.count_clips, folder=self.folder / "clips")
        return None if counted.result is None else Learned.model_validate(counted.result)

    def _forecast(self) -> None:
        """Forecast the full sort, and compare it with what its job may use."""
        evidence, results, job = self.evidence, self.results.parent, self.job
        measured = _describe(self.task, self.job, evidence, Decision("passed", ""), started_at="")
        history = forecast.read_history(forecast.history_path(results, self.task.digest()))
        evidence.expected = forecast.forecast_sort(measured, history)
        available = forecast.available(self.folder, job.forecast, job.watchdogs)
        costs = dict(evidence.expected)
        if job.scratch and "disk_mb" in costs:  # of which a part is moved
            costs["results_mb"] = costs["disk_mb"].model_copy(update={"low": 0.0})
            of_results = forecast.available(self.results, job.forecast, job.watchdogs)
            available["results_mb"] = of_results["disk_mb"]
        evidence.certain, tight = forecast.check_capacity(costs, available, self.task)
        evidence.warnings += tight

    def _call(self, function: Callable[..., Any], **arguments: Any) -> Ended:
        """Call a function with the task in a supervised child process."""
        return call(
            function,
            {"task": self.task, **arguments},
            folder=self.folder / function.__name__,
            supervision=self._supervision(),
        )

    def _supervision(self) -> Supervision:
        """Return how the next child process is watched."""
        limit_s = watchdogs.canary_inactivity_s(self.window_s)
        return self.job.supervision(self.task, self.results, limit_s)


def decide(evidence: Evidence, stop_on: Collection[str]) -> Decision:
    """Decide by what the steps of a canary found.

    Too little activity is biological only where the scan saw none either. What the full sort will
    learn from decides. Failures of categories that are not in ``stop_on`` are *unexpected*.
    """
    if evidence.skip:
        return Decision("skipped", evidence.skip)
    counted = evidence.counted
    if counted and counted.window.n_units == 0 and evidence.doubt == "":
        msg = f"{diagnosis.NO_UNITS}, and a scan of the recording saw no activity"
        return _stop(InsufficientActivityError(msg), stop_on)
    if evidence.certain is not None:
        return _stop(evidence.certain, stop_on)
    if counted is None:
        return _decide_failed(evidence.failed or Ended(), stop_on)
    doubtful = _decide_doubtful(evidence, counted)
    if doubtful or counted.window.n_units is None:
        return doubtful or _decide_failed(counted.ended, stop_on)
    length_s = counted.window.end_s - counted.window.start_s
    warnings = [] if counted.window.n_units else ["the sorter ended well, but found no units"]
    if len(evidence.attempts) > 1:
        warnings.append(f"the leading window failed ({evidence.attempts[0].window.ended})")
    reason = f"{count(counted.window.n_units, 'unit')} in {length_s:g} s"
    return Decision("passed", reason, warning="; ".join(warnings))


def _decide_doubtful(evidence: Evidence, counted: Attempt) -> Decision | None:
    """Decide where the data seem to blame for a window, and the recording shows otherwise."""
    ended, learned = counted.ended, evidence.learned
    if not counted.is_suspicious:
        return None
    is_only = len(evidence.attempts) == 1
    if learned and learned.is_enough and learned.richest_s != 0.0 and is_only:
        reason = f"the window holds too few spikes, but not the recording: {learned.describe()}"
        return Decision("passed", reason, warning=f"no window was sorted whole: {reason}")
    if evidence.doubt:
        missed = diagnosis.describe_missed(ended, evidence.suspects)
        reason = f"{ended.failure or missed.message}, {evidence.doubt}"
        return Decision("unexpected", reason, missed)
    return None


def _decide_failed(ended: Ended, stop_on: Collection[str]) -> Decision:
    """Stop for a classified failure, unless only the canary's own job is to blame."""
    failure, name = ended.failure, ended.error_name
    if failure is None:
        reason = f"not a known failure, so the canary proved nothing: {ended.describe()}"
        return Decision("unexpected", reason, Failure(class_name=name, message=ended.describe()))
    # Steps that were tried on the whole recording may fail on a window of it.
    of_window = isinstance(failure, PreprocessingError) and ended.facts["stage"] == "preprocess"
    is_raw = isinstance(failure, RAW_RESOURCES) and not ended.is_found_by_us
    if ended.by_job_limit or of_window or is_raw:
        known = type(failure).__name__
        class_name = known if ended.by_job_limit else name
        unclassified = Failure(
            class_name=class_name, message=ended.describe(), remedy=failure.remedy
        )
        reason = f"{failure}, which may be different in the full sort"
        return Decision(
            "unexpected", reason, unclassified, f"{known}: {sentences(failure, failure.remedy)}"
        )
    return _stop(failure, stop_on)


def _stop(failure: ClassifiedSortFailure, stop_on: Collection[str]) -> Decision:
    """Stop for a failure, unless its category is not to stop."""
    if failure.category in stop_on:
        return Decision("stopped", str(failure), Failure.of(failure))
    reason = f"{failure} ({failure.category} failures do not stop: canary.stop_on)"
    return Decision("unexpected", reason, Failure.of(failure))


def _describe_changes(path: Path, job: Job) -> Iterator[str]:
    """Say what has changed of the recording's files since its last full sort."""
    sort = sentinel.read_if_readable(Record, path)  # one of another version will be replaced
    now = job.recorded_settings.get("data")
    if sort and (changes := stamps.describe_changes(sort.settings.get("data"), now)):
        yield f"the recording has changed since its sort of {sort.finished_at}: {changes}"


def _describe(
    task: SortTask, job: Job, evidence: Evidence, decision: Decision, **of_job: Any
) -> Record:
    """Describe a canary as a record, with the further fields that its job knows."""
    counted = evidence.counted
    passed = counted.window if counted and decision.outcome in ("passed", "stopped") else None
    return diagnosis.make_record(
        task,
        job,
        evidence.header,
        evidence.attempts[-1].ended if evidence.attempts else evidence.failed,
        verdict="stop" if decision.outcome == "stopped" else "proceed",
        outcome=decision.outcome,
        reason=decision.reason,
        failure=decision.failure,
        warnings=[*evidence.warnings, *filter(None, [decision.warning])],
        windows=[attempt.window for attempt in evidence.attempts],
        signal_map=evidence.signals.rows if evidence.signals else [],
        bad_periods=evidence.signals.bad_periods if evidence.signals else [],
        n_units=passed.n_units if passed else None,
        n_spikes=passed.n_spikes if passed else None,
        forecast=evidence.expected or None,
        **of_job,
    )


def _without_copy(task: SortTask, ended: Ended) -> Measured:
    """Return what was measured, without a copy of the samples that the full sort will not make.

    A sorter that reads a binary file uses the recording's own where it has one. For a window,
    SpikeInterface writes a copy first.
    """
    is_plain = not task.preprocessing and not task.silence_bad_periods
    is_binary = ended.facts.get("header", {}).get("is_binary") and is_plain
    copied_mb = ended.facts.get("copied_mb", 0.0)
    disk_mb = ended.measured.disk_mb or 0.0
    if not is_binary or task.sorter.name not in READ_BINARY or disk_mb < copied_mb:
        return ended.measured
    return ended.measured.model_copy(update={"disk_mb": round(disk_mb - copied_mb, 1)})


def _log_verdict(record: Record) -> None:
    """Log one line: the verdict, and what to do."""
    for warning in record.warnings:
        logger.info("%s: %s", record.recording, warning)
    line = f"{record.recording}: {record.verdict} ({record.outcome}): {record.reason}"
    logger.info("%s", line if record.failure is None else sentences(line, record.failure.remedy))
