"""Memory for this process: that of its machine, or of the container or slice that it runs in."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from spikecanary import sentinel

#: Where Linux shows control groups, and those of this process.
CGROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
#: By the controller's name in OWN (none in version 2): its folder, the files of the limit and of
#: what is used, and how the sums of memory.stat begin.
FILES = {
    "": (".", "memory.max", "memory.current", ""),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}
#: The part of what is used that the kernel drops where memory is short: files.
DROPPED = ("inactive_file", "active_file")


def read() -> tuple[float, float]:
    """Return how much memory is available, and how much there is, in bytes.

    Only a limit counts under which all jobs of this run are: a batch system gives each job what it
    asks for.
    """
    node = psutil.virtual_memory()
    free, total = node.available, node.total
    if sentinel.RUN_IN not in os.environ or sentinel.is_job_of_scheduler():
        return free, total
    for folder, limit_name, used_name, prefix in _groups():
        with contextlib.suppress(OSError, ValueError, KeyError):  # "max", or no file at the root
            limit = int((folder / limit_name).read_text(encoding="ascii"))
            if limit < node.total:
                used = int((folder / used_name).read_text(encoding="ascii"))
                lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
                parts = dict(line.split() for line in lines)
                used -= sum(int(parts[prefix + name]) for name in DROPPED)
                free, total = min(free, limit - used), min(total, limit)
    return free, total


def _groups() -> Iterator[tuple[Path, str, str, str]]:
    """Yield the folders of the memory controller that this process is under, with their names."""
    with contextlib.suppress(OSError):
        for line in OWN.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in FILES.keys() & controllers.split(","):
                place, *names = FILES[controller]
                root = CGROUPS / place
                own = root / path.lstrip("/")  # in a container, only the root may be there
                for folder in (own, *own.parents):
                    if folder.is_relative_to(root):
                        yield folder, names[0], names[1], names[2]
