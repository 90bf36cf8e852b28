"""Rule canary: sort a short window of one recording and write the verdict."""

from pathlib import Path

from spikecanary import canary, inputcheck, screen
from spikecanary.config import CanarySettings, Config
from spikecanary.sorter import SortTask
from spikecanary.sorter.registry import asked_device
from spikecanary.supervise import gpus
from spikecanary.supervise.job import Job
from spikecanary.supervise.log import configure, new_log
from spikecanary.supervise.processes import exit_on_signals

if __name__ == "__main__":
    exit_on_signals()
    log, params, resources = Path(snakemake.log[0]), snakemake.params, snakemake.resources
    new_log(log)
    # An importer's own resources replace all of ours; 0 is all that there is.
    requested = {name: resources.get(name) or None for name in ("mem_mb", "runtime")}
    configure(log, rule="canary", threads=snakemake.threads, **requested)
    task = SortTask.model_validate({**params.task, "n_jobs": snakemake.threads})
    if resources.get("attempt", 1) == 1:  # a later one sorts nothing
        gpus.lease(resources.get("gpu", 0), asked_device(task.sorter))
    job = Job(
        log=log,
        **params.settings,
        mem_mb=requested["mem_mb"],
        runtime_min=requested["runtime"],
        scratch=params.batch["limits"]["scratch"],
        attempt=resources.get("attempt", 1),
        recorded_settings={name: params[name] for name in ("task", "data", "settings")},
    )
    settings = CanarySettings.model_validate(params.settings["canary"])
    results = Path(snakemake.output.sentinel).parent
    late = params.batch["late"]
    refused = inputcheck.check_late(Config.model_validate(late), []) if late else []
    canary.run(task, settings, results, job, params.attempt, refused=refused)
    screen.print_lines("canary", results.parent, params.batch)
