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
    path.write_bytes(b"")
    # Appending, since child processes write to the same file.
    to_file = logging.FileHandler(path, mode="a", encoding="utf-8")
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
