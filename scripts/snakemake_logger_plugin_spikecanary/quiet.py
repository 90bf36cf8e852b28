"""Keeps Snakemake's lines about single jobs off the screen; its log file has them all."""

import logging
import sys
from collections.abc import Callable

from snakemake_interface_logger_plugins.common import LogEvent

EVENTS = (LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.PROGRESS)
#: How other messages begin. Of a failed job its own line and ours say more, and the advice on
#: provenance would not do for batches that take days.
MESSAGES = (
    "Assuming unrestricted shared filesystem",
    "Building DAG of jobs",
    "Select jobs to execute",
    "DAG of jobs will be updated",
    "Elapsed time",  # after our last lines
    "Updating checkpoint dependencies",
    "Reasons:",
    "Some jobs were triggered by provenance information",
    "Rules with provenance triggered jobs",
    "RuleException:\nCalledProcessError",
    "The run involves checkpoint jobs",
    "WorkflowError:\nAt least one job did not complete",
)


def quieten(logger: logging.Logger, is_local: Callable[[], bool]) -> None:
    """Show a table of jobs once, warnings and errors, and else what the jobs themselves print.

    Of jobs elsewhere (``is_local``: of none, once the DAG is built) also those that failed, in a
    line each: one that died there could not say it.
    """
    n_tables = n_errors = 0

    def is_shown(record: logging.LogRecord) -> bool:
        nonlocal n_tables, n_errors
        event = getattr(record, "event", None)
        n_tables += event == LogEvent.RUN_INFO
        n_errors += record.levelno >= logging.ERROR
        if event == LogEvent.RUN_INFO:
            return n_tables == 1  # a dry run prints it again at its end
        if event == LogEvent.JOB_ERROR and not is_local():
            facts = vars(record)
            name = facts.get("aux", {}).get("external_jobid")
            job = f"Job {name} of rule" if name else "A job of rule"
            logs = ", ".join(map(str, facts["log"]))
            sys.stderr.write(f"{job} {facts['rule_name']} failed; log: {logs}\n")
        if str(record.msg).startswith("Complete log"):  # after our last lines
            return n_errors > 0
        return event not in EVENTS and not str(record.msg).lstrip().startswith(MESSAGES)

    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler":
            handler.filters.insert(0, is_shown)  # Snakemake's own leaves out jobs that failed
