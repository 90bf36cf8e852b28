"""Rule sort: sort one whole recording, if its sentinel lets it."""

from pathlib import Path

from spikecanary import fullsort, screen
from spikecanary.config import ForecastSettings
from spikecanary.sorter import SortTask
from spikecanary.sorter.registry import asked_device
from spikecanary.supervise import gpus
from spikecanary.supervise.job import Job, job_limit
from spikecanary.supervise.log import configure, new_log
from spikecanary.supervise.processes import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()
    log, params, resources = Path(snakemake.log[0]), snakemake.params, snakemake.resources
    new_log(log)
    # An importer's own resources replace all of ours; 0 is all that there is.
    requested = {name: resources.get(name) or None for name in ("mem_mb", "runtime")}
    configure(log, rule="sort", threads=snakemake.threads, **requested)
    task = SortTask.model_validate({**params.task, "n_jobs": snakemake.threads})
    gpus.lease(resources.get("gpu", 0), asked_device(task.sorter))
    limits = params.batch["limits"]
    allowed = ForecastSettings.model_validate(limits["forecast"])
    job = Job(
        log=log,
        **limits,
        mem_mb=job_limit(requested["mem_mb"], allowed.max_mem_mb),
        runtime_min=job_limit(requested["runtime"], allowed.max_runtime_min),
        attempt=resources.get("attempt", 1),
        recorded_settings={name: params[name] for name in ("version", "task", "data")},
    )
    results = Path(snakemake.output.record).parent
    forced, keep_output = params.batch["forced"], limits["keep_output"]
    fullsort.run(task, results, job, forced=forced, keep_output=keep_output)
    screen.print_lines("sort", results.parent, params.batch)
