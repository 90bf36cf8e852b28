"""Locks between runs, as files that network drives understand (filelock's soft lock).

A lock names its holder: process and host. The lock of a process of this host that has
ended is taken over; of another host nobody can tell, so a person has to remove the file.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import SoftFileLock, Timeout

from spikecanary.failures import ConcurrentSortError

#: How long a lock of a dead process may take to be taken over, in s.
TAKE_OVER_S = 1.0
#: A lock is written within milliseconds; one that stays empty longer is of a dead process.
EMPTY_S = 10.0


def this_process() -> str:
    """Return a name for this process: host and number."""
    return f"{socket.gethostname()}-{os.getpid()}"


def acquire(path: Path, what: str, wait_s: float = TAKE_OVER_S) -> SoftFileLock:
    """Take a lock; it is released by its ``release()``, or when this process ends.

    Parameters
    ----------
    path : Path
        The lock file; its folder is made.
    what : str
        What the holder does, for the message.
    wait_s : float
        How long to wait for another holder, in s.

    Raises
    ------
    ConcurrentSortError
        Another process that may still run holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_empty(path)
    lock = SoftFileLock(path)
    try:
        lock.acquire(timeout=wait_s, poll_interval=0.05)
    except Timeout:
        holder = _describe_holder(path)
        msg = (
            f"{holder}, {what}. If that process has ended (on another host nobody here can tell), "
            f"remove {path}"
        )
        raise ConcurrentSortError(msg, holder=holder) from None
    return lock


@contextlib.contextmanager
def hold(path: Path, what: str, wait_s: float = TAKE_OVER_S) -> Iterator[None]:
    """Hold a lock; parameters and errors are those of :func:`acquire`."""
    lock = acquire(path, what, wait_s)
    try:
        yield
    finally:
        lock.release()


def find_holder(path: Path) -> str | None:
    """Return who holds a lock; None where nobody does, or its process has ended."""
    if not path.exists():
        return None
    try:
        acquire(path, "holds it").release()
    except ConcurrentSortError as err:
        return str(err.evidence["holder"])
    return None


def _describe_holder(path: Path) -> str:
    """Name a lock's holder: process, host and since when."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split()
        since = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    except OSError:
        return "another process"
    pid, host = [*lines, "unknown", "unknown"][:2]
    return f"process {pid} on host {host}, since {since.isoformat(timespec='seconds')}"


def _remove_empty(path: Path) -> None:
    """Remove a lock whose process died between making and writing it."""
    with contextlib.suppress(OSError):
        status = path.stat()
        if status.st_size == 0 and time.time() - status.st_mtime > EMPTY_S:
            path.unlink()
