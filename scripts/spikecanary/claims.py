"""What a run of the workflow claims for itself, so that two runs do not get in each other's way.

Snakemake locks a working directory. Two runs from two directories may still share a
results folder, and Snakemake removes the outputs of a job before it starts, also those
that the other run has just made. So a run notes in the results folder which recordings it
works on, and leaves those of another running one alone.
"""

import atexit
import json
from collections.abc import Iterable
from pathlib import Path

from spikecanary import locks, sentinel
from spikecanary.failures import ConcurrentSortError

FOLDER = ".runs"
#: Runs that begin at the same moment note their recordings one after the other.
PATIENCE_S = 30.0


def find_claimed(results: Path, recordings: Iterable[str]) -> dict[str, str]:
    """Return the recordings that another running process works on, each with who it is.

    Parameters
    ----------
    results : Path
        The results folder; need not exist.
    recordings : iterable of str
        The recordings that are asked for.
    """
    wanted = set(recordings)
    claimed: dict[str, str] = {}
    for lock in sorted((results / FOLDER).glob("*.lock")):
        names = lock.with_suffix(".json")
        holder = locks.find_holder(lock)
        if holder is None:
            names.unlink(missing_ok=True)
            continue
        try:
            theirs = set(json.loads(names.read_text(encoding="utf-8")))
        except (OSError, ValueError):  # it is only just ending
            continue
        claimed |= dict.fromkeys(wanted & theirs, holder)
    return claimed


def claim(results: Path, recordings: Iterable[str]) -> None:
    """Note which recordings this process works on, until it ends.

    Raises
    ------
    ConcurrentSortError
        Another running process has claimed one of them.
    OSError
        The results folder cannot be written.
    """
    recordings = sorted(recordings)
    folder = results.absolute() / FOLDER
    with locks.hold(folder / "begin", "begins a run", wait_s=PATIENCE_S):
        claimed = find_claimed(results, recordings)
        if claimed:
            name, holder = next(iter(claimed.items()))
            msg = f"{holder} has just begun to work on {len(claimed)} of them ({name}, ...)"
            raise ConcurrentSortError(msg, holder=holder)
        path = folder / f"{locks.this_process()}.lock"
        sentinel.write_atomic(path.with_suffix(".json"), json.dumps(recordings))
        lock = locks.acquire(path, "works here")
    atexit.register(path.with_suffix(".json").unlink, missing_ok=True)
    atexit.register(lock.release)


def take_workdir(folder: Path) -> None:
    """Note in Snakemake's folder that this process runs there, until it ends."""
    try:
        lock = locks.acquire(folder / "spikecanary.lock", "runs here")
    except ConcurrentSortError:  # several workflows, and Snakemake has let them
        return
    atexit.register(lock.release)


def release_killed(folder: Path) -> bool:
    """Remove Snakemake's locks of a run that was killed (SIGKILL, power cut); say if so.

    Only where the process that :func:`take_workdir` noted was of this host and has ended,
    and only locks that are not younger than its note.
    """
    note = folder / "spikecanary.lock"
    try:
        noted = note.stat().st_mtime
    except OSError:
        return False
    if locks.find_holder(note) is not None:
        return False
    left = [path for path in (folder / "locks").glob("*.lock") if path.stat().st_mtime <= noted]
    for path in left:
        path.unlink(missing_ok=True)
    return bool(left)
