"""The canary: sort a short window of a recording, write the verdict to the sentinel."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spikecanary import logs, sentinel, supervisor
from spikecanary.classify import classify
from spikecanary.config import CanarySettings
from spikecanary.failures import ClassifiedSortFailure
from spikecanary.sentinel import Failure, Measured, Outcome, Record, SorterInfo, Window
from spikecanary.sorters import SortTask
from spikecanary.supervisor import Ended

logger = logging.getLogger(__name__)


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
    measured: Measured | None = None


def run(
    task: SortTask,
    settings: CanarySettings,
    *,
    sentinel_path: Path,
    journal_path: Path,
    log: Path,
    attempt: int = 0,
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
    sentinel_path, journal_path, log : Path
        Where to write.
    attempt : int
        Number of environment and resource stops of this recording so far.
    recorded_settings : dict, optional
        What the sentinel notes as the settings it was made with.

    Returns
    -------
    Record
        The sentinel, as written.

    Raises
    ------
    Interrupted
        This process was told to end; nothing is written and nothing left behind.
    OSError
        The sentinel cannot be written.
    """
    started_at = sentinel.now()
    folder = supervisor.work_path(sentinel_path.parent, "canary")
    try:
        with supervisor.work_folder(folder):
            finding = examine(task, settings, folder=folder, log=log)
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
        duration_s=finding.header.get("duration_s"),
        n_channels=finding.header.get("n_channels"),
        measured=finding.measured,
        attempt=attempt,
        settings=dict(recorded_settings or {}),
        started_at=started_at,
        finished_at=sentinel.now(),
        versions=sentinel.package_versions(),
        log=str(log),
    )
    sentinel.write_record(sentinel_path, record)
    sentinel.append_journal(journal_path, "canary", record)
    _log_verdict(record)
    return record


def examine(task: SortTask, settings: CanarySettings, *, folder: Path, log: Path) -> Finding:
    """Go through the canary's steps; the first that decides ends it."""
    if not settings.window_s:
        return Finding("skipped", "no canary: canary.window_s is 0")
    opened = _supervise(
        "spikecanary.recordings:inspect",
        {"row": task.row.model_dump(mode="json")},
        folder=folder / "inspect",
        log=log,
        threads=1,
    )
    if opened.result is None:
        return judge_failure(opened, settings, log)
    header = opened.result
    duration_s = header["duration_s"]
    for needed_s, name in (
        (settings.window_s, "the canary's window"),
        (settings.min_recording_s, "canary.min_recording_s"),
    ):
        if duration_s < needed_s:
            reason = f"no canary: {duration_s:.2f} s are less than {name}, {needed_s:g} s"
            return Finding("skipped", reason, header=header)
    return _sort_window(task, settings, header, 0.0, "leading", folder=folder, log=log)


def _sort_window(
    task: SortTask,
    settings: CanarySettings,
    header: Mapping[str, Any],
    start_s: float,
    why: str,
    *,
    folder: Path,
    log: Path,
) -> Finding:
    """Sort one window with the code of the full sort, and judge how it ended."""
    end_s = start_s + settings.window_s
    ended = _supervise(
        "spikecanary.sorters:sort",
        {
            "task": task.for_canary(start_s, end_s).model_dump(mode="json"),
            "folder": str(folder / why),
        },
        folder=folder / why,
        log=log,
        threads=task.n_jobs,
    )
    if ended.result is None:
        finding = judge_failure(ended, settings, log)
    else:
        n_units = ended.result["n_units"]
        reason = f"{n_units} units in {settings.window_s:g} s"
        warnings = () if n_units else ("the sorter ended well, but found no units in the window",)
        finding = Finding("passed", reason, warnings=warnings, n_units=n_units)
    window = Window(start_s=start_s, end_s=end_s, why=why, ended=ended.describe())
    return replace(
        finding,
        windows=(window,),
        header=header,
        sorter_version=ended.facts.get("sorter_version"),
        measured=ended.measured,
    )


def _supervise(target: str, arguments: Mapping[str, Any], **where: Any) -> Ended:
    """Run a step in a child process, in a folder of its own."""
    with supervisor.work_folder(where["folder"]):
        return supervisor.supervise(target, arguments, **where)


def find_failure(ended: Ended, log: Path) -> ClassifiedSortFailure | None:
    """Return the classified failure of a supervised function that did not end well."""
    if ended.stopped_by is not None:
        return ended.stopped_by
    if ended.error is None:
        return None
    return classify(ended.error, logs.tail(log))


def judge_failure(ended: Ended, settings: CanarySettings, log: Path) -> Finding:
    """Turn a step that failed into a finding: stopped if classified, else unexpected."""
    failure = find_failure(ended, log)
    if failure is None:
        described = ended.describe()
        return Finding(
            "unexpected",
            f"not a known failure, so the canary proved nothing: {described}",
            failure=Failure(class_name=_unclassified_name(ended), message=described),
            measured=ended.measured,
        )
    reason = str(failure)
    if failure.category not in settings.stop_on:
        return Finding(
            "unexpected",
            f"{reason} ({failure.category} failures do not stop: canary.stop_on)",
            failure=Failure.of(failure),
            measured=ended.measured,
        )
    return Finding("stopped", reason, failure=Failure.of(failure), measured=ended.measured)


def _unclassified_name(ended: Ended) -> str:
    """Name of the exception's type, or of how the process ended."""
    if ended.error is not None:
        return str(ended.error["chain"][0]["types"][0]).rsplit(".", 1)[-1]
    return "ProcessDied"


def _log_verdict(record: Record) -> None:
    """Log one line: the verdict, and what to do."""
    line = f"{record.recording}: {record.verdict} ({record.outcome}): {record.reason}"
    if record.outcome == "stopped" and record.failure is not None:
        logger.error("%s. %s", line, record.failure.remedy)
    elif record.outcome == "unexpected":
        logger.warning("%s. See %s", line, record.log)
    else:
        logger.info("%s", line)
