"""Logging of a script: the rule's log file and stderr, versions first."""

import logging
import os
import platform
import socket
import sys
from pathlib import Path
from types import TracebackType

from spikecanary.sentinel import package_versions

logger = logging.getLogger("spikecanary")


def configure(log: str | Path, **facts: object) -> None:
    """Log to the rule's log file and, from warnings up, to stderr.

    The first line names host, process, Python and package versions and the ``facts``
    given (threads, resources). Warnings of libraries and uncaught exceptions are
    logged too.
    """
    path = Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    to_file = logging.FileHandler(path, mode="w", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setLevel(logging.WARNING)
    to_stderr.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_file, to_stderr], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    described = {"host": socket.gethostname(), "pid": os.getpid(), **facts}
    described["python"] = platform.python_version()
    described |= package_versions()
    logger.info("%s", ", ".join(f"{name} {value}" for name, value in described.items()))


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logger.critical("uncaught exception", exc_info=(kind, error, trace))


def tail(path: Path, n_bytes: int = 200_000) -> str:
    """Return the end of a log file as text, or nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - n_bytes))
            return file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
