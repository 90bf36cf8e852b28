"""NVIDIA GPUs of this node, by NVML: their free memory, and those that a sort uses."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MB = 1e6


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
    """Return the initialized NVML, once a process; None without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _devices(nvml: Any) -> list[Any]:
    count = _ask(nvml.nvmlDeviceGetCount) if nvml else 0
    found = [_ask(nvml.nvmlDeviceGetHandleByIndex, index) for index in range(count or 0)]
    return [] if None in found else found  # a lost GPU is the sorter's to report


def count() -> int:
    """Return how many GPUs NVIDIA's driver reports."""
    return len(_devices(_nvml()))


def memories() -> list[Any]:
    """Return the memory (``free`` and ``total``, in bytes) of each GPU that tells it."""
    nvml = _nvml()
    found = [_ask(nvml.nvmlDeviceGetMemoryInfo, device) for device in _devices(nvml)]
    return [each for each in found if each and each.total > 0 and each.free >= 0]


def _ask(question: Callable[..., Any], *about: Any) -> Any:
    """Return what NVML answers; None where a GPU does not tell."""
    import pynvml

    try:
        return question(*about)
    except pynvml.NVMLError:
        return None


def used_by(pids: set[int]) -> tuple[Gpu, ...]:
    """Return the GPUs on which processes compute."""
    nvml = _nvml()
    found = []
    for index, device in enumerate(_devices(nvml)):
        running = _ask(nvml.nvmlDeviceGetComputeRunningProcesses, device) or ()
        if own := [process for process in running if process.pid in pids]:
            found.append(_describe(nvml, index, device, own))
    return tuple(found)


def _describe(nvml: Any, index: int, device: Any, own: list[Any]) -> Gpu:
    name = _ask(nvml.nvmlDeviceGetName, device) or "?"
    memory = _ask(nvml.nvmlDeviceGetMemoryInfo, device)
    use = _ask(nvml.nvmlDeviceGetUtilizationRates, device)
    return Gpu(
        name=f"GPU {index} ({name.decode() if isinstance(name, bytes) else name})",
        used_mb=memory.used / MB if memory else 0.0,
        total_mb=memory.total / MB if memory else 0.0,
        tree_mb=sum(process.usedGpuMemory or 0 for process in own) / MB,
        temperature_c=_ask(nvml.nvmlDeviceGetTemperature, device, nvml.NVML_TEMPERATURE_GPU),
        busy=use is not None and use.gpu > 0,
    )
