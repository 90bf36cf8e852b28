"""NVIDIA GPUs of this node, by NVML: their memory, those that a sort uses, and their leases."""

import functools
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from spikecanary.supervise import processes

logger = logging.getLogger(__name__)

MB = 1e6
#: Names the GPUs that CUDA shows to a process; a scheduler sets it, and a lease.
VISIBLE = "CUDA_VISIBLE_DEVICES"
#: A GPU with a smaller share of the largest one's memory is for the screen, and sorts nothing.
SMALL = 0.5
#: Locks of leased GPUs, for all users of this node.
LEASES = Path(tempfile.gettempdir()) / "spikecanary-gpus"
#: The leases of this process, which end when it does.
_leased = ExitStack()


@dataclass(frozen=True)
class Gpu:
    """One GPU that a sort uses."""

    name: str
    used_mb: float
    total_mb: float
    tree_mb: float  # the sort's own part of its memory
    temperature_c: float | None
    busy: bool = False  # it computed in the last second


@functools.cache
def _nvml() -> Any:
    """Return the initialized NVML, once a process; None without a driver, or NVIDIA's package."""
    try:
        import pynvml
    except ImportError:  # with --sdm conda the jobs have it, and snakemake may do without
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _ask(question: str, *about: Any) -> Any:
    """Return what NVML answers; None without a driver, or where a GPU does not tell."""
    nvml = _nvml()
    try:
        return getattr(nvml, question)(*about) if nvml else None
    except nvml.NVMLError:
        return None


def _memory(device: Any) -> Any:
    """Return a GPU's memory, ``free``, ``used`` and ``total``, in bytes; 0 where it tells none."""
    memory = _ask("nvmlDeviceGetMemoryInfo", device)
    return memory or SimpleNamespace(free=0, used=0, total=0)


def _uuid(device: Any) -> str:
    return _ask("nvmlDeviceGetUUID", device) or ""


def _devices() -> list[Any]:
    """Return the GPUs that the driver reports, without those that it has lost."""
    numbers = range(_ask("nvmlDeviceGetCount") or 0)
    found = [_ask("nvmlDeviceGetHandleByIndex", number) for number in numbers]
    return [each for each in found if each is not None]


def _visible() -> list[Any]:
    """Return the GPUs that CUDA shows to this process, by the variable's rules.

    Without the variable, those are left out that are much smaller than another.
    """
    devices = _devices()
    if VISIBLE not in os.environ:
        least = SMALL * max((_memory(each).total for each in devices), default=0)
        return [each for each in devices if not 0 < _memory(each).total < least]
    found = []
    for name in _names():
        if name.isdecimal():
            named = devices[int(name) : int(name) + 1]
        elif name.startswith("MIG-"):
            named = [_ask("nvmlDeviceGetHandleByUUID", name)]
        else:
            named = [each for each in devices if name and _uuid(each).startswith(name)]
        if not named or named[0] is None:
            break  # CUDA does not read on either
        found.append(named[0])
    return found


def _names() -> list[str]:
    """Return what the variable names."""
    return [name.strip() for name in os.environ.get(VISIBLE, "").split(",")]


def _is_numbered_otherwise() -> bool:
    """Whether the variable's numbers may be of other GPUs than NVML's, which go by the PCI bus.

    CUDA counts the fastest first, where no variable says otherwise.
    """
    is_alike = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or not _names()[0].isdecimal()
    kinds = () if is_alike else {_ask("nvmlDeviceGetName", each) for each in _devices()}
    return len(kinds) > 1


def count() -> int:
    """Return how many GPUs there are for this process."""
    return len(_visible())


def driver_version() -> str | None:
    """Return the version of NVIDIA's driver; None without one."""
    version: str | None = _ask("nvmlSystemGetDriverVersion")
    return version


def memories() -> list[Any]:
    """Return the memory (``free`` and ``total``, in bytes) of each GPU that tells it.

    Of all, where it is not known which are meant.
    """
    devices = _devices() if _is_numbered_otherwise() else _visible()
    found = map(_memory, devices)
    return [each for each in found if each.total > 0 and each.free >= 0]


def lease(wanted: int, device: str) -> None:
    """Wait for GPUs that no other job of this node leases; from now on CUDA shows only these.

    The emptiest are taken first. A lease ends with this process, however it ends. What a scheduler
    gave is taken as it is (and locked, for other runs), and so is a device that was chosen by
    number (``cuda:1``). Nothing is leased where the driver reports no GPU, or none by its UUID.
    Numbers that only CUDA can tell are leased as they are.
    """
    visible = _visible() if wanted and ":" not in device else []
    free = {_uuid(each): _memory(each).free for each in visible}
    if _is_numbered_otherwise():
        free = dict.fromkeys(_names()[: len(visible)], 0)
    free.pop("", None)
    if not free:
        return
    emptiest = sorted(free, key=lambda uuid: -free[uuid])
    is_logged = False
    try:
        if VISIBLE in os.environ and len(free) <= wanted:
            _lock(emptiest, len(free))
            return
        while not (mine := _lock(emptiest, min(wanted, len(free)))):
            if not is_logged:
                logger.info("waiting for a GPU: other jobs use all %d", len(free))
            is_logged = True
            processes.check_starter()
            time.sleep(1.0)
    except OSError as err:
        logger.warning("no GPU is leased, %s cannot be used: %s", LEASES, err)
        return
    os.environ[VISIBLE] = ",".join(mine)
    logger.info("this job uses %s", os.environ[VISIBLE])


def _lock(uuids: Sequence[str], wanted: int) -> list[str]:
    """Lock so many GPUs for the rest of this process, or none; return which."""
    from filelock import FileLock, Timeout

    if not LEASES.is_dir():
        LEASES.mkdir(exist_ok=True)
        LEASES.chmod(0o777)
    mine: list[str] = []
    with ExitStack() as locks:
        for uuid in uuids:
            with suppress(Timeout):
                locks.enter_context(FileLock(LEASES / f"{uuid}.lock", timeout=0, mode=0o666))
                mine.append(uuid)
            if len(mine) == wanted:
                _leased.enter_context(locks.pop_all())
                return mine
    return []


def used_by(pids: set[int]) -> tuple[Gpu, ...]:
    """Return the GPUs on which processes compute."""
    found = []
    for index, device in enumerate(_devices()):
        running = _ask("nvmlDeviceGetComputeRunningProcesses", device) or ()
        own = [process for process in running if process.pid in pids]
        if not own:
            continue
        memory, use = _memory(device), _ask("nvmlDeviceGetUtilizationRates", device)
        gpu = Gpu(
            name=f"GPU {index} ({_ask('nvmlDeviceGetName', device) or '?'})",
            used_mb=memory.used / MB,
            total_mb=memory.total / MB,
            tree_mb=sum(process.usedGpuMemory or 0 for process in own) / MB,
            temperature_c=_ask("nvmlDeviceGetTemperature", device, _nvml().NVML_TEMPERATURE_GPU),
            busy=use is not None and use.gpu > 0,
        )
        found.append(gpu)
    return tuple(found)
