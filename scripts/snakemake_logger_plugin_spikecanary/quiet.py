"""Keeps Snakemake's lines about single jobs off the screen; its log file has them all."""

import logging

from snakemake_interface_logger_plugins.common import LogEvent

EVENTS = (LogEvent.JOB_STARTED, LogEvent.JOB_FINISHED, LogEvent.PROGRESS)
#: How other messages begin. Of a failed job its own line and ours say more, and the advice on
#: provenance would not do for batches that take days.
MESSAGES = (
    "Select jobs to execute",
    "DAG of jobs will be updated",
    "Updating checkpoint dependencies",
    "Reasons:",
    "Some jobs were triggered by provenance information",
    "RuleException:\nCalledProcessError",
    "The run involves checkpoint jobs",
    "WorkflowError:\nAt least one job did not complete",
)


def quieten(logger: logging.Logger) -> None:
    """Show a table of jobs once, warnings and errors, and else what the jobs themselves print."""
    n_tables = 0

    def is_shown(record: logging.LogRecord) -> bool:
        nonlocal n_tables
        event = getattr(record, "event", None)
        n_tables += event == LogEvent.RUN_INFO
        if event == LogEvent.RUN_INFO:
            return n_tables == 1  # a dry run prints it again at its end
        return event not in EVENTS and not str(record.msg).lstrip().startswith(MESSAGES)

    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler":
            handler.addFilter(is_shown)
