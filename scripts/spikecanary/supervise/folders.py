"""Work folders of jobs: made empty, removed at the end, swept where their job died."""

import contextlib
import glob
import hashlib
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import psutil

from spikecanary.failures import ConcurrentSortError, FolderNotWritableError
from spikecanary.sentinel import run_began
from spikecanary.supervise import containers, processes

logger = logging.getLogger(__name__)

#: A work folder of another host that was not touched for so many s has no living job: a job
#: touches its folder with every line of progress, each minute at most.
ABANDONED_S = 3_600.0
#: Names of work folders by what makes them; no other folder is ours to remove.
PURPOSES = "canary|sort|analyze|curate|node|figures|canary_figure|export_[a-z]+"
_NAME = re.compile(rf"^\.(?P<purpose>{PURPOSES})-(?P<host>.+)-(?P<pid>\d+)(\.\w+)?$")
_TEMPORARY = re.compile(r"^\.[^~]+~(?P<host>[^~]+)~(?P<pid>\d+)\.tmp$")


def work_path(results: Path, purpose: str) -> Path:
    """Return the work folder of this process in a recording's results folder, absolute."""
    return results.absolute() / f".{purpose}-{socket.gethostname()}-{os.getpid()}"


class LeftoverError(OSError):
    """What an earlier job left in a work folder cannot be removed."""


@contextlib.contextmanager
def work_folder(path: Path) -> Iterator[Path]:
    """Make an empty folder, or raise LeftoverError; remove it at the end, if it can be."""
    if path.exists():
        try:
            shutil.rmtree(path)
        except OSError as err:
            msg = f"{path}, which an earlier job left, cannot be removed ({err}): remove it by hand"
            raise LeftoverError(msg) from err
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def work_folders(results: Path, purpose: str, scratch: str | None) -> Iterator[Path]:
    """Make this process's work folder, in a scratch folder if there is one; yield it.

    In a recording's results folder there is one of that name in any case, by which others know of
    the job. First what dead jobs of the recording left in both is removed. Raises
    FolderNotWritableError where the scratch folder is not there, or cannot be written.
    """
    with work_folder(work_path(results, purpose)) as folder:
        sweep(results)
        if scratch is None:
            yield folder
            return
        elsewhere = scratch_path(results, scratch)
        sweep(elsewhere)
        try:
            elsewhere.mkdir(exist_ok=True)
        except OSError as err:
            msg = f"job.scratch: {elsewhere.parent} cannot be written: {err}"
            remedy = "Make that folder, or set its variable, on every node, or choose another."
            raise FolderNotWritableError(msg, remedy=remedy, path=str(elsewhere.parent)) from err
        try:
            with work_folder(work_path(elsewhere, purpose)) as there:
                yield there
        finally:
            with contextlib.suppress(OSError):  # another job of the recording works in it
                elsewhere.rmdir()


def show_life(folder: Path, places: Iterable[Path]) -> None:
    """Touch a work folder, and this process's own in some places, for those who may sweep them."""
    name = f".*-{glob.escape(socket.gethostname())}-{os.getpid()}"
    for path in [folder, *(found for place in places for found in place.glob(name))]:
        with contextlib.suppress(OSError):
            os.utime(path)


def scratch_path(results: Path, scratch: str) -> Path:
    """Return the folder of a recording in a scratch folder, as this user and this host name it."""
    root = Path(os.path.expandvars(scratch)).expanduser().absolute()
    name = hashlib.sha256(f"{os.getuid()} {results.absolute()}".encode()).hexdigest()
    return root / f"spikecanary-{name[:16]}"


def sweep(results: Path) -> list[Path]:
    """Remove what dead jobs left in a recording's results folder, and end what they left running.

    These are work folders and temporary files of processes of this host that have ended, and of
    other hosts where nothing was touched for an hour. Returns what was removed.
    """
    removed = []
    for path in sorted(results.absolute().glob(".*")):
        match = _NAME.match(path.name) or _TEMPORARY.match(path.name)
        if match is None or not _is_abandoned(path, match["host"], int(match["pid"])):
            continue
        if path.is_dir():
            processes.end_strays(str(path))
            containers.remove(path)
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        logger.info("removed %s, which a process that died had left", path)
        removed.append(path)
    return removed


def find_killed(results: Path, *kinds: str) -> list[str]:
    """Return the hosts of canaries and sorts of a recording that were killed in this run.

    Each has left its work folder, which the next job of that recording on that host removes.
    ``kinds``: ``canary`` or ``sort`` alone.
    """
    found, began_s = [], run_began().timestamp()
    for path in results.glob(".*-*-*"):
        match = _NAME.match(path.name)
        if match is None or match["purpose"] not in (kinds or ("canary", "sort")):
            continue
        host, is_here = match["host"], match["host"] == socket.gethostname()
        with contextlib.suppress(OSError):
            is_dead = not is_here or _is_abandoned(path, host, int(match["pid"]))
            if is_dead and path.stat().st_mtime >= began_s:
                found.append(host)
    return found


def _is_abandoned(path: Path, host: str, pid: int) -> bool:
    """Whether the process that made a path has ended, as far as this host can know."""
    try:
        status = path.stat()
        touched = max([status.st_mtime, *(each.lstat().st_mtime for each in path.rglob("*"))])
    except OSError:
        return False
    if host != socket.gethostname():
        return time.time() - touched > ABANDONED_S
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return True
    # Another process may have got the number since.
    return not processes.is_alive(process) or process.create_time() > touched + CLOCKS_DIFFER_S


#: Clocks of a file server and of its clients differ by less, in s.
CLOCKS_DIFFER_S = 120.0
#: How long the lock of a dead process may take to be taken over, in s. One of another host, which
#: nobody here can see, is taken over where it was not renewed for so long.
TAKE_OVER_S, LEASE_S = 1.0, 60.0


@contextlib.contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file; ``what`` says what its holder does.

    Raises ConcurrentSortError where another process that may still run holds it.
    """
    from filelock import SoftFileLease, Timeout

    def last_renewed() -> float:
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
        return 0.0

    path.parent.mkdir(parents=True, exist_ok=True)
    lock, wait_s, renewed = SoftFileLease(path, lease_duration=LEASE_S), TAKE_OVER_S, last_renewed()
    owner = lock.owner  # in a container its host has another name, and its processes other numbers
    if is_elsewhere := owner is not None and owner.hostname != socket.gethostname():
        logger.info("waiting whether process %s on host %s lives", owner.pid, owner.hostname)
        wait_s += LEASE_S
    with contextlib.suppress(Timeout):
        lock.acquire(timeout=wait_s, poll_interval=wait_s / 20)
    if not lock.is_locked and (owner := lock.owner) is not None:
        # Locks of other programs may be held without being renewed.
        is_silent = owner.mode == "lease" and renewed == last_renewed()
        if is_silent if is_elsewhere else not psutil.pid_exists(owner.pid):
            # filelock (4.2) takes over by exchanging two files, which network file systems refuse.
            lock.break_lock()
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=TAKE_OVER_S)
    if not lock.is_locked:
        holder = f"process {owner.pid} on host {owner.hostname}" if owner else "another process"
        if seen_s := last_renewed():
            seen = datetime.fromtimestamp(seen_s).astimezone()
            holder += f", last seen {seen.isoformat(timespec='seconds')}"
        hint = f"If that process has ended (this host cannot see another's), remove {path}"
        msg = f"{holder}, {what}. {hint}"
        raise ConcurrentSortError(msg, holder=holder)
    try:
        yield
    finally:
        lock.release()
