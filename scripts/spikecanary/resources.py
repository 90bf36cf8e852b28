"""What a full sort asks Snakemake for: memory, time, disk, GPUs."""

import shutil
from pathlib import Path

from spikecanary import forecast
from spikecanary.config import Config
from spikecanary.sorters import SortTask


def count_gpus(config: Config) -> int:
    """Return the number of GPUs that a canary asks for, and a sort of which nothing is known."""
    if config.job.gpu is not None:
        return config.job.gpu
    if config.sorter.device == "auto":
        return int(shutil.which("nvidia-smi") is not None)
    return int(config.sorter.device == "cuda")


def without_forecast(config: Config) -> dict[str, int]:
    """Return what a sort asks for of which nothing is known."""
    return {
        "mem_mb": config.job.mem_mb,
        "runtime": config.job.sort_runtime_min,
        "disk_mb": config.forecast.min_disk_mb,
        "gpu": count_gpus(config),
    }


def of_sort(config: Config, results: Path, task: SortTask, attempt: int) -> dict[str, int]:
    """Return what a sort asks for, by the forecast of its canary as far as there is one.

    Parameters
    ----------
    config : Config
        With the limits of what may be asked for.
    results : Path
        The results folder.
    task : SortTask
        What is sorted.
    attempt : int
        Which attempt at the job this is; each gets as much again. A sort whose canary was seen to
        use a GPU asks for one at least.
    """
    unknown = without_forecast(config)
    expected = forecast.of_recording(results, task.row.id, task.digest(), config.forecast)
    gpu = unknown.pop("gpu")
    if config.job.gpu is None and "vram_mb" in expected:
        gpu = max(gpu, 1)
    asked = forecast.request(config.forecast, expected, attempt)
    times = {name: attempt * value for name, value in unknown.items()}
    return {**times, **asked, "gpu": gpu}
