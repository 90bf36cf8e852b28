"""Checkpoint node: try a sorter on this machine, before the canaries that need it."""

import sys
from pathlib import Path
from typing import Any

from spikecanary.config import SorterSettings
from spikecanary.preflight import node
from spikecanary.sorter.registry import asked_device
from spikecanary.supervise import gpus
from spikecanary.supervise.job import Job
from spikecanary.supervise.log import configure, new_log
from spikecanary.supervise.processes import exit_on_signals
from spikecanary.texts import count


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and try the sorter; exit status 1 where it cannot run here."""
    exit_on_signals()
    log, params, resources = Path(snakemake.log[0]), snakemake.params, snakemake.resources
    new_log(log)
    configure(log, rule="node", threads=snakemake.threads)
    settings = SorterSettings.model_validate(params.kind["sorter"])
    gpus.lease(resources.get("gpu", 0), asked_device(settings))
    job = Job(log=log, **params.limits, runtime_min=resources.get("runtime") or None)
    record, waiting = Path(snakemake.output.record), params.waiting
    failure = node.run(settings, record, job, snakemake.threads, waiting)
    if failure is None:
        return 0
    failure_text = node.describe(settings, failure).rstrip(".")
    sys.stderr.write(
        f"{failure_text}.\n  {count(len(waiting), 'recording')} wait for it. {failure.remedy}\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
