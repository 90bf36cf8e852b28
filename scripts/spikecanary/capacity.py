"""The capacity check: whether the sort that is forecast fits into what its job may have."""

from collections.abc import Mapping
from pathlib import Path

import psutil

from spikecanary import gpus
from spikecanary.config import ForecastSettings, WatchdogSettings
from spikecanary.failures import CapacityForecastError
from spikecanary.sentinel import Interval
from spikecanary.sorters import MEMORY_KNOBS, SortTask

MB = 1e6
#: What each cost is called, its unit for people, and what would make it fit.
TEXTS = {
    "wall_s": (
        "time",
        "s",
        "raise forecast.max_runtime_min, or split the recording (start_s, end_s)",
    ),
    "mem_mb": (
        "memory",
        "MB",
        "raise forecast.max_mem_mb on a larger machine, or split the recording (start_s, end_s)",
    ),
    "disk_mb": ("disk space", "MB", "free disk space, or move the results folder (pathvars)"),
    "vram_mb": ("GPU memory", "MB", "use a larger GPU"),
}


def room(folder: Path, settings: ForecastSettings, watchdogs: WatchdogSettings) -> dict[str, float]:
    """Return what a full sort's job may have, as far as it is limited.

    Parameters
    ----------
    folder : Path
        The recording's results folder.
    settings : ForecastSettings
        With the most that a job may ask for.
    watchdogs : WatchdogSettings
        What they leave free of the disk is no room.
    """
    kept_mb = watchdogs.min_free_disk_mb or 0.0
    found = {
        "wall_s": 60.0 * settings.max_runtime_min,
        "mem_mb": min(float(settings.max_mem_mb), psutil.virtual_memory().total / MB),
        "disk_mb": psutil.disk_usage(str(folder)).free / MB - kept_mb,
    }
    free = gpus.total_mb()
    return found | ({"vram_mb": max(free)} if free else {})


def check(
    forecast: Mapping[str, Interval], room: Mapping[str, float], task: SortTask
) -> tuple[CapacityForecastError | None, list[str]]:
    """Compare a forecast with the room there is.

    Parameters
    ----------
    forecast : dict
        Of :func:`spikecanary.forecast.predict`.
    room : dict
        Of :func:`room`.
    task : SortTask
        What is to be sorted, for the remedy.

    Returns
    -------
    (CapacityForecastError or None, list of str)
        The failure where even the low end does not fit; a warning for each high end that
        does not.
    """
    warnings: list[str] = []
    for cost, limit in room.items():
        if cost not in forecast:
            continue
        name, unit, knob = TEXTS[cost]
        expected = forecast[cost]
        numbers = (
            f"{name} {expected.low:.0f} to {expected.high:.0f} {unit} (likely "
            f"{expected.likely:.0f}), there is {limit:.0f} {unit}"
        )
        knob = _smaller_batches(task) + knob if cost == "vram_mb" else knob
        if expected.low > limit:
            return (
                CapacityForecastError(
                    f"the full sort does not fit: {numbers}. To make it fit: {knob}",
                    what=name,
                    low=expected.low,
                    high=expected.high,
                    room=limit,
                ),
                warnings,
            )
        if expected.high > limit:
            warnings.append(f"the full sort may not fit: {numbers}. To be safe: {knob}")
    return None, warnings


def _smaller_batches(task: SortTask) -> str:
    """Name the sorter's parameter that makes it take less GPU memory."""
    if task.sorter.name not in MEMORY_KNOBS:
        return ""
    return f"lower {MEMORY_KNOBS[task.sorter.name][0]} (sorter.params), or "
