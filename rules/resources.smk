"""What jobs ask for: memory, time, disk, GPUs; no rule."""

import shutil

from spikecanary import forecast


def unless_dry(function, constant):
    """Return a resource function; in a dry run, which asks nobody, the config's number.

    Of thousands of jobs Snakemake calls each function several times.
    """
    return constant if DRY else function


def canary_mem_mb(wildcards, attempt):
    """Return the memory of a canary in MB; each retry gets as much again."""
    return attempt * SETTINGS.job.mem_mb


def canary_runtime(wildcards, attempt):
    """Return the time limit of a canary in min; each retry gets as much again."""
    return attempt * SETTINGS.job.canary_runtime_min


def expect(wildcards):
    """Return the forecast of a full sort."""
    digest = get_task(wildcards).digest()
    return forecast.of_recording(
        results_path(), wildcards.recording, digest, SETTINGS.forecast
    )


def ask_for(wildcards, attempt, resource, unknown):
    """Return what a full sort asks for by its forecast, or, without one, what is given."""
    asked = forecast.request(SETTINGS.forecast, expect(wildcards), attempt)
    return asked.get(resource, attempt * unknown)


def sort_mem_mb(wildcards, attempt):
    """Return the memory of a full sort in MB."""
    return ask_for(wildcards, attempt, "mem_mb", SETTINGS.job.mem_mb)


def sort_runtime(wildcards, attempt):
    """Return the time limit of a full sort in min."""
    return ask_for(wildcards, attempt, "runtime", SETTINGS.job.sort_runtime_min)


def sort_disk_mb(wildcards, attempt):
    """Return the disk space of a full sort in MB."""
    return ask_for(wildcards, attempt, "disk_mb", SETTINGS.forecast.min_disk_mb)


def sort_gpus(wildcards):
    """Return the GPUs of a full sort: one where its canary was seen to use one."""
    asked = count_gpus()
    if SETTINGS.job.gpu is None and "vram_mb" in expect(wildcards):
        return max(asked, 1)
    return asked


def count_gpus():
    """Return the number of GPUs that a canary or sort job asks for."""
    if SETTINGS.job.gpu is not None:
        return SETTINGS.job.gpu
    if SETTINGS.sorter.device == "auto":
        return int(shutil.which("nvidia-smi") is not None)
    return int(SETTINGS.sorter.device == "cuda")


def output_mem_mb(wildcards, attempt):
    """Return the memory of a job that makes an output, in MB; each retry gets as much again."""
    return attempt * SETTINGS.job.output_mem_mb


def output_runtime(wildcards, attempt):
    """Return the time limit of a job that makes an output, in min."""
    return attempt * SETTINGS.job.output_runtime_min


def count_attempt(wildcards, attempt):
    """Return the how manieth time Snakemake runs a job."""
    return attempt
