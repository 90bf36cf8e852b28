"""Processes: the tree of a child and its clean end; the signals that end this one."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

#: How long a process may take to end after SIGTERM before it gets SIGKILL.
GRACE_S = 5.0
#: Environment variable that marks every process of a child: its work folder. Inherited
#: by grandchildren too, also by those that leave session and process group.
MARK = "SPIKECANARY_WORK"


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants, those that still run."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def end_child(child: subprocess.Popen[bytes], mark: str) -> None:
    """End a child and all that it started: terminate, wait, kill.

    Those that lost their parent are found by the child's process group and by their mark.
    """
    interrupted: Interrupted | None = None
    for signum in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        try:
            if not (family := {*tree(child.pid), *strays(mark, group=child.pid)}):
                break
            _send(family, signum)
            _wait_for_end(family, child)
        except Interrupted as err:  # no second one comes
            interrupted = err
    if interrupted is not None:
        raise interrupted


def end_strays(mark: str) -> None:
    """End at once what a dead process left running in a work folder."""
    family = set(strays(mark))
    _send(family, signal.SIGKILL)
    _wait_for_end(family)


def strays(mark: str, group: int | None = None) -> list[psutil.Process]:
    """Return the processes that work in a folder (or below), or are of a process group."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            of_group = group is not None and os.getpgid(process.pid) == group
            if of_group or Path(process.environ().get(MARK, "/")).is_relative_to(mark):
                found.append(process)
    return found


def _send(family: set[psutil.Process], signum: signal.Signals) -> None:
    for each in family:
        with contextlib.suppress(psutil.Error):
            each.send_signal(signum)


def _wait_for_end(
    family: set[psutil.Process], child: subprocess.Popen[bytes] | None = None
) -> None:
    """Wait up to GRACE_S until processes have ended.

    A zombie has ended: nobody may reap an orphan where process 1 is no real init.
    """
    end = time.monotonic() + GRACE_S
    while time.monotonic() < end:
        reaped = child is None or child.poll() is not None
        if reaped and not any(is_alive(each) for each in family):
            return
        time.sleep(0.05)


# Signals to this process, and the end of the snakemake that started it.

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(SystemExit):
    """A signal told this process to end; exit status 128 + signal number."""

    def __init__(self, signum: int, reason: str | None = None) -> None:
        self.signum = signum
        self.reason = reason or f"interrupted by {signal.Signals(signum).name}"
        super().__init__(128 + signum)


#: The snakemake that started this process; None if there is none.
_starter: psutil.Process | None = None


def import_first(folder: Path) -> None:
    """Have the processes that this one starts import from a folder before any other.

    An environment may have the package of another folder, of another version.
    """
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *inherited])


def exit_on_signals() -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into :class:`Interrupted`, the first of them only.

    Later ones are ignored, so that they cannot cut the clean-up short. From now on a
    supervised child is ended too when the snakemake that started this process has been
    killed.
    """
    global _starter  # noqa: PLW0603 - of this process, as signal handlers are

    def interrupt(signum: int, _frame: Any) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signum)

    def interrupt_again(ignored: Any) -> None:
        """Send a signal again that came inside a callback of C code, where Python ignores it."""
        if isinstance(ended := ignored.exc_value, Interrupted):
            signal.signal(ended.signum, interrupt)
            threading.Timer(0.05, os.kill, [os.getpid(), ended.signum]).start()
        else:
            sys.__unraisablehook__(ignored)

    sys.unraisablehook = interrupt_again
    for each in SIGNALS:
        # What its snakemake ignores (nohup, a script's &) is ignored here.
        if each == signal.SIGTERM or signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, interrupt)
    _starter = _find_snakemake()


def _find_snakemake() -> psutil.Process | None:
    """Return the nearest ancestor that is a snakemake."""
    with contextlib.suppress(psutil.Error):
        for ancestor in psutil.Process().parents():
            # Or what wraps it: .snakemake-wrapped.
            names = [Path(word).name.lstrip(".") for word in ancestor.cmdline()[:3]]
            if any(name.startswith("snakemake") for name in names):
                return ancestor
    return None


def check_starter() -> None:
    """End this process where its snakemake was killed, as a hang-up would."""
    if _starter is not None and not is_alive(_starter):
        raise Interrupted(signal.SIGHUP, "the snakemake that had started it was killed")
