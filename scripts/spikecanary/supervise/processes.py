"""Process trees: who belongs to a child, whether they live, their clean end."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

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
    family = {*tree(child.pid), *strays(mark, group=child.pid)}
    for signum in (signal.SIGTERM, signal.SIGKILL):
        _send(family, signum)
        if _wait_for_end(family, child):
            break
        family |= {*tree(child.pid), *strays(mark, group=child.pid)}


def end_strays(mark: str) -> None:
    """End at once what a dead process left running in a work folder."""
    family = set(strays(mark))
    if family:
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
) -> bool:
    """Wait up to GRACE_S until processes have ended; say if they have.

    A zombie has ended: nobody may reap an orphan where process 1 is no real init.
    """
    end = time.monotonic() + GRACE_S
    while time.monotonic() < end:
        reaped = child is None or child.poll() is not None
        if reaped and not any(is_alive(each) for each in family):
            return True
        time.sleep(0.05)
    return False
