"""Watchdogs: small checks of one sample of a child's process tree and its node.

Each returns nothing, a warning (a line for people), or the classified failure for which
the supervisor ends the tree. What needs a memory (how long a tree has been idle) is
measured by the sampler, so that a check looks at one sample only.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    """One look at the child's process tree and its node.

    Attributes
    ----------
    elapsed_s : float
        Since the child's start.
    rss_mb : float
        Memory of the tree that the kernel cannot drop: resident without mapped files.
    disk_mb : float
        Size of the work folder.
    idle_s : float
        Since the tree last printed, computed, or read or wrote a disk.
    stalled_s : float
        Since when a process of the tree waits uninterruptibly and nothing moves.
    free_ram_mb : float
        Memory of the node that is available to anybody.
    total_ram_mb : float
        Memory of the node.
    free_mb : dict
        Free disk space by folder; None where the folder is gone.
    largest : tuple of str
        Largest files of the work folder with their sizes, largest first.
    gpus : tuple of Gpu
        The GPUs that the tree uses.
    """

    elapsed_s: float = 0.0
    rss_mb: float = 0.0
    disk_mb: float = 0.0
    idle_s: float = 0.0
    stalled_s: float = 0.0
    free_ram_mb: float = math.inf
    total_ram_mb: float = math.inf
    free_mb: Mapping[str, float | None] | None = None
    largest: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()


#: A warning comes at this share of the job's memory, at so many times the least free memory or
#: disk, and at this use and temperature (NVIDIA's cards slow down from 83 degrees on) of a GPU.
WARN_SHARE = 0.9
WARN_TIMES = 10.0
WARN_GPU_PERCENT = 95.0
WARN_GPU_C = 85.0

Watchdog = Callable[[Sample], ClassifiedSortFailure | str | None]


@dataclass(frozen=True)
class Limits:
    """What one job may use; None: no limit.

    Attributes
    ----------
    inactivity_s : float or None
        Longest time without output, CPU time and I/O.
    wall_s : float or None
        Longest time at all.
    mem_mb : float or None
        Memory that the job asked for.
    """

    inactivity_s: float | None = None
    wall_s: float | None = None
    mem_mb: float | None = None


def make_watchdogs(settings: WatchdogSettings, limits: Limits) -> list[Watchdog]:
    """Return the watchdogs that the config leaves on, for one job."""
    dogs: list[Watchdog] = [watch_folders]
    if limits.inactivity_s is not None and settings.inactivity_base_s is not None:
        dogs.append(Inactivity(limits.inactivity_s))
    if limits.wall_s is not None and settings.wall_time:
        dogs.append(WallTime(limits.wall_s))
    if limits.mem_mb is not None and settings.job_memory:
        dogs.append(JobMemory(limits.mem_mb))
    if settings.min_free_ram_mb is not None:
        dogs.append(NodeMemory(settings.min_free_ram_mb))
    if settings.min_free_disk_mb is not None:
        dogs.append(FreeDisk(settings.min_free_disk_mb))
    if settings.io_stall_s is not None:
        dogs.append(IOStall(settings.io_stall_s))
    return [
        *dogs,
        GpuMemory(settings.gpu_memory_abort_percent),
        GpuTemperature(settings.gpu_abort_c),
    ]


#: Shortest and longest inactivity limit of a canary in s, and its share of the window
#: (DESIGN.md, "What a canary does", step 4).
CANARY_INACTIVITY_S = (120.0, 300.0, 4.0)


def canary_inactivity_s(window_s: float) -> float:
    """Return a canary's inactivity limit in s for the length of its window in s."""
    shortest, longest, share = CANARY_INACTIVITY_S
    return min(longest, max(shortest, share * window_s))


def inactivity_limit_s(settings: WatchdogSettings, duration_s: float) -> float | None:
    """Return a full sort's inactivity limit in s for a recording's duration in s."""
    if settings.inactivity_base_s is None:
        return None
    limit = settings.inactivity_base_s + settings.inactivity_per_min_s * duration_s / 60
    return min(limit, settings.inactivity_most_s)


@dataclass(frozen=True)
class Inactivity:
    """The tree shows no life."""

    limit_s: float

    def __call__(self, sample: Sample) -> ClassifiedSortFailure | str | None:
        """Check one sample."""
        if sample.idle_s <= self.limit_s:
            return None
        msg = f"neither output nor CPU time nor I/O for {sample.idle_s:.0f} s"
        return SorterTimeoutError(msg, limit_s=self.limit_s)


@dataclass(frozen=True)
class WallTime:
    """The sort takes longer than its job may."""

    limit_s: float

    def __call__(self, sample: Sample) -> ClassifiedSortFailure | str | None:
        """Check one sample."""
        if sample.elapsed_s <= self.limit_s:
            return None
        msg = f"still running after {sample.elapsed_s / 60:.0f} min, the job's time limit"
        return SorterTimeoutError(msg, limit_s=self.limit_s)


@dataclass(frozen=True)
class JobMemory:
    """The tree's own memory against what its job asked for."""

    mem_mb: float

    def __call__(self, sample: Sample) -> ClassifiedSortFailure | str | None:
        """Check one sample."""
        share = sample.rss_mb / self.mem_mb
        msg = f"the sort holds {sample.rss_mb:.0f} MB, {share:.0%} of the job's mem_mb"
        if share >= 1.0:
            return HostMemoryWatchdogError(msg, peak_rss_mb=sample.rss_mb, limit_mb=self.mem_mb)
        return msg if share >= WARN_SHARE else None


@dataclass(frozen=True)
class NodeMemory:
    """The memory of the node, where this sort holds most of it.

    Others may fill a node's memory, and give it back: their use is no reason to end a sort.
    """

    least_mb: float

    def __call__(self, sample: Sample) -> ClassifiedSortFailure | str | None:
        """Check one sample."""
        if sample.rss_mb <= sample.total_ram_mb / 2:
            return None
        msg = (
            f"{sample.free_ram_mb:.0f} MB of the node's memory are free, and this sort holds "
            f"{sample.rss_mb:.0f} of its {sample.total_ram_mb:.0f} MB"
        )
        if sample.free_ram_mb < self.least_mb:
            return HostMemoryWatchdogError(msg, peak_rss_mb=sample.rss_mb)
        return msg if sample.free_ram_mb < WARN_TIMES * self.least_mb else None


@dataclass(frozen=True)
class FreeDisk:
    """Free space of the work and the results folder."""

    least_mb: float

    def __call__(self, sample: Sample) -> ClassifiedSortFailure | str | None:
        """Check one sample."""
        known = {path: free for path, free in (sample.free_mb or {}).items() if free is not None}
        if not known:
            return None
        path, free_mb = min(known.items(), key=lambda item: item[1])
        msg = f"{free_mb:.0f} MB free for {path}, {sample.disk_mb:.0f} MB used by this sort"
        if free_mb < self.least_mb:
            return DiskExhaustionError(
                msg, path=path, free_mb=free_mb, largest=list(sample.largest)
            )
        return msg if free_mb < WARN_TIMES * self.least_mb else None


def watch_folders(sample: Sample) -> ClassifiedSortFailure | str | None:
    """Check that the work and the results folder are still there."""
    for path, free_mb in (sample.free_mb or {}).items():
        if free_mb is None:
            msg = f"the folder {path} was removed while the sort ran"
            return FolderNotWritableError(msg, path=path)
    return None


@dataclass(frozen=True)
class GpuMemory:
    """Memory of the GPUs that the tree uses: a warning, unless a user wants the sort ended.

    PyTorch's allocator keeps nearly all memory of a GPU in a healthy sort.
    """

    abort_percent: float | None

    def __call__(self, sample: Sample) -> ClassifiedSortFailure | str | None:
        """Check one sample."""
        for gpu in sample.gpus:
            percent = 100 * gpu.used_mb / gpu.total_mb
            msg = (
                f"{percent:.0f} % of the {gpu.total_mb:.0f} MB of {gpu.name} are in use, "
                f"{gpu.tree_mb:.0f} MB of it by this sort"
            )
            if _reaches(percent, self.abort_percent):
                return GpuMemoryWatchdogError(msg, used_mb=gpu.used_mb)
            if percent >= WARN_GPU_PERCENT:
                return msg
        return None


@dataclass(frozen=True)
class GpuTemperature:
    """Temperature of the GPUs that the tree uses: a warning, unless a user wants the sort ended.

    NVIDIA's drivers slow a hot GPU down by themselves.
    """

    abort_c: float | None

    def __call__(self, sample: Sample) -> ClassifiedSortFailure | str | None:
        """Check one sample."""
        for gpu in sample.gpus:
            if gpu.temperature_c is None:
                continue
            msg = f"{gpu.name} has {gpu.temperature_c:.0f} degrees Celsius"
            if _reaches(gpu.temperature_c, self.abort_c):
                return GpuThermalWatchdogError(msg, temperature_c=gpu.temperature_c)
            if gpu.temperature_c >= WARN_GPU_C:
                return msg
        return None


@dataclass(frozen=True)
class IOStall:
    """The storage does not answer."""

    limit_s: float

    def __call__(self, sample: Sample) -> ClassifiedSortFailure | str | None:
        """Check one sample."""
        if sample.stalled_s <= self.limit_s:
            return None
        return IOStallError(
            f"waiting for storage for {sample.stalled_s:.0f} s without a byte moved",
            stalled_s=sample.stalled_s,
        )


def _reaches(value: float, limit: float | None) -> bool:
    return limit is not None and value >= limit


#: Limits of one job alone: a canary that reaches them says nothing of the full sort.
OF_A_JOB = (JobMemory, WallTime)
