"""Run one function in a child process: its log, its measurements, its clean end.

The child writes to the job's log itself. One polling loop samples its process tree and asks the
watchdogs. The first that names a failure ends the tree.
"""

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from pydantic_core import to_jsonable_python

from spikecanary.failures import BiologicalFailure, ClassifiedSortFailure, DependencyError
from spikecanary.failures.classify import by_text, classify
from spikecanary.sentinel import Measured
from spikecanary.supervise import containers, gpus, processes
from spikecanary.supervise.folders import show_life, work_folder
from spikecanary.supervise.log import ChildLog
from spikecanary.supervise.sample import Sampler
from spikecanary.supervise.watchdogs import Sample, Watchdog, is_of_job
from spikecanary.texts import quote

logger = logging.getLogger(__name__)

POLL_S = 0.5
#: Looking takes at most this share of a core: on a busy node it is done less often.
LOOK_SHARE = 0.01
#: The log gets a line of progress at least so often, in s.
PROGRESS_S = 30.0
#: A signal to the whole job (scancel) may reach the child before it reaches this process.
SIGNAL_LAG_S = 0.5
#: What events hold, where they hold it.
EVENT_TYPES = {"at": float, "stage": str, "error": dict, "compile_s": float}
MAX_LOG_BYTES = 100_000_000
#: So often a thread of OpenMP looks whether the others have come before it sleeps. By default it
#: keeps its core busy for some ms: beside one busy process on two cores, Kilosort 4 took 352 s
#: instead of 11 s by that, and with this 17 s (11 s where nothing else runs).
SPINS = "1000"
#: The line of a traceback that names an exception; further lines of its message may follow.
NAMES_ERROR = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception)\b")


@dataclass(frozen=True)
class Ended:
    """How a supervised function ended."""

    # One of these four is set, where it returned something.
    result: Any = None
    error: Mapping[str, Any] | None = None  # by :func:`spikecanary.supervise.child.describe_error`
    stopped_by: ClassifiedSortFailure | None = None
    died_of: int | None = None  # exit status without a word; negative: the signal that killed it
    failure: ClassifiedSortFailure | None = None  # what it is called, if it is known
    by_job_limit: bool = False  # it was stopped by a limit of its job, memory or time
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    log: str = ""
    measured: Measured = field(default_factory=lambda: Measured(wall_s=0.0))

    @property
    def error_name(self) -> str:
        """Name of the exception's type; of a child that died without one, ProcessDied."""
        return "ProcessDied" if self.error is None else str(self.error["name"])

    @property
    def is_found_by_us(self) -> bool:
        """Whether a watchdog or a check found the failure, and not a text that tells it."""
        raised = (self.error or {}).get("failure") or {}
        return self.stopped_by is not None or raised.get("class") == type(self.failure).__name__

    def describe(self) -> str:
        """One line: how it ended."""
        if self.stopped_by is not None:
            return str(self.stopped_by)
        if self.error is not None:
            # Of a group of exceptions, lines stand between rules.
            lines = [line.strip(" |") for line in self.error["message"].splitlines()]
            lines = [line for line in lines if line.strip("+- ")]
            if self.error_name == "SpikeSortingError":  # it holds the sorter's own traceback
                inner = [line for line in lines if not line.startswith("Spike sorting failed.")]
                named = [line for line in inner if NAMES_ERROR.match(line)]
                return str([self.error_name, *inner[-1:], *named][-1])
            return f"{self.error_name}: {lines[0]}" if lines else self.error_name
        if self.died_of is None:
            return "ended well"
        if self.died_of < 0:
            name = signal.Signals(-self.died_of).name
            kernel = ", as the kernel does where memory runs out" if name == "SIGKILL" else ""
            return f"the process was killed by {name}{kernel}"
        return f"the process ended with exit status {self.died_of} without a result"


@dataclass(frozen=True)
class Supervision:
    """What one job's children have in common."""

    log: Path  # the rule's, to which they append their output
    threads: int = 1  # upper limit for their numeric libraries
    watchdogs: Sequence[Watchdog] = ()
    folders: Sequence[Path] = ()  # whose free space is watched, besides the work folder
    with_containers: bool = False  # whether a child has containers work for it
    signatures: Path | None = None  # the laboratory's own table, which tells failures first
    expected_s: float | None = None  # what the forecast says that it takes


def call(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    folder: Path,
    supervision: Supervision,
) -> Ended:
    """Supervise a function in an empty folder of its own, removed at the end."""
    with work_folder(folder):
        return supervise(function, arguments, folder=folder, supervision=supervision)


def supervise(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    folder: Path,
    supervision: Supervision,
) -> Ended:
    """Run a function in a child process of its own, and classify its failure.

    Its keyword arguments go there as JSON, and become again what its annotations say. If it names
    it, the function is given ``tell`` (:func:`spikecanary.supervise.child.append`), for stages as
    they begin and for facts. The size of the work folder is what ``disk_mb`` measures. Where a
    signal ends this process, Interrupted is raised once the child's tree has been ended.
    """
    target = f"{function.__module__}:{function.__qualname__}"
    request, events_path = folder / "call.json", folder / "events.jsonl"
    asked = to_jsonable_python({"target": target, "arguments": arguments})
    request.write_text(json.dumps(asked), encoding="utf-8")
    events_path.touch()
    started = time.monotonic()
    child_log = ChildLog(supervision.log, MAX_LOG_BYTES)
    # Opened before the child runs: its events are read even if the folder is removed.
    with events_path.open(encoding="utf-8", errors="replace") as events:
        with contextlib.ExitStack() as at_end:
            output = at_end.enter_context(supervision.log.open("ab"))
            lifeline, our_end = os.pipe()  # the child ends when this process does, however it does
            at_end.callback(os.close, lifeline)
            at_end.callback(os.close, our_end)
            command = [sys.executable, "-P", "-m", "spikecanary.supervise.child"]
            process = subprocess.Popen(
                [*command, str(request), str(events_path), str(lifeline)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(supervision.threads, folder),
                start_new_session=True,
                pass_fds=[lifeline],
            )
            if supervision.with_containers:
                at_end.callback(containers.remove, folder)
            at_end.callback(processes.end_child, process, str(folder))
            watch = _Watch(process, folder, child_log, events, supervision)
            stopped_by = watch.until_end()
        events.seek(0)
        ended = _read_end(events, watch, stopped_by, started)
    return replace(ended, failure=_classify(ended, supervision.signatures))


def _environment(threads: int, folder: Path) -> dict[str, str]:
    """Return the child's environment: this package importable, threads limited, marked."""
    package_parent = str(Path(__file__).resolve().parents[2])
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    gpu = os.environ.get(gpus.VISIBLE)
    # SpikeInterface's Singularity hands on no variable of ours, but those that are meant for it.
    inside = [f"{tool}ENV_{gpus.VISIBLE}" for tool in ("SINGULARITY", "APPTAINER")]
    return {
        "GOMP_SPINCOUNT": SPINS,
        **os.environ,
        **dict.fromkeys(limits, str(threads)),
        **(dict.fromkeys(inside, gpu) if gpu is not None else {}),
        processes.MARK: str(folder),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }


@dataclass
class _Watch:
    """The polling loop over one child."""

    process: subprocess.Popen[bytes]
    folder: Path
    log: ChildLog
    events: TextIO
    supervision: Supervision
    peak_rss_mb: float = 0.0
    peak_disk_mb: float = 0.0
    peak_vram_mb: float | None = None
    warned: dict[Watchdog, str] = field(default_factory=dict)
    by_job_limit: bool = False
    stage: str = "start"
    shown: float = field(default_factory=time.monotonic)

    def until_end(self) -> ClassifiedSortFailure | None:
        """Watch until the child ends, or a watchdog names a failure."""
        sampler = Sampler(
            self.process.pid,
            self.folder,
            self.supervision.folders,
            with_containers=self.supervision.with_containers,
        )
        while True:
            looked = time.process_time()
            failure = self._look(sampler)
            if failure is not None or self.process.returncode is not None:
                break
            pause_s = max(POLL_S, (time.process_time() - looked) / LOOK_SHARE)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(pause_s)
            processes.check_starter()
        if failure is None and -self.process.returncode in processes.SIGNALS:
            time.sleep(SIGNAL_LAG_S)
        return failure

    def _look(self, sampler: Sampler) -> ClassifiedSortFailure | None:
        """Take a sample, show progress, ask the watchdogs."""
        self.log.shorten()
        is_last = self.process.returncode is not None
        sample = sampler.take(self.log.output_bytes(), is_last=is_last)
        self.peak_rss_mb = max(self.peak_rss_mb, sample.rss_mb)
        self.peak_disk_mb = max(self.peak_disk_mb, sample.disk_mb)
        if sample.gpus:
            vram_mb = sum(gpu.tree_mb for gpu in sample.gpus)
            self.peak_vram_mb = max(self.peak_vram_mb or 0.0, vram_mb)
        if time.monotonic() - self.shown >= PROGRESS_S:
            self._show_progress(sample)
        for watchdog in self.supervision.watchdogs:
            found = watchdog(sample)
            if isinstance(found, ClassifiedSortFailure):
                self._log(logging.ERROR, f"ended by a watchdog: {found}")
                self.by_job_limit = is_of_job(watchdog)
                return found
            if found is not None and watchdog not in self.warned:
                self.warned[watchdog] = found
                self._log(logging.WARNING, found)
        return None

    def _show_progress(self, sample: Sample) -> None:
        """Log a line of progress, and touch the work folders as a sign of life."""
        self.shown = time.monotonic()
        for event in _read_events(self.events):
            self.stage = event.get("stage", self.stage)
        expected_s = self.supervision.expected_s
        expected = "" if expected_s is None else f" of about {expected_s:.0f} s"
        self._log(
            logging.INFO,
            f"stage {self.stage}, {sample.elapsed_s:.0f} s{expected}, "
            f"{sample.rss_mb:.0f} MB of memory, {sample.disk_mb:.0f} MB of disk; "
            f"last line: {self.log.last_line()}",
        )
        show_life(self.folder, self.supervision.folders)

    def _log(self, level: int, message: str) -> None:
        """Log a line of our own, which is no sign of the child's life."""
        before = self.log.size()
        logger.log(level, "%s", message)
        self.log.count_own(self.log.size() - before)


def _read_end(
    events: Iterable[str], watch: _Watch, stopped_by: ClassifiedSortFailure | None, started: float
) -> Ended:
    """Put together how the child ended from its events and its exit status."""
    finished = time.monotonic()
    stages: dict[str, float] = {}
    stage, since = "start", started
    outcome: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for event in [*_read_events(events), {"stage": "", "at": finished}]:
        at = event.pop("at", finished)
        is_end = "result" in event or "error" in event
        if "stage" in event or is_end:
            stages[stage] = round(stages.get(stage, 0.0) + at - since, 3)
            stage, since = event.get("stage", "exit"), at
        else:
            facts.update(event)
        outcome = event if is_end else outcome
    facts["stage"] = list(stages)[-2 if "error" in outcome else -1]
    if "compile_s" in facts and "sort" in stages:  # part of the sort, however long that is
        stages["compile"] = round(facts.pop("compile_s"), 3)
        stages["sort"] = round(stages["sort"] - stages["compile"], 3)
    is_stopped = stopped_by is not None and "result" not in outcome
    return Ended(
        result=outcome.get("result"),
        error=None if is_stopped else outcome.get("error"),
        stopped_by=stopped_by if is_stopped else None,
        died_of=None if is_stopped or outcome else watch.process.returncode,
        by_job_limit=is_stopped and watch.by_job_limit,
        facts=facts,
        warnings=tuple(watch.warned.values()),
        log=watch.log.tail(),
        measured=Measured(
            wall_s=round(finished - started, 3),
            stages_s=stages,
            peak_rss_mb=round(watch.peak_rss_mb, 1),
            peak_vram_mb=watch.peak_vram_mb,
            disk_mb=round(watch.peak_disk_mb, 1),
        ),
    )


def _classify(ended: Ended, signatures: Path | None) -> ClassifiedSortFailure | None:
    """Classify a failure by the watchdog, the exception, the log and how the child ended."""
    log = f"{ended.facts.get('sorter_log', '')}\n{ended.log}"
    if ended.stopped_by is not None or ended.result is not None:
        return ended.stopped_by
    if ended.error is not None:
        return classify(ended.error, log, signatures)
    if ended.died_of == -signal.SIGILL:
        return DependencyError("a program uses instructions that this machine's CPU does not have")
    failure = by_text("", log, signatures)
    # A process that was killed proves nothing of the data, whatever it had printed before.
    return None if isinstance(failure, BiologicalFailure) else failure


def _read_events(events: Iterable[str]) -> Iterable[dict[str, Any]]:
    """Read events, without lines that the child could not finish, or that others wrote."""
    for line in events:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict) and all(
            isinstance(event[name], type_) for name, type_ in EVENT_TYPES.items() if name in event
        ):
            yield event
        elif line.strip():
            logger.warning("not an event of the sort: %s", quote(line))
