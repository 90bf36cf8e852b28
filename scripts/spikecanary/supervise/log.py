"""Logging of a script: the rule's log file and stderr, versions first."""

import contextlib
import logging
import os
import platform
import re
import socket
import sys
from pathlib import Path
from types import TracebackType

from spikecanary.sentinel import package_versions

logger = logging.getLogger("spikecanary")

#: What is kept in memory of a child's output, for the diagnosis.
TAIL_BYTES = 200_000


def new_log(log: str | Path) -> None:
    """Give an attempt a log of its own, to which a rule's log becomes a link.

    So ``canary/x.log`` is the newest of ``canary/x/canary.1.log``, ``canary.2.log``, ...: the logs
    of earlier attempts stay. Where there are no links, the rule's log is a file, the newest only.
    """
    path = Path(log)
    folder, rule = path.with_suffix(""), path.parent.name
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(each.name.split(".")[-2]) for each in folder.glob(f"{rule}.*{path.suffix}")]
        own = folder / f"{rule}.{max(numbers, default=0) + 1}{path.suffix}"
        if path.exists() and not path.is_symlink():  # of a Spike Canary before 0.2
            path.rename(own)
            own = folder / f"{rule}.{max(numbers, default=0) + 2}{path.suffix}"
        path.unlink(missing_ok=True)
        path.symlink_to(own.relative_to(path.parent))


def configure(log: str | Path, **facts: object) -> None:
    """Log to the rule's log file and, from warnings up, to stderr.

    The first line names host, process, Python and package versions and the ``facts``
    given (threads, resources). Warnings of libraries are in the file only; uncaught
    exceptions are logged too.
    """
    path = Path(log)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    # Appending, since child processes write to the same file.
    to_file = logging.FileHandler(path, mode="a", encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setLevel(logging.WARNING)
    to_stderr.addFilter(lambda record: record.name != "py.warnings")
    to_stderr.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_file, to_stderr], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    described = {"host": socket.gethostname(), "pid": os.getpid(), **facts}
    described["python"] = platform.python_version()
    described |= package_versions()
    logger.info("%s", ", ".join(f"{name} {value}" for name, value in described.items()))


class CappedLog:
    """Appends what a child prints to a log; of very much, the beginning and the end stay.

    This process must be the log's only writer.

    Parameters
    ----------
    path : Path
        The log; what is in it already stays.
    max_bytes : int
        The most that is added.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._file = path.open("a+b", buffering=0)
        self._begins = self._file.seek(0, os.SEEK_END)
        #: Bytes that the child has printed, kept or not.
        self.n_bytes = 0
        self._tail = b""

    def write(self, data: bytes) -> None:
        """Append what the child printed."""
        self._file.write(data)
        self.n_bytes += len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        if self._file.tell() - self._begins > self.max_bytes:
            self._shorten()

    def tail(self) -> str:
        """Return the end of what the child printed, up to 200,000 bytes."""
        return self._tail.decode("utf-8", errors="replace")

    def last_line(self) -> str:
        """Return the last line that the child printed and that is not empty, shortened."""
        lines = [line.strip() for line in re.split(r"[\r\n]", self.tail()[-2_000:])]
        return next((line[:200] for line in reversed(lines) if line), "")

    def close(self) -> None:
        """Close the log."""
        self._file.close()

    def _shorten(self) -> None:
        """Keep the first and the last quarter of what may be kept."""
        quarter = self.max_bytes // 4
        self._file.seek(-quarter, os.SEEK_END)
        end = self._file.read()
        end = end[end.find(b"\n") + 1 :]
        self._file.truncate(self._begins + quarter)
        kept = f"\n[... the output was cut here; {self.n_bytes:,} bytes so far ...]\n"
        self._file.write(kept.encode() + end)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logger.critical("uncaught exception", exc_info=(kind, error, trace))
