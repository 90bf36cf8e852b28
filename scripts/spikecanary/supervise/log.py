"""The log of a job: its own file, versions first; and what a child wrote to it."""

import contextlib
import logging
import os
import platform
import re
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from spikecanary.failures import ClassifiedSortFailure
from spikecanary.sentinel import package_versions, run_began
from spikecanary.texts import PlainError, abridge, one_line, printable, sentences

logger = logging.getLogger("spikecanary")

#: How much of the end of a child's output is read for the diagnosis.
TAIL_BYTES = 200_000
#: How our own lines begin, between which a child writes to the same file.
OWN_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ ")


def new_log(log: str | Path) -> None:
    """Give an attempt a log of its own, to which a rule's log becomes a link.

    So ``canary/x.log`` is the newest of ``canary/x.logs/canary.1.log``, ``canary.2.log``, ...: the
    logs of earlier attempts stay. Where there are no links, the rule's log is a file, the newest.
    """
    path = Path(log)
    folder, rule = path.with_suffix(".logs"), path.parent.name
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [each.name.split(".")[-2] for each in folder.glob(f"{rule}.*{path.suffix}")]
        number = max([int(each) for each in numbers if each.isdigit()], default=0) + 1
        if path.exists() and not path.is_symlink():  # of a Spike Canary before 0.2
            path.rename(folder / f"{rule}.{number}{path.suffix}")
            number += 1
        path.unlink(missing_ok=True)
        path.symlink_to(Path(folder.name, f"{rule}.{number}{path.suffix}"))


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
    to_file = logging.FileHandler(path, "a", encoding="utf-8", errors="backslashreplace")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setLevel(logging.WARNING)
    to_stderr.addFilter(lambda record: record.name != "py.warnings")
    to_stderr.setFormatter(_Printable("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[to_file, to_stderr], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    described = {"host": socket.gethostname(), "pid": os.getpid(), **facts}
    described |= {"python": platform.python_version(), **package_versions()}
    logger.info("%s", ", ".join(f"{name} {value}" for name, value in described.items()))


class _Printable(logging.Formatter):
    """What reaches a terminal is text; the log's file has all as it is."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _log_uncaught(kind: Any, error: BaseException, trace: Any) -> None:
    if isinstance(error, ClassifiedSortFailure):
        logger.error("%s", sentences(error, error.remedy))
        return
    is_plain = isinstance(error, (PlainError, OSError))
    what = error if is_plain else one_line("".join(traceback.format_exception_only(error)))
    logger.log(logging.ERROR if is_plain else logging.CRITICAL, "%s", what)
    if not isinstance(error, PlainError):  # the file alone has where
        logger.info("raised here", exc_info=(kind, error, trace))


def errors_of_run(logs: Path, recording: str) -> list[str]:
    """Return what a recording's jobs logged of errors in this run: what, and in which log."""
    errors, began_s = [], run_began().timestamp()
    for path in sorted(logs.glob(f"*/{recording}.log")):
        with contextlib.suppress(OSError):
            text = path.read_text(errors="replace") if path.stat().st_mtime >= began_s else ""
            if match := re.search(r" (?:ERROR|CRITICAL) (.*)", text):
                errors += [abridge(match[1], 300), f"log: {path}"]
    return errors


class ChildLog:
    """What one child writes to a log, from where the log ended before.

    Of more than ``max_bytes`` the beginning and the end stay.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.begins = path.stat().st_size if path.exists() else 0
        self._own = 0

    def count_own(self, n_bytes: int) -> None:
        """Count bytes that this process wrote: they are no output of the child's."""
        self._own += n_bytes

    def size(self) -> int:
        """Return how many bytes are in the log, our own lines included."""
        try:
            return self.path.stat().st_size
        except OSError:
            return self.begins

    def output_bytes(self) -> int:
        """Return a number that changes with the child's output, and with nothing else."""
        return self.size() - self._own

    def tail(self, n_bytes: int = TAIL_BYTES) -> str:
        """Return the end of what the child wrote."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(self.begins, self.size() - n_bytes))
                return file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""

    def last_line(self) -> str:
        """Return the last line of the child's that is not empty, shortened."""
        lines = [line.strip() for line in re.split(r"[\r\n]", self.tail(10_000))]
        own = (line for line in reversed(lines) if line and not OWN_LINE.match(line))
        return next(own, "")[:200]

    def shorten(self) -> None:
        """Keep the first and the last quarter of what may be kept, where the child wrote more.

        The child goes on meanwhile: of what it writes at that very moment a line may be lost.
        """
        size = self.size()
        if size - self.begins <= self.max_bytes:
            return
        quarter = self.max_bytes // 4
        note = f"\n[... the output was cut here, at {size - self.begins:,} bytes ...]\n".encode()
        with self.path.open("rb") as written, self.path.open("ab") as file:
            written.seek(size - quarter)
            written.readline()
            end = list(iter(written.read, b""))  # until the child has written no more meanwhile
            os.truncate(self.path, self.begins + quarter)
            file.writelines([note, *end])
