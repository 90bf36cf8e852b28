"""What the workflow does besides its rules: pass signals on, and a last word."""

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from spikecanary import claims, summary
from spikecanary.failures import ConcurrentSortError
from spikecanary.interrupts import SIGNALS
from spikecanary.recordings import Recording

logger = logging.getLogger(__name__)


#: The results folders of the runs that have begun in this process.
_begun: list[Path] = []
#: Signals that told this run to end.
_received: list[int] = []
#: Snakemake's own folder, in the working directory.
STATE = Path(".snakemake")


def begin_run(results: Path, recordings: Iterable[str], left: Mapping[str, str]) -> None:
    """Claim the recordings for this run, and have signals passed on.

    Parameters
    ----------
    results : Path
        The results folder.
    recordings : iterable of str
        All recordings of the table.
    left : dict
        Those that are left to another run.

    Raises
    ------
    ConcurrentSortError
        All are left to another run, or it has just claimed one of the others.
    OSError
        The results folder cannot be written.
    """
    own = set(recordings) - set(left)
    if left and not own:
        raise ConcurrentSortError(say_left(left))
    claims.claim(results, own)
    _begun.append(results)
    claims.take_workdir(STATE)
    forward_signals()


def has_begun() -> bool:
    """Whether this process runs canaries and sorts (a plan does not)."""
    return bool(_begun)


def look_around(results: Path, recordings: Iterable[str]) -> dict[str, str]:
    """Before a run: clear away a killed one's locks, find what another one works on.

    Returns
    -------
    dict
        The recordings that are left to another run, each with who that is.
    """
    if claims.release_killed(STATE):
        sys.stderr.write("Removed Snakemake's lock of a run that was killed.\n")
    return claims.find_claimed(results, recordings)


def say_left(left: Mapping[str, str]) -> str:
    """Say which recordings are left to another run, and to whom."""
    name, holder = next(iter(left.items()))
    return (
        f"{len(left)} recordings are left to another run, which works on them now "
        f"(ConcurrentSortError): {name}: {holder}"
    )


def forward_signals() -> None:
    """Pass SIGINT, SIGTERM and SIGHUP on to the running jobs, then do what was done before.

    Snakemake itself waits for its running jobs when it is told to end; a canary or a
    sort is to end with it.
    """
    for each in SIGNALS:
        previous = signal.getsignal(each)
        if each == signal.SIGHUP and previous == signal.SIG_IGN:  # nohup
            continue

        def forward(signum: int, frame: FrameType | None, previous: Any = previous) -> None:
            _received.append(signum)
            for job in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if _is_script(job.cmdline()):
                        job.send_signal(signal.SIGTERM)
            if callable(previous):
                previous(signum, frame)
            else:  # SIGHUP, for which Snakemake does nothing
                sys.exit(128 + signum)

        signal.signal(each, forward)


def _is_script(command: list[str]) -> bool:
    """Whether a command is a script that Snakemake started (not the sort that it started)."""
    return any("/.snakemake/scripts/" in part for part in command[:3])


def end_of_run(
    results: Path, rows: Mapping[str, Recording], page: Callable[[], None], *, write: bool
) -> None:
    """Print how the recordings ended; after a run with errors, write summary and report too.

    Their rules do not run when a job before them failed.

    Parameters
    ----------
    results : Path
        The results folder.
    rows : dict
        The recordings.
    page : callable
        Writes the report.
    write : bool
        Whether to write both.

    Raises
    ------
    SystemExit
        A signal ended the run: exit status 128 + its number.
    """
    metadata = {row.id: row.metadata for row in rows.values()}
    described = summary.describe(results, list(rows), metadata)
    path = results / "summary.tsv"
    if write:
        summary.write(path, described)
        try:
            page()
        except Exception:
            logger.exception("the report could not be written")
    table = summary.to_frame(described)
    sys.stdout.write(f"\n{summary.describe_recordings(table)}\n\n")
    sys.stdout.write(f"{summary.describe_counts(table)}\n")
    written = [each for each in (path, path.with_name("report.html")) if each.exists()]
    sys.stdout.write(f"Summary and report: {', '.join(map(str, written))}\n")
    sys.stdout.flush()
    if _received:
        sys.exit(128 + _received[0])
