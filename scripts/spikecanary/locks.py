"""The lock of a full sort, a file that network drives understand (filelock's soft lock).

It is for two runs that share a results folder; Snakemake locks the working directory. A lock names
its holder: process and host. The lock of a process of this host that has ended is taken over; of
another host nobody can tell, so a person has to remove the file.
"""

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import SoftFileLock, Timeout

from spikecanary.failures import ConcurrentSortError

#: How long the lock of a dead process may take to be taken over, in s.
TAKE_OVER_S = 1.0


@contextlib.contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Hold a lock.

    Parameters
    ----------
    path : Path
        The lock file; its folder is made.
    what : str
        What the holder does, for the message.

    Raises
    ------
    ConcurrentSortError
        Another process that may still run holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = SoftFileLock(path)
    try:
        lock.acquire(timeout=TAKE_OVER_S, poll_interval=0.05)
    except Timeout:
        holder = _describe_holder(path)
        msg = (
            f"{holder}, {what}. If that process has ended (on another host nobody here can tell), "
            f"remove {path}"
        )
        raise ConcurrentSortError(msg, holder=holder) from None
    try:
        yield
    finally:
        lock.release()


def _describe_holder(path: Path) -> str:
    """Name a lock's holder: process, host and since when."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split()
        since = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
    except OSError:
        return "another process"
    pid, host = [*lines, "unknown", "unknown"][:2]
    return f"process {pid} on host {host}, since {since.isoformat(timespec='seconds')}"
