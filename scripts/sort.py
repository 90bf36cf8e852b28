"""Rule sort: sort one whole recording, if its sentinel lets it."""

import logging
import sys
from pathlib import Path
from typing import Any

from spikecanary import fullsort, logs, supervisor
from spikecanary.config import PreflightSettings, SignalSettings
from spikecanary.sentinel import RecordError
from spikecanary.sorters import SortTask

logger = logging.getLogger("spikecanary")


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and run the sort; exit status 1 where it failed."""
    supervisor.exit_on_signals()
    log = Path(snakemake.log[0])
    logs.configure(log, rule="sort", threads=snakemake.threads)
    record_path = Path(snakemake.output.record)
    settings = snakemake.params.settings
    task = SortTask.model_validate(snakemake.params.task | {"n_jobs": snakemake.threads})
    try:
        fullsort.run(
            task,
            sentinel_path=Path(snakemake.input.sentinel),
            sorting_path=Path(snakemake.output.sorting),
            record_path=record_path,
            journal_path=record_path.with_name("attempts.jsonl"),
            log=log,
            limits=PreflightSettings.model_validate(settings["preflight"]),
            signals=SignalSettings.model_validate(settings["signals"]),
            forced=settings["forced"],
            recorded_settings=settings,
        )
    except (fullsort.SortStoppedError, fullsort.SortFailedError, RecordError) as err:
        logger.error("%s", err)  # noqa: TRY400 - one line; the traceback tells nothing more
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
