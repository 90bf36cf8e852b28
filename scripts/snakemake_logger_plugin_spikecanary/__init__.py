"""Snakemake's logger plugin ``--logger spikecanary``: progress in recordings.

Prints a line whenever a canary or sort ends, and each minute while any job runs, and besides
only warnings and errors. Snakemake's own log file has everything.
"""

import logging
import sys
import threading
import time
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

#: A sign of life while nothing ends, in s.
EVERY_S = 60.0


class LogHandler(LogHandlerBase):
    """Turns Snakemake's events into lines of progress, on stderr, in place of its own."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = False  # messages and errors look as Snakemake's
    needs_rulegraph = False

    def __post_init__(self) -> None:
        """Begin to give signs of life.

        Snakemake imports this module in every run, also where nobody wants the plugin.
        """
        from snakemake_logger_plugin_spikecanary.progress import Progress

        self.progress = Progress()
        self.printed = time.monotonic()
        threading.Thread(target=self._show_life, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take one event or message."""
        try:
            self._take(record)
        except Exception:  # noqa: BLE001 - as logging does: a line lost is no reason to stop
            self.handleError(record)

    def _take(self, record: logging.LogRecord) -> None:
        event: Any = getattr(record, "event", None)
        facts = vars(record)
        if event == LogEvent.RUN_INFO:
            counts = facts["stats"]
            self.progress.plan(*(_count(counts, rule) for rule in ("canary", "sort")))
        elif event == LogEvent.JOB_INFO and (facts.get("wildcards") or {}).get("recording"):
            self.progress.begin(
                facts["jobid"],
                facts["rule_name"],
                facts["wildcards"]["recording"],
                facts["output"] or (),
            )
        elif event == LogEvent.JOB_FINISHED:
            if self.progress.end(facts["job_id"]):
                self._print()
        elif event == LogEvent.JOB_ERROR:
            self.progress.end(facts["jobid"], failed=True)
            self._write(self.format(record))
            self._print()
        elif record.levelno >= logging.WARNING:
            self._write(self.format(record))

    def _show_life(self) -> None:
        while True:
            time.sleep(1.0)
            if self.progress.running and time.monotonic() - self.printed > EVERY_S:
                self._print()

    def _print(self) -> None:
        self.printed = time.monotonic()
        self._write(f"{time.strftime('%H:%M:%S')} {self.progress.line()}")

    def _write(self, text: str) -> None:
        if text and text.strip() and text != "None":
            sys.stderr.write(text.rstrip() + "\n")
            sys.stderr.flush()


def _count(stats: dict[str, int], rule: str) -> int:
    """Return the number of jobs of a rule, also where an importer has given it a prefix."""
    return sum(n for name, n in stats.items() if name.endswith(rule))
