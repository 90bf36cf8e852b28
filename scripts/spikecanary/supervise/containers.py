"""Docker containers that work for a sort: they are no descendants of the process that asks.

SpikeInterface has the Docker daemon run them, with the work folder mounted. So their
processes are sampled too, and they are removed when the sort is ended.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

PROC = Path("/proc")


def processes_of(folder: Path) -> tuple[list[psutil.Process], bool]:
    """Return the processes of this host in a work folder's containers, and whether some are unseen.

    Docker Desktop, and a daemon elsewhere, number those of a machine of their own.
    """
    found, unseen = [], False
    for container in _containers(folder):
        with contextlib.suppress(Exception):  # it may end at any time
            table = container.top()
            column = table["Titles"].index("PID")
            for pid in [int(line[column]) for line in table["Processes"]]:
                try:
                    is_here = container.id in (PROC / str(pid) / "cgroup").read_text()
                except OSError:
                    is_here = False
                unseen |= not is_here
                with contextlib.suppress(psutil.Error):
                    found += [psutil.Process(pid)] if is_here else []
    return found, unseen


def remove(folder: Path) -> None:
    """Kill and remove the containers of a work folder."""
    for container in _containers(folder, all=True):
        with contextlib.suppress(Exception):  # another may be quicker
            container.remove(force=True)


def _containers(folder: Path, **which: bool) -> Iterator[Any]:
    """Yield the containers that mount a folder or something in it; running ones only."""
    folder = folder.resolve()  # as it is mounted
    with contextlib.suppress(Exception):  # no client, no daemon, or it went away
        import docker

        with contextlib.closing(docker.from_env(timeout=10)) as client:
            for container in client.containers.list(ignore_removed=True, **which):
                mounts = (mount.get("Source", "") for mount in container.attrs.get("Mounts", []))
                if any(Path(source).is_relative_to(folder) for source in mounts if source):
                    yield container
