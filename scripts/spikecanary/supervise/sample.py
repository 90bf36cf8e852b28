"""Samples of a child's process tree and its node, for measurements and watchdogs."""

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from spikecanary.supervise import containers, gpus, memory, processes
from spikecanary.supervise.watchdogs import Sample

MB = 1e6
#: What may take long to look at (files, disks, GPUs, containers) is looked at every so many s.
SLOW_S = 2.0
#: ... in a thread, for which the loop waits this long at most, in s.
LAST_WAIT_S = 0.3
#: A tree that uses less of one core than this only waits: polling loops, idle threads.
WAITING_SHARE = 0.01
#: CPU times are counted in ticks of 0.01 s; one tick alone is no work.
LEAST_CPU_S = 0.05
#: Page faults, by which memory is touched for the first time: so many a second, and at all, mean
#: that data are gone through. A loop that never ends makes none (tried: Python, numpy, torch).
FAULTS_PER_S, LEAST_FAULTS = 10.0, 1000
N_LARGEST = 5


@dataclass(frozen=True)
class _Use:
    """Counters of a tree: what they were when it last showed life."""

    at: float
    written: tuple[int, float]  # to the log, in bytes, and to the work folder, in MB
    cpu_s: float
    disk_bytes: int
    moved_bytes: int
    faults: int


@dataclass
class Sampler:
    """Looks at a child's process tree again and again, and at the free space of folders."""

    pid: int
    folder: Path
    folders: Sequence[Path] = ()
    with_containers: bool = False
    started: float = field(default_factory=time.monotonic)
    _last: dict[Callable[[_Use, _Use], bool], _Use] = field(default_factory=dict)
    _slow: Sample = field(default_factory=Sample)
    _slow_at: float = float("-inf")
    _thread: threading.Thread | None = None
    _strangers: list[psutil.Process] = field(default_factory=list)
    _works_unseen: bool = False

    def take(self, output_bytes: int = 0, *, is_last: bool = False) -> Sample:
        """Take one sample; ``output_bytes`` changes with what the child prints.

        The last one, of a child that has ended, looks at its files once more, if that is quick.
        """
        now = time.monotonic()
        family = processes.tree(self.pid)
        self._look_slowly(family, is_last=is_last)
        everyone = [*family, *self._strangers]
        counted = [_count(process, is_alone=len(everyone) == 1) for process in everyone]
        counters = ("cpu_s", "disk_bytes", "moved_bytes", "faults")
        sums = {name: sum(getattr(each, name) for each in counted) for name in counters}
        use = _Use(at=now, written=(output_bytes, self._slow.disk_mb), **sums)
        is_busy = self._works_unseen or any(gpu.busy for gpu in self._slow.gpus)
        waits = any(each.status == psutil.STATUS_DISK_SLEEP for each in counted)
        runs = any(each.status == psutil.STATUS_RUNNING for each in counted)
        free, total = memory.read()
        shared = max((each.shmem_bytes for each in counted), default=0)
        return replace(
            self._slow,
            elapsed_s=now - self.started,
            rss_mb=(sum(each.own_bytes for each in counted) + shared) / MB,
            idle_s=self._since(_shows_life, use, surely=is_busy),
            silent_s=self._since(_shows_progress, use, surely=is_busy),
            stalled_s=self._since(_moves, use, surely=runs or not waits),
            free_ram_mb=free / MB,
            total_ram_mb=total / MB,
        )

    def _since(self, shows: Callable[[_Use, _Use], bool], use: _Use, *, surely: bool) -> float:
        """Return for how many s a tree has not shown something."""
        last = self._last.get(shows)
        if last is None or surely or shows(last, use):
            last = self._last[shows] = use
        return use.at - last.at

    def _look_slowly(self, family: Sequence[psutil.Process], *, is_last: bool) -> None:
        """Look at files, GPUs and containers in a thread, so that the loop never waits for them.

        A folder of many files, or on a drive that does not answer, takes its time.
        """
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(LAST_WAIT_S if is_last else 0.0)
            return
        if not is_last and time.monotonic() - self._slow_at < SLOW_S:
            return
        self._slow_at = time.monotonic()
        self._thread = threading.Thread(target=self._measure, args=(family,), daemon=True)
        self._thread.start()
        self._thread.join(LAST_WAIT_S)

    def _measure(self, family: Sequence[psutil.Process]) -> None:
        """Measure what takes long, for the next samples."""
        strangers: list[psutil.Process] = []
        if self.with_containers:
            strangers, self._works_unseen = containers.processes_of(self.folder)
        files = _files(self.folder)
        largest = sorted(files, reverse=True)[:N_LARGEST]
        self._strangers = strangers
        self._slow = Sample(
            free_mb={str(folder): _free_mb(folder) for folder in (self.folder, *self.folders)},
            disk_mb=sum(size for size, _ in files) / MB,
            largest=tuple(f"{path}: {size / MB:.0f} MB" for size, path in largest),
            gpus=gpus.used_by({process.pid for process in [*family, *strangers]}),
        )


@dataclass(frozen=True)
class _Counted:
    status: str = psutil.STATUS_SLEEPING
    cpu_s: float = 0.0
    disk_bytes: int = 0
    moved_bytes: int = 0
    own_bytes: int = 0
    shmem_bytes: int = 0
    faults: int = 0


def _count(process: psutil.Process, *, is_alone: bool) -> _Counted:
    """Read the counters of one process; nothing where it has ended."""
    try:
        with process.oneshot():
            times = process.cpu_times()
            held: Any = process.memory_info()
            status = process.status()
    except psutil.Error:
        return _Counted()
    # Pages of mapped files (a recording read by memmap) are dropped when memory is short.
    own, shmem = held.rss - getattr(held, "shared", 0), 0
    # Forked processes share pages. To read how many takes time (10 ms for 3 GB).
    shares = [] if is_alone else _kilobytes(process.pid, "smaps_rollup", "Pss_Anon:", "Pss_Shmem:")
    if shares:
        own = sum(shares) * 1024
    else:
        shmem = sum(_kilobytes(process.pid, "status", "RssShmem:")) * 1024
    disk = moved = 0
    with contextlib.suppress(psutil.Error, AttributeError):  # not ours; not on macOS
        io = process.io_counters()
        disk = io.read_bytes + io.write_bytes
        moved = getattr(io, "read_chars", 0) + getattr(io, "write_chars", 0)
    faults = _faults(process.pid)
    with contextlib.suppress(psutil.Error, AttributeError):  # macOS alone has these
        faults = held.pfaults
        own = process.memory_full_info().uss
    cpu_s = times.user + times.system
    return _Counted(status, cpu_s, disk, moved, own, shmem, faults)


def _kilobytes(pid: int, name: str, *keys: str) -> list[int]:
    """Read numbers that psutil does not tell from a process's file (Linux); none if it cannot."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8").splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith(keys)]
    return []


def _faults(pid: int) -> int:
    """Read how many page faults a process had (Linux), which psutil does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return int(fields[7]) + int(fields[9])
    return 0


def _shows_life(before: _Use, now: _Use) -> bool:
    """Whether a tree did something between two counts; a process that ended counts too."""
    if now.written != before.written or now.disk_bytes != before.disk_bytes:
        return True
    if now.cpu_s < before.cpu_s:
        return True
    # Turned round, so that a count that is no number (NaN) is life.
    return not now.cpu_s - before.cpu_s <= max(LEAST_CPU_S, WAITING_SHARE * (now.at - before.at))


def _shows_progress(before: _Use, now: _Use) -> bool:
    """Whether a tree did more than compute between two counts."""
    if _moves(before, now) or _shows_life(before, replace(now, cpu_s=before.cpu_s)):
        return True
    touched = abs(now.faults - before.faults)  # fewer where a process ended
    return touched > max(LEAST_FAULTS, FAULTS_PER_S * (now.at - before.at))


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
    """Return the free space for a folder; None where the folder is gone, NaN where nobody knows."""
    try:
        return psutil.disk_usage(str(folder)).free / MB
    except FileNotFoundError:
        return None
    except OSError:  # of a network file system
        return math.nan
