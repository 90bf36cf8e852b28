"""Rule canary: sort a short window of one recording and write the verdict."""

import logging
import sys
from pathlib import Path
from typing import Any

from spikecanary import canary
from spikecanary.config import CanarySettings, ForecastSettings, PreflightSettings, WatchdogSettings
from spikecanary.sorter import SortTask
from spikecanary.supervise import interrupts
from spikecanary.supervise.job import Job

logger = logging.getLogger("spikecanary")


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and run the canary; exit status 1 where it cannot write."""
    interrupts.exit_on_signals()
    log = Path(snakemake.log[0])
    resources = {name: getattr(snakemake.resources, name) for name in ("mem_mb", "runtime")}
    log.new_log(log)
    log.configure(log, rule="canary", threads=snakemake.threads, **resources)
    params = snakemake.params
    sentinel_path = Path(snakemake.output.sentinel)
    try:
        canary.run(
            SortTask.model_validate({**params.task, "n_jobs": snakemake.threads}),
            CanarySettings.model_validate(params.settings["canary"]),
            sentinel_path=sentinel_path,
            journal_path=sentinel_path.with_name("attempts.jsonl"),
            job=Job(
                log=log,
                preflight=PreflightSettings.model_validate(params.settings["preflight"]),
                watchdogs=WatchdogSettings.model_validate(params.settings["watchdogs"]),
                forecast=ForecastSettings.model_validate(params.settings["forecast"]),
                mem_mb=resources["mem_mb"],
                runtime_min=resources["runtime"],
            ),
            attempt=params.attempt,
            was_killed=snakemake.resources.attempt > 1,
            recorded_settings={name: params[name] for name in ("task", "data", "settings")},
        )
    except OSError as err:
        logger.error("the sentinel cannot be written: %s", err)  # noqa: TRY400 - one line
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
