"""Checkpoint node: try a sorter on this machine, before the canaries that need it.

Exit status 1 where it cannot run here.
"""

import sys
from pathlib import Path

from spikecanary.config import SorterSettings
from spikecanary.preflight import node
from spikecanary.sorter.registry import asked_device
from spikecanary.supervise import gpus
from spikecanary.supervise.job import Job
from spikecanary.supervise.log import configure, new_log
from spikecanary.supervise.processes import exit_on_signals
from spikecanary.texts import count

if __name__ == "__main__":
    exit_on_signals()
    log, params, resources = Path(snakemake.log[0]), snakemake.params, snakemake.resources
    new_log(log)
    configure(log, rule="node", threads=snakemake.threads)
    settings = SorterSettings.model_validate(params.kind["sorter"])
    gpus.lease(resources.get("gpu", 0), asked_device(settings))
    job = Job(log=log, **params.limits, runtime_min=resources.get("runtime") or None)
    record, waiting = Path(snakemake.output.record), params.waiting
    if failure := node.run(settings, record, job, snakemake.threads, waiting):
        what, n_waiting = node.describe(settings, failure), count(len(waiting), "recording")
        sys.exit(f"{what.rstrip('.')}.\n  {n_waiting} wait for it. {failure.remedy}")
