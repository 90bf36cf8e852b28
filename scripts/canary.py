"""Rule canary: sort a short window of one recording and write the verdict."""

import sys
from pathlib import Path
from typing import Any

from spikecanary import canary, logs, supervisor
from spikecanary.config import CanarySettings, PreflightSettings
from spikecanary.sorters import SortTask


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and run the canary."""
    supervisor.exit_on_signals()
    log = Path(snakemake.log[0])
    logs.configure(log, rule="canary", threads=snakemake.threads)
    settings = snakemake.params.settings
    sentinel_path = Path(snakemake.output.sentinel)
    canary.run(
        SortTask.model_validate(snakemake.params.task | {"n_jobs": snakemake.threads}),
        CanarySettings.model_validate(settings["canary"]),
        sentinel_path=sentinel_path,
        journal_path=sentinel_path.with_name("attempts.jsonl"),
        log=log,
        limits=PreflightSettings.model_validate(settings["preflight"]),
        attempt=snakemake.params.attempt,
        recorded_settings=settings,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
