"""Samples of a child's process tree and its node, for measurements and watchdogs."""

import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from spikecanary.supervise import containers, gpus, processes
from spikecanary.supervise.watchdogs import Sample

MB = 1e6
#: What takes long to look at (files, GPUs, containers) is looked at every so many s.
SLOW_S = 2.0
#: A tree that uses less of one core than this only waits: polling loops, idle threads.
WAITING_SHARE = 0.01
#: CPU times are counted in ticks of 0.01 s; one tick alone is no work.
LEAST_CPU_S = 0.05
N_LARGEST = 5


@dataclass(frozen=True)
class _Use:
    """Counters of a tree: what they were when it last showed life."""

    at: float
    cpu_s: float
    disk_bytes: int
    moved_bytes: int
    output_bytes: int
    work_bytes: int


class Sampler:
    """Looks at a child's process tree again and again.

    Parameters
    ----------
    pid : int
        The child.
    folder : Path
        Its work folder.
    folders : sequence of Path
        Folders whose free space counts.
    with_containers : bool
        Whether the child has containers work for it.
    """

    def __init__(
        self,
        pid: int,
        folder: Path,
        folders: Sequence[Path] = (),
        *,
        with_containers: bool = False,
    ) -> None:
        self.pid = pid
        self.folder = folder
        self.folders = list(dict.fromkeys([folder, *folders]))
        self.with_containers = with_containers
        self.started = time.monotonic()
        self._life: _Use | None = None
        self._moved: _Use | None = None
        self._slow = Sample()
        self._slow_at: float | None = None
        self._strangers: list[psutil.Process] = []

    def take(self, output_bytes: int = 0, *, thorough: bool = False) -> Sample:
        """Take one sample.

        Parameters
        ----------
        output_bytes : int
            How much the child has printed so far.
        thorough : bool
            Look at files and GPUs even if that was done a moment ago.
        """
        now = time.monotonic()
        family = processes.tree(self.pid)
        if thorough or self._slow_at is None or now - self._slow_at >= SLOW_S:
            self._strangers = containers.processes_of(self.folder) if self.with_containers else []
            self._slow = self._look_slowly([*family, *self._strangers])
            self._slow_at = now
        counted = [_count(process) for process in [*family, *self._strangers]]
        use = _Use(
            at=now,
            cpu_s=sum(each.cpu_s for each in counted),
            disk_bytes=sum(each.disk_bytes for each in counted),
            moved_bytes=sum(each.moved_bytes for each in counted),
            output_bytes=output_bytes,
            work_bytes=round(self._slow.disk_mb * MB),
        )
        busy_gpu = any(gpu.busy for gpu in self._slow.gpus)
        if self._life is None or busy_gpu or _shows_life(self._life, use):
            self._life = use
        waits = any(each.status == psutil.STATUS_DISK_SLEEP for each in counted)
        runs = any(each.status == psutil.STATUS_RUNNING for each in counted)
        if self._moved is None or not waits or runs or _moves(self._moved, use):
            self._moved = use
        node = psutil.virtual_memory()
        shared = max((each.shmem_bytes for each in counted), default=0)
        return replace(
            self._slow,
            free_mb={str(folder): _free_mb(folder) for folder in self.folders},
            elapsed_s=now - self.started,
            rss_mb=(sum(each.own_bytes for each in counted) + shared) / MB,
            idle_s=now - self._life.at,
            stalled_s=now - self._moved.at,
            free_ram_mb=node.available / MB,
            total_ram_mb=node.total / MB,
        )

    def _look_slowly(self, family: Iterable[psutil.Process]) -> Sample:
        files = _files(self.folder)
        largest = sorted(files, reverse=True)[:N_LARGEST]
        return Sample(
            disk_mb=sum(size for size, _ in files) / MB,
            largest=tuple(f"{path}: {size / MB:.0f} MB" for size, path in largest),
            gpus=gpus.used_by({process.pid for process in family}),
        )


@dataclass(frozen=True)
class _Counted:
    status: str = psutil.STATUS_SLEEPING
    cpu_s: float = 0.0
    disk_bytes: int = 0
    moved_bytes: int = 0
    own_bytes: int = 0
    shmem_bytes: int = 0


def _count(process: psutil.Process) -> _Counted:
    """Read the counters of one process; nothing where it has ended."""
    try:
        with process.oneshot():
            times = process.cpu_times()
            memory = process.memory_info()
            status = process.status()
    except psutil.Error:
        return _Counted()
    # Pages of mapped files (a recording read by memmap) are dropped when memory is short.
    own, shmem = memory.rss - getattr(memory, "shared", 0), _shmem_bytes(process.pid)
    counted = _Counted(
        status=status, cpu_s=times.user + times.system, own_bytes=own, shmem_bytes=shmem
    )
    try:
        io = process.io_counters()
    except (psutil.Error, AttributeError):  # not ours; not on macOS
        return counted
    moved = getattr(io, "read_chars", 0) + getattr(io, "write_chars", 0)
    return replace(counted, disk_bytes=io.read_bytes + io.write_bytes, moved_bytes=moved)


def _shmem_bytes(pid: int) -> int:
    """Read the shared memory that a process has touched (Linux), which psutil does not tell."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssShmem:"):
                return int(line.split()[1]) * 1024
    return 0


def _shows_life(before: _Use, now: _Use) -> bool:
    """Whether a tree did something between two counts; a process that ended counts too."""
    if now.output_bytes != before.output_bytes or now.disk_bytes != before.disk_bytes:
        return True
    if now.work_bytes != before.work_bytes or now.cpu_s < before.cpu_s:
        return True
    return now.cpu_s - before.cpu_s > max(LEAST_CPU_S, WAITING_SHARE * (now.at - before.at))


def _moves(before: _Use, now: _Use) -> bool:
    """Whether a byte was moved between two counts."""
    return now.moved_bytes != before.moved_bytes or now.disk_bytes != before.disk_bytes


def _files(folder: Path) -> list[tuple[int, str]]:
    """Return the size on disk and the path of each file of a folder."""
    found = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)  # noqa: PTH118 - many files, often
            with contextlib.suppress(OSError):
                found.append((os.lstat(path).st_blocks * 512, path))
    return found


def _free_mb(folder: Path) -> float | None:
    """Return the free space for a folder; None where the folder is gone."""
    try:
        return psutil.disk_usage(str(folder)).free / MB
    except FileNotFoundError:
        return None
