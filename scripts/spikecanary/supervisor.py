"""Run one function in a child process: its log, its measurements, its clean end.

One polling loop samples the child's process tree. Each watchdog is a small check of
one sample: it returns nothing, or the classified failure for which the tree is ended.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from spikecanary.failures import ClassifiedSortFailure
from spikecanary.sentinel import Measured

POLL_S = 0.5
#: How long a process may take to end after SIGTERM before it gets SIGKILL.
GRACE_S = 5.0
#: A signal to the whole job (scancel) may reach the child before it reaches this process.
SIGNAL_LAG_S = 0.5
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MB = 1e6


class Interrupted(SystemExit):
    """A signal told this process to end; exit status 128 + signal number."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(128 + signum)


def exit_on_signals() -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into :class:`Interrupted`, the first of them only.

    Later ones are ignored, so that they cannot cut the clean-up short.
    """

    def interrupt(signum: int, _frame: Any) -> None:
        for each in INTERRUPTS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signum)

    for each in INTERRUPTS:
        if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN:  # nohup
            signal.signal(each, interrupt)


@dataclass(frozen=True)
class Sample:
    """One look at the child's process tree."""

    elapsed_s: float
    rss_mb: float
    disk_mb: float


Watchdog = Callable[[Sample], ClassifiedSortFailure | None]


@dataclass(frozen=True)
class Ended:
    """How a supervised function ended: exactly one of the first four is set.

    ``error`` is what :func:`spikecanary.child.describe_error` returns; ``signum`` is
    the signal that killed the child; ``exit_status`` is set where it ended itself
    without a word.
    """

    result: Any = None
    error: Mapping[str, Any] | None = None
    stopped_by: ClassifiedSortFailure | None = None
    signum: int | None = None
    exit_status: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    log: str = ""
    measured: Measured = field(default_factory=lambda: Measured(wall_s=0.0))

    @property
    def error_name(self) -> str:
        """Name of the exception's type; of a child that died without one, ProcessDied."""
        if self.error is None:
            return "ProcessDied"
        return str(self.error["chain"][0]["types"][0]).rsplit(".", 1)[-1]

    def describe(self) -> str:
        """One line: how it ended."""
        if self.stopped_by is not None:
            return str(self.stopped_by)
        if self.error is not None:
            return describe_chain(self.error)
        if self.signum is not None:
            return f"the process was killed by {signal.Signals(self.signum).name}"
        if self.exit_status is not None:
            return f"the process ended with exit status {self.exit_status} without a result"
        return "ended well"


def describe_chain(error: Mapping[str, Any]) -> str:
    """Return the last line of an exception's own text that names the error."""
    outermost = error["chain"][0]
    name = str(outermost["types"][0]).rsplit(".", 1)[-1]
    lines = [line.strip() for line in str(outermost["message"]).splitlines() if line.strip()]
    if name == "SpikeSortingError":  # its text holds the sorter's own traceback
        inner = [line for line in lines if not line.startswith("Spike sorting failed.")]
        return inner[-1] if inner else name
    return f"{name}: {lines[0]}" if lines else name


def work_path(results: Path, purpose: str) -> Path:
    """Return the work folder of this process in a recording's results folder, absolute."""
    return results.absolute() / f".{purpose}-{socket.gethostname()}-{os.getpid()}"


@contextlib.contextmanager
def work_folder(path: Path) -> Iterator[Path]:
    """Make an empty folder; remove it at the end, however that comes."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def call(
    target: str, arguments: Mapping[str, Any], *, folder: Path, log: Path, threads: int = 1
) -> Ended:
    """Supervise a function in an empty folder of its own, removed at the end."""
    with work_folder(folder):
        return supervise(target, arguments, folder=folder, log=log, threads=threads)


def supervise(
    target: str,
    arguments: Mapping[str, Any],
    *,
    folder: Path,
    log: Path,
    threads: int = 1,
    watchdogs: Sequence[Watchdog] = (),
) -> Ended:
    """Run a function of this package in a child process of its own.

    Parameters
    ----------
    target : str
        ``module:function``.
    arguments : dict
        Keyword arguments; must survive JSON.
    folder : Path
        The child's work folder; its size is what ``disk_mb`` measures.
    log : Path
        The child's output is appended here as it comes.
    threads : int
        Upper limit for the child's numeric libraries.
    watchdogs : sequence of callable
        Checks of each :class:`Sample`; the first failure that one returns ends the tree.

    Returns
    -------
    Ended

    Raises
    ------
    Interrupted
        This process was told to end; the child's tree has been ended first.
    """
    call, events = folder / "call.json", folder / "events.jsonl"
    call.write_text(json.dumps({"target": target, "arguments": arguments}), encoding="utf-8")
    command = [sys.executable, "-m", "spikecanary.child", str(call), str(events)]
    started = time.time()
    log_begins = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(threads),
            start_new_session=True,
        )
        try:
            peak, stopped_by = _watch(process, folder, watchdogs, started)
        finally:
            end_tree(process)
    ended = _read_end(events, process.returncode, stopped_by, started, peak)
    return replace(ended, log=_read_log(log, log_begins))


def _read_log(log: Path, begins: int, most: int = 200_000) -> str:
    """Return the end of what a child wrote to the log."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begins, size - most))
        return file.read().decode("utf-8", errors="replace")


def _environment(threads: int) -> dict[str, str]:
    """Return the child's environment: this package importable, threads limited."""
    package_parent = str(Path(__file__).resolve().parents[1])
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys(limits, str(threads)),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }


def _watch(
    process: subprocess.Popen[bytes],
    folder: Path,
    watchdogs: Sequence[Watchdog],
    started: float,
) -> tuple[Sample, ClassifiedSortFailure | None]:
    """Sample the child's tree until it ends or a watchdog objects; return the peaks."""
    peak = Sample(0.0, 0.0, 0.0)
    while True:
        sample = _sample(process.pid, folder, started)
        peak = Sample(
            sample.elapsed_s,
            max(peak.rss_mb, sample.rss_mb),
            max(peak.disk_mb, sample.disk_mb),
        )
        for watchdog in watchdogs:
            failure = watchdog(sample)
            if failure is not None:
                return peak, failure
        try:
            process.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            continue
        if -process.returncode in INTERRUPTS:
            time.sleep(SIGNAL_LAG_S)
        return peak, None


def _sample(pid: int, folder: Path, started: float) -> Sample:
    rss = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.Error):
            rss += process.memory_info().rss
    disk = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                disk += Path(root, name).lstat().st_blocks * 512
    return Sample(time.time() - started, rss / MB, disk / MB)


def _tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants, those that still run."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a child and all its descendants: terminate, wait, kill.

    Descendants that lost their parent are found by their process group, the child's.
    """
    tree = {*_tree(process.pid), *_group(process.pid)}
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for each in tree:
            with contextlib.suppress(psutil.Error):
                each.send_signal(signum)
        if _wait_for_end(process, tree):
            break
        tree |= {*_tree(process.pid), *_group(process.pid)}


def _group(group: int) -> list[psutil.Process]:
    """Return the processes of a process group."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getpgid(process.pid) == group:
                members.append(process)
    return members


def _wait_for_end(process: subprocess.Popen[bytes], tree: set[psutil.Process]) -> bool:
    """Wait up to GRACE_S until a child and its descendants have ended; say if they have.

    A zombie has ended: nobody may reap an orphan where process 1 is no real init.
    """
    end = time.monotonic() + GRACE_S
    while time.monotonic() < end:
        if process.poll() is not None and not any(is_alive(each) for each in tree):
            return True
        time.sleep(0.05)
    return False


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _read_end(
    events: Path,
    returncode: int | None,
    stopped_by: ClassifiedSortFailure | None,
    started: float,
    peak: Sample,
) -> Ended:
    """Put together how the child ended from its events and its exit status."""
    finished = time.time()
    stages: dict[str, float] = {}
    last: tuple[str, float] = ("start", started)
    outcome: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for event in _read_events(events):
        at = event.pop("at", finished)
        if "stage" in event or "result" in event or "error" in event:
            stages[last[0]] = round(stages.get(last[0], 0.0) + at - last[1], 3)
            last = (event.get("stage", "exit"), at)
        if "result" in event or "error" in event:
            outcome = event
        elif "stage" not in event:
            facts.update(event)
    stages[last[0]] = round(stages.get(last[0], 0.0) + finished - last[1], 3)
    facts["stage"] = list(stages)[-1] if "error" not in outcome else list(stages)[-2]
    measured = Measured(
        wall_s=round(finished - started, 3),
        stages_s=stages,
        peak_rss_mb=round(peak.rss_mb, 1),
        disk_mb=round(peak.disk_mb, 1),
    )
    if stopped_by is not None:
        return Ended(stopped_by=stopped_by, facts=facts, measured=measured)
    if outcome:
        return Ended(
            result=outcome.get("result"),
            error=outcome.get("error"),
            facts=facts,
            measured=measured,
        )
    if returncode is not None and returncode < 0:
        return Ended(signum=-returncode, facts=facts, measured=measured)
    return Ended(exit_status=returncode, facts=facts, measured=measured)


def _read_events(path: Path) -> list[dict[str, Any]]:
    """Read the events, without a last line that the child could not finish."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events
