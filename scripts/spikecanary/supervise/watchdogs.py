"""Watchdogs: small checks of one sample of a child's process tree and its node.

Each returns None, a warning (a line for people), or the classified failure for which the tree is
ended. A reading that is no number (NaN) is no reason for either. What needs a memory (how long a
tree has been idle) is measured by the sampler.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from spikecanary.config import WatchdogSettings
from spikecanary.failures import (
    ClassifiedSortFailure,
    DiskExhaustionError,
    FolderNotWritableError,
    GpuMemoryWatchdogError,
    GpuThermalWatchdogError,
    HostMemoryWatchdogError,
    IOStallError,
    SorterTimeoutError,
)
from spikecanary.supervise.gpus import Gpu


@dataclass(frozen=True)
class Sample:
    """One look at the child's process tree and its node."""

    elapsed_s: float = 0.0  # since the child's start
    rss_mb: float = 0.0  # of the tree, without what the kernel can drop: mapped files
    disk_mb: float = 0.0  # size of the work folder
    idle_s: float = 0.0  # since the tree last printed, computed, or read or wrote a disk
    silent_s: float = 0.0  # ... printed, moved a byte, used a GPU, or touched memory anew
    stalled_s: float = 0.0  # since when a process waits uninterruptibly and nothing moves
    free_ram_mb: float = math.inf  # of the node, available to anybody
    total_ram_mb: float = math.inf  # of the node
    free_mb: Mapping[str, float | None] = field(default_factory=dict)  # None: it is gone
    largest: tuple[str, ...] = ()  # files of the work folder with their sizes
    gpus: tuple[Gpu, ...] = ()  # that the tree uses


#: A warning comes at this share of the job's memory, at so many times the least free memory or
#: disk, and at this use and temperature (NVIDIA's cards slow down from 83 degrees on) of a GPU.
WARN_SHARE = 0.9
WARN_TIMES = 10.0
WARN_GPU_PERCENT = 95.0
WARN_GPU_C = 85.0
#: Shortest and longest inactivity limit of a canary in s, and its multiple of the window's length.
CANARY_INACTIVITY_S = (120.0, 300.0, 4.0)
#: A full sort's inactivity limit grows by this for each minute of the recording, up to the longest.
INACTIVITY_PER_MIN_S, LONGEST_INACTIVITY_S = 10.0, 3600.0

Found = ClassifiedSortFailure | str | None
Watchdog = Callable[[Sample], Found]


def make_watchdogs(
    settings: WatchdogSettings,
    *,
    inactivity_s: float | None = None,
    wall_s: float | None = None,
    mem_mb: float | None = None,
) -> list[Watchdog]:
    """Return the watchdogs that the config leaves on, for a job's limits; None: no limit.

    ``inactivity_s`` is the longest time without output, CPU time and I/O, ``wall_s`` the longest
    at all, and ``mem_mb`` the memory that the job requested.
    """
    if settings.inactivity_base_s is None:
        inactivity_s = None
    times = settings.silence_times
    limits = {
        check_inactivity: inactivity_s,
        check_silence: inactivity_s and times and times * inactivity_s,
        check_wall_time: wall_s,
        check_job_memory: mem_mb,
        check_node_memory: settings.min_free_ram_mb,
        check_free_disk: settings.min_free_disk_mb or 0.0,  # a removed folder is seen all the same
        check_storage: settings.io_stall_s,
        check_gpu_memory: settings.gpu_memory_abort_percent or math.inf,
        check_gpu_temperature: settings.gpu_abort_c or math.inf,
    }
    return [partial(check, limit=limit) for check, limit in limits.items() if limit is not None]


def is_of_job(watchdog: Watchdog) -> bool:
    """Whether a watchdog watches a limit of its job alone, which says nothing of another job."""
    return getattr(watchdog, "func", None) in (check_job_memory, check_wall_time)


def canary_inactivity_s(window_s: float) -> float:
    """Return a canary's inactivity limit in s for the length of its window in s."""
    shortest, longest, share = CANARY_INACTIVITY_S
    return min(longest, max(shortest, share * window_s))


def inactivity_limit_s(settings: WatchdogSettings, duration_s: float) -> float | None:
    """Return a full sort's inactivity limit in s for a recording's duration in s."""
    if settings.inactivity_base_s is None:
        return None
    limit_s = settings.inactivity_base_s + INACTIVITY_PER_MIN_S * duration_s / 60
    return min(limit_s, max(LONGEST_INACTIVITY_S, settings.inactivity_base_s))


def check_inactivity(sample: Sample, limit: float) -> Found:
    """Check that the tree shows life within so many s."""
    if not sample.idle_s > limit:
        return None
    msg = f"neither output nor CPU time nor I/O for {sample.idle_s:.0f} s"
    return SorterTimeoutError(msg, limit_s=limit)


def check_silence(sample: Sample, limit: float) -> Found:
    """Check that a tree that computes shows more than that within so many s: what works does."""
    if not sample.silent_s - sample.idle_s > limit:
        return None
    msg = f"it computes, but without output, I/O, GPU or fresh memory for {sample.silent_s:.0f} s"
    return SorterTimeoutError(msg, limit_s=limit)


def check_wall_time(sample: Sample, limit: float) -> Found:
    """Check that the sort does not take longer than its job may, in s."""
    if not sample.elapsed_s > limit:
        return None
    msg = f"still running after {sample.elapsed_s / 60:.0f} min, the job's time limit"
    return SorterTimeoutError(msg, limit_s=limit)


def check_job_memory(sample: Sample, limit: float) -> Found:
    """Check the tree's own memory against what its job requested, in MB."""
    share = sample.rss_mb / limit
    msg = f"the sort holds {sample.rss_mb:.0f} MB, {share:.0%} of the job's {limit:.0f} MB (mem_mb)"
    if share >= 1.0:
        return HostMemoryWatchdogError(msg, peak_rss_mb=sample.rss_mb, limit_mb=limit)
    return msg if share >= WARN_SHARE else None


def check_node_memory(sample: Sample, limit: float) -> Found:
    """Check the node's free memory in MB, where this sort holds most of it.

    Others may fill a node's memory, and give it back: their use is no reason to end a sort.
    """
    if not 0.0 < sample.total_ram_mb / 2 < sample.rss_mb:
        return None
    msg = (
        f"{sample.free_ram_mb:.0f} MB of the node's memory are free, and this sort holds "
        f"{sample.rss_mb:.0f} of its {sample.total_ram_mb:.0f} MB"
    )
    if sample.free_ram_mb < limit:
        return HostMemoryWatchdogError(msg, peak_rss_mb=sample.rss_mb)
    return msg if sample.free_ram_mb < WARN_TIMES * limit else None


def check_free_disk(sample: Sample, limit: float) -> Found:
    """Check that the work and the results folder are there, and their free space in MB."""
    known: dict[str, float] = {}
    for path, mb in sample.free_mb.items():
        if mb is None:
            msg = f"the folder {path} was removed while the sort ran"
            return FolderNotWritableError(msg, path=path)
        if mb >= 0:
            known[path] = mb
    if not known:
        return None
    path, free_mb = min(known.items(), key=lambda item: item[1])
    msg = f"{free_mb:.0f} MB free for {path}, {sample.disk_mb:.0f} MB used by this sort"
    if free_mb < limit:
        msg += f"; {limit:.0f} MB are to stay free (watchdogs.min_free_disk_mb)"
        return DiskExhaustionError(msg, path=path, free_mb=free_mb, largest=list(sample.largest))
    return msg if free_mb < WARN_TIMES * limit else None


def check_gpu_memory(sample: Sample, limit: float) -> Found:
    """Check the share of the memory in use of the GPUs that the tree uses, in percent.

    PyTorch's allocator keeps nearly all memory of a GPU in a healthy sort, so this only warns,
    unless the config sets a limit.
    """
    for gpu in sample.gpus:
        if not gpu.total_mb > 0:  # some drivers and virtual GPUs do not tell
            continue
        percent = 100 * gpu.used_mb / gpu.total_mb
        msg = (
            f"{percent:.0f} % of the {gpu.total_mb:.0f} MB of {gpu.name} are in use, "
            f"{gpu.tree_mb:.0f} MB of it by this sort"
        )
        if percent >= limit:
            return GpuMemoryWatchdogError(msg, used_mb=gpu.used_mb)
        if percent >= WARN_GPU_PERCENT:
            return msg
    return None


def check_gpu_temperature(sample: Sample, limit: float) -> Found:
    """Check the temperature of those GPUs; NVIDIA's drivers slow a hot one down by themselves."""
    for gpu in sample.gpus:
        if gpu.temperature_c is None:
            continue
        msg = f"{gpu.name} has {gpu.temperature_c:.0f} degrees Celsius"
        if gpu.temperature_c >= limit:
            return GpuThermalWatchdogError(msg, temperature_c=gpu.temperature_c)
        if gpu.temperature_c >= WARN_GPU_C:
            return msg
    return None


def check_storage(sample: Sample, limit: float) -> Found:
    """Check that the storage answers within so many s."""
    if not sample.stalled_s > limit:
        return None
    msg = f"waiting for storage for {sample.stalled_s:.0f} s without a byte moved"
    return IOStallError(msg, stalled_s=sample.stalled_s)
