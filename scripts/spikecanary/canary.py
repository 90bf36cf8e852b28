"""The canary: sort a short window of a recording, write the verdict to the sentinel."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spikecanary import checkup, diagnosis, forecast, sentinel, signals, windows
from spikecanary.config import CanarySettings
from spikecanary.failures import (
    ClassifiedSortFailure,
    DiskExhaustionError,
    HostMemoryWatchdogError,
    InsufficientActivityError,
)
from spikecanary.preflight import Check
from spikecanary.sentinel import Failure, Interval, Measured, Outcome, Record, SorterInfo, Window
from spikecanary.signals import SignalReport
from spikecanary.sorter import LEARN_S, LEAST_BATCHES, SortTask
from spikecanary.supervise import folders, watchdogs
from spikecanary.supervise.interrupts import Interrupted
from spikecanary.supervise.job import Job
from spikecanary.supervise.run import Ended, Supervision, call
from spikecanary.windows import Attempt

logger = logging.getLogger(__name__)

#: Raised by the sorter itself these say little of the full sort (another process may have
#: used the memory or the disk), so they do not stop; what a watchdog found does.
RAW_RESOURCES = (HostMemoryWatchdogError, DiskExhaustionError)
#: A second window that begins nearer than this to the first is the same, in s.
SAME_WINDOW_S = 0.5


@dataclass(frozen=True)
class Finding:
    """What a canary found, before it becomes a sentinel."""

    outcome: Outcome
    reason: str
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    windows: tuple[Window, ...] = ()
    header: Mapping[str, Any] = field(default_factory=dict)
    sorter_version: str | None = None
    n_units: int | None = None
    n_spikes: int | None = None
    measured: Measured | None = None
    forecast: Mapping[str, Interval] | None = None


#: Of a canary whose job was killed: the last attempt does not sort.
KILLED = Finding(
    "unexpected",
    "the canary's job was killed, so the canary proved nothing (its log is the one before)",
)


def run(
    task: SortTask,
    settings: CanarySettings,
    *,
    sentinel_path: Path,
    journal_path: Path,
    job: Job,
    attempt: int = 0,
    was_killed: bool = False,
    recorded_settings: Mapping[str, Any] | None = None,
) -> Record:
    """Test whether a recording can be sorted, and write sentinel and journal.

    Never fails because the data or the machine is bad: whatever happens becomes a
    verdict. What is not classified becomes ``proceed``, because a smoke test is not a
    hard gate.

    Parameters
    ----------
    task : SortTask
        The full sort; the canary runs a clone of it on a short window.
    settings : CanarySettings
        Window, limits, and the categories that stop a recording.
    sentinel_path, journal_path : Path
        Where to write.
    job : Job
        Where to log, and what the job may use.
    attempt : int
        Number of environment and resource stops of this recording so far.
    was_killed : bool
        Nothing is sorted: this job was killed before. Its wave must not wait for it any longer.
    recorded_settings : dict, optional
        What the sentinel notes as the settings it was made with.

    Returns
    -------
    Record
        The sentinel, as written.

    Raises
    ------
    Interrupted
        This process was told to end; nothing is left behind but a line in the journal.
    OSError
        The sentinel cannot be written.
    """
    started_at = sentinel.now()
    folders.sweep(sentinel_path.parent)
    folder = folders.work_path(sentinel_path.parent, "canary")
    try:
        with folders.work_folder(folder):
            canary = _Canary(task, settings, job, folder)
            finding = KILLED if was_killed else canary.examine()
    except Interrupted as err:
        sentinel.append_interrupted(journal_path, "canary", task.row.id, started_at, err)
        raise
    except Exception as err:
        logger.exception("the canary itself failed")
        finding = Finding(
            "unexpected",
            f"the canary itself failed: {type(err).__name__}: {err}",
            failure=Failure(class_name=type(err).__name__, message=str(err)),
        )
    record = Record(
        recording=task.row.id,
        verdict="stop" if finding.outcome == "stopped" else "proceed",
        outcome=finding.outcome,
        reason=finding.reason,
        failure=finding.failure,
        warnings=list(finding.warnings),
        windows=list(finding.windows),
        sorter=SorterInfo(
            name=task.sorter.name,
            version=finding.sorter_version,
            params_digest=task.digest(),
        ),
        n_units=finding.n_units,
        n_spikes=finding.n_spikes,
        duration_s=finding.header.get("duration_s"),
        n_channels=finding.header.get("n_channels"),
        sampling_frequency_hz=finding.header.get("sampling_frequency_hz"),
        measured=finding.measured,
        forecast=dict(finding.forecast) if finding.forecast else None,
        attempt=attempt,
        settings=dict(recorded_settings or {}),
        started_at=started_at,
        finished_at=sentinel.now(),
        versions=sentinel.package_versions(),
        log=str(job.log),
    )
    sentinel.write_record(sentinel_path, record)
    sentinel.append_journal(journal_path, "canary", record)
    _log_verdict(record)
    return record


class _Canary:
    """The steps of one canary; the first that decides ends it."""

    def __init__(
        self,
        task: SortTask,
        settings: CanarySettings,
        job: Job,
        folder: Path,
    ) -> None:
        self.task = task
        self.settings = settings
        self.job = job
        self.folder = folder
        self.warnings: list[str] = []

    def examine(self) -> Finding:
        """Skip, look at header, node and signal, then sort."""
        if not self.settings.window_s:
            return Finding("skipped", "no canary: canary.window_s is 0")
        looked = self._call(
            checkup.look,
            {
                "task": self.task.model_dump(mode="json"),
                "folder": str(self.folder),
                "limits": self.job.preflight.model_dump(mode="json"),
                "settings": self.settings.model_dump(mode="json"),
            },
        )
        if looked.result is None:
            return self._judge(diagnosis.read_ending(looked), looked)
        header = looked.result["header"]
        if looked.result["skip"]:
            return Finding("skipped", looked.result["skip"], header=header)
        finding = replace(self._examine_signal(looked.result), header=header)
        return self._look_ahead(finding) if finding.outcome == "passed" else finding

    def _examine_signal(self, looked: Mapping[str, Any]) -> Finding:
        """Judge preflight and signal check; sort if they let it."""
        checks = [Check(**check) for check in looked["preflight"]]
        warnings = [check.line() for check in checks if check.level == "warn"]
        failed = [check for check in checks if check.level == "fail"]
        if failed:
            finding = self._stop(failed[0].error())
            others = [check.line() for check in failed[1:]]
            return replace(finding, warnings=(*others, *warnings))
        signal = SignalReport(**looked["signals"])
        warnings += signal.warnings(self.settings.signals)
        if looked["window_s"] > self.settings.window_s:
            warnings.append(
                f"canary.window_s {self.settings.window_s:g} s was made {looked['window_s']:g} s: "
                f"a window of about one batch of {self.task.sorter.name} proves nothing"
            )
        dead = signal.failure()
        if dead is not None:
            return replace(self._stop(dead), warnings=tuple(warnings))
        finding = self._sort(looked["header"], looked["window_s"])
        return replace(finding, warnings=(*warnings, *self.warnings, *finding.warnings))

    def _sort(self, header: Mapping[str, Any], window_s: float) -> Finding:
        """Sort the leading window, and where the data seem to blame another one."""
        leading = self._try(0.0, window_s, "leading")
        if not leading.suspicious or not self.settings.second_opinion:
            return self._conclude(leading)
        batch_s = self.task.batch_s(header["sampling_frequency_hz"])
        learn_s = batch_s or LEARN_S
        scan = self._call(
            signals.scan,
            {
                "row": self.task.row.model_dump(mode="json"),
                "batch_s": learn_s,
                "shortest_s": min(window_s, max(LEAST_BATCHES * learn_s, window_s / 2)),
            },
        )
        if scan.result is None:
            return self._conclude(leading)
        silent = scan.result["silent"]
        start_s = scan.result["start_s"]
        if start_s < SAME_WINDOW_S:
            return self._weigh([leading], silent=silent)
        end_s = min(start_s + window_s, header["duration_s"])
        return self._weigh([leading, self._try(start_s, end_s, "most active")], silent=silent)

    def _look_ahead(self, finding: Finding) -> Finding:
        """Forecast the full sort, and stop what cannot fit into what its job may have."""
        settings = self.job.forecast
        results = self.folder.parent.parent
        history = forecast.read_history(forecast.history_path(results, self.task.digest()))
        tried = list(finding.windows)
        doubts: list[str] = []
        shorter = windows.shorter(tried[-1], self.task, finding.header)
        if settings.second_window and shorter is not None and not history:
            second = self._try(*shorter, "growth")
            tried.append(second.window)
            doubts += second.ended.warnings
        rate = forecast.data_mb_per_s(
            finding.header["n_channels"], finding.header["sampling_frequency_hz"]
        )
        by = forecast.models(tried, rate, history)
        expected = forecast.predict(by, finding.header["duration_s"], history)
        room = forecast.room(self.folder, settings, self.job.watchdogs)
        failure, tight = forecast.check(expected, room, self.task)
        finding = replace(
            finding,
            windows=tuple(tried),
            forecast=expected,
            warnings=(*finding.warnings, *doubts, *tight),
        )
        if failure is None:
            return finding
        stopped = self._stop(failure)
        return replace(
            finding, outcome=stopped.outcome, reason=stopped.reason, failure=stopped.failure
        )

    def _weigh(self, attempts: list[Attempt], *, silent: bool) -> Finding:
        """Conclude from the windows: the last decides, but silence must be seen in the data.

        A sort that ends well without units is believed to be silence only where the
        activity scan sees nothing either.
        """
        last = attempts[-1]
        if last.suspicious and any(attempt.n_units == 0 for attempt in attempts):
            if silent:
                msg = "the sorter found no units, and a scan of the recording no activity"
                finding = self._stop(InsufficientActivityError(msg))
            else:
                counted = next(attempt for attempt in attempts if attempt.n_units == 0)
                finding = self._passed(counted)
        else:
            finding = self._conclude(last)
        if len(attempts) > 1 and finding.outcome == "passed":
            said = f"the leading window failed ({attempts[0].window.ended})"
            finding = replace(finding, warnings=(*finding.warnings, said))
        tried = tuple(attempt.window for attempt in attempts)
        measured = last.ended.measured
        version = last.ended.facts.get("sorter_version")
        return replace(finding, windows=tried, measured=measured, sorter_version=version)

    def _conclude(self, attempt: Attempt) -> Finding:
        """Turn one window into a finding."""
        if attempt.n_units is None:
            finding = self._judge(attempt.failure, attempt.ended)
        else:
            finding = self._passed(attempt)
        return replace(
            finding,
            windows=(attempt.window,),
            measured=attempt.ended.measured,
            sorter_version=attempt.ended.facts.get("sorter_version"),
        )

    def _passed(self, attempt: Attempt) -> Finding:
        length_s = attempt.window.end_s - attempt.window.start_s
        reason = f"{attempt.n_units} units in {length_s:g} s"
        warnings = () if attempt.n_units else ("the sorter ended well, but found no units",)
        return Finding(
            "passed",
            reason,
            warnings=warnings,
            n_units=attempt.n_units,
            n_spikes=attempt.window.n_spikes,
        )

    def _try(self, start_s: float, end_s: float, why: str) -> Attempt:
        """Sort one window with the code of the full sort."""
        attempt = windows.sort_window(
            self.task,
            (start_s, end_s),
            why,
            self.settings.signals,
            folder=self.folder / why.replace(" ", "-"),
            supervision=self._supervision(),
        )
        self.warnings += attempt.ended.warnings
        return attempt

    def _call(self, target: Callable[..., Any], arguments: Mapping[str, Any]) -> Ended:
        """Run a step in a child process."""
        folder = self.folder / target.__name__
        return call(target, arguments, folder=folder, supervision=self._supervision())

    def _supervision(self) -> Supervision:
        """Return how the next child process is watched."""
        limit_s = watchdogs.canary_inactivity_s(self.settings.window_s)
        return self.job.supervision(self.task, self.folder.parent, limit_s)

    def _judge(self, failure: ClassifiedSortFailure | None, ended: Ended) -> Finding:
        """Turn a step that failed into a finding: stopped if classified, else unexpected."""
        if failure is None:
            return Finding(
                "unexpected",
                f"not a known failure, so the canary proved nothing: {ended.describe()}",
                failure=Failure(class_name=ended.error_name, message=ended.describe()),
                measured=ended.measured,
            )
        own_limit = ended.stopped_by is not None and ended.by_job_limit
        raw = ended.stopped_by is None and isinstance(failure, RAW_RESOURCES)
        if own_limit or raw:
            name = type(failure).__name__ if own_limit else ended.error_name
            note = f"{type(failure).__name__}: {failure}. {failure.remedy}"
            return Finding(
                "unexpected",
                f"{failure}, which may be different in the full sort",
                failure=Failure(class_name=name, message=ended.describe()),
                warnings=(note,),
                measured=ended.measured,
            )
        return replace(self._stop(failure), measured=ended.measured)

    def _stop(self, failure: ClassifiedSortFailure) -> Finding:
        """Stop for a failure, unless its category is not to stop."""
        if failure.category not in self.settings.stop_on:
            reason = f"{failure} ({failure.category} failures do not stop: canary.stop_on)"
            return Finding("unexpected", reason, failure=Failure.of(failure))
        return Finding("stopped", str(failure), failure=Failure.of(failure))


def _log_verdict(record: Record) -> None:
    """Log one line: the verdict, and what to do."""
    line = f"{record.recording}: {record.verdict} ({record.outcome}): {record.reason}"
    for warning in record.warnings:
        logger.info("%s: %s", record.recording, warning)
    if record.outcome == "stopped" and record.failure is not None:
        logger.error("%s. %s", line, record.failure.remedy)
    elif record.outcome == "unexpected":
        logger.warning("%s. See %s", line, record.log)
    else:
        logger.info("%s", line)
