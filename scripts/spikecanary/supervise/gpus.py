"""NVIDIA GPUs of this node, by NVML: their free memory, and those that a sort uses."""

import contextlib
import functools
from dataclasses import dataclass
from typing import Any

MB = 1e6


@dataclass(frozen=True)
class Gpu:
    """One GPU that a sort uses.

    ``tree_mb`` is the sort's own part of its memory; ``busy``: it computed in the last second.
    """

    name: str
    used_mb: float
    total_mb: float
    tree_mb: float
    temperature_c: float | None
    busy: bool = False


@functools.cache
def _nvml() -> Any:
    """Return the initialized NVML, once a process; None without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _devices(nvml: Any) -> list[Any]:
    try:
        return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []


def free_mb() -> list[float]:
    """Return the free memory of each GPU that tells it, in MB."""
    return [memory.free / MB for memory in _memories()]


def total_mb() -> list[float]:
    """Return the memory of each GPU that tells it, in MB."""
    return [memory.total / MB for memory in _memories()]


def _memories() -> list[Any]:
    nvml, found = _nvml(), []
    for device in _devices(nvml) if nvml else ():
        with contextlib.suppress(nvml.NVMLError):  # of a GPU that shares the host's memory
            found.append(nvml.nvmlDeviceGetMemoryInfo(device))
    return [memory for memory in found if memory.total > 0 and memory.free >= 0]


def used_by(pids: set[int]) -> tuple[Gpu, ...]:
    """Return the GPUs on which processes compute."""
    nvml = _nvml()
    if nvml is None:
        return ()
    found = []
    for index, device in enumerate(_devices(nvml)):
        with contextlib.suppress(nvml.NVMLError):  # a lost GPU is the sorter's to report
            running = nvml.nvmlDeviceGetComputeRunningProcesses(device)
            own = [process for process in running if process.pid in pids]
            if own:
                found.append(_describe(nvml, index, device, own))
    return tuple(found)


def _describe(nvml: Any, index: int, device: Any, own: list[Any]) -> Gpu:
    name = nvml.nvmlDeviceGetName(device)
    used_mb = total_mb = 0.0
    with contextlib.suppress(nvml.NVMLError):
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
        used_mb, total_mb = memory.used / MB, memory.total / MB
    temperature_c = None
    with contextlib.suppress(nvml.NVMLError):
        temperature_c = float(nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU))
    busy = False
    with contextlib.suppress(nvml.NVMLError):
        busy = nvml.nvmlDeviceGetUtilizationRates(device).gpu > 0
    return Gpu(
        busy=busy,
        name=f"GPU {index} ({name.decode() if isinstance(name, bytes) else name})",
        used_mb=used_mb,
        total_mb=total_mb,
        tree_mb=sum(process.usedGpuMemory or 0 for process in own) / MB,
        temperature_c=temperature_c,
    )
