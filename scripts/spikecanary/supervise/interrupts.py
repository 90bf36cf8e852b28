"""Being told to end: signals to this process, and the end of the snakemake behind it."""

import contextlib
import signal
from typing import Any

import psutil

from spikecanary.supervise import processes

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(SystemExit):
    """A signal told this process to end; exit status 128 + signal number."""

    def __init__(self, signum: int, reason: str | None = None) -> None:
        self.signum = signum
        self.reason = reason or f"interrupted by {signal.Signals(signum).name}"
        super().__init__(128 + signum)


#: The snakemake that started this process; None: nobody whose end would matter.
_starter: psutil.Process | None = None


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

    for each in SIGNALS:
        if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN:  # nohup
            signal.signal(each, interrupt)
    _starter = _find_snakemake()


def _find_snakemake() -> psutil.Process | None:
    """Return the nearest ancestor that is a snakemake."""
    with contextlib.suppress(psutil.Error):
        for ancestor in psutil.Process().parents():
            if any("snakemake" in part for part in ancestor.cmdline()[:3]):
                return ancestor
    return None


def check_starter() -> None:
    """End this process where its snakemake was killed, as a hang-up would."""
    if _starter is not None and not processes.is_alive(_starter):
        raise Interrupted(signal.SIGHUP, "the snakemake that had started it was killed")
