"""Rule sort: sort one whole recording, if its sentinel lets it."""

import logging
import sys
from pathlib import Path
from typing import Any

from spikecanary import fullsort
from spikecanary.config import (
    ForecastSettings,
    PreflightSettings,
    RetrySettings,
    SignalSettings,
    WatchdogSettings,
)
from spikecanary.sentinel import RecordError
from spikecanary.sorter import SortTask
from spikecanary.supervise import interrupts, job

logger = logging.getLogger("spikecanary")


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and run the sort; exit status 1 where it failed."""
    interrupts.exit_on_signals()
    log, params = Path(snakemake.log[0]), snakemake.params
    resources = {name: getattr(snakemake.resources, name) for name in ("mem_mb", "runtime")}
    log.new_log(log)
    log.configure(log, rule="sort", threads=snakemake.threads, **resources)
    record_path = Path(snakemake.output.record)
    allowed = ForecastSettings.model_validate(params.limits["forecast"])
    try:
        fullsort.run(
            SortTask.model_validate({**params.task, "n_jobs": snakemake.threads}),
            sentinel_path=Path(snakemake.input.sentinel),
            sorting_path=Path(snakemake.output.sorting),
            record_path=record_path,
            journal_path=record_path.with_name("attempts.jsonl"),
            job=job.Job(
                log=log,
                preflight=PreflightSettings.model_validate(params.limits["preflight"]),
                watchdogs=WatchdogSettings.model_validate(params.limits["watchdogs"]),
                mem_mb=job.most(resources["mem_mb"], allowed.max_mem_mb),
                runtime_min=job.most(resources["runtime"], allowed.max_runtime_min),
            ),
            retry=RetrySettings.model_validate(params.limits["retry"]),
            signals=SignalSettings.model_validate(params.limits["signals"]),
            forced=params.limits["forced"],
            attempt=snakemake.resources.attempt,
            keep_output=params.limits["keep_output"],
            recorded_settings={name: params[name] for name in ("version", "task", "data")},
        )
    except (fullsort.SortStoppedError, fullsort.SortFailedError, RecordError, OSError) as err:
        logger.error("%s", err)  # noqa: TRY400 - one line; the traceback tells nothing more
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
