"""What benchmarks share: seeded recordings, commands that are timed, two sides in turn."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording, BaseSorting

ROOT = Path(__file__).resolve().parents[1]
RATE_HZ = 30_000.0


def write_recording(
    folder: Path, minutes: float, n_channels: int, seed: int, fault: str = ""
) -> "BaseSorting":
    """Write a seeded recording, about one unit for two channels; return its ground truth."""
    from spikeinterface.core import set_global_job_kwargs
    from spikeinterface.generation import generate_ground_truth_recording

    set_global_job_kwargs(progress_bar=False)
    recording, truth = generate_ground_truth_recording(
        durations=[60.0 * minutes],
        sampling_frequency=RATE_HZ,
        num_channels=n_channels,
        num_units=n_channels // 2,
        seed=seed,
    )
    if fault:
        recording = break_it(recording, fault)
    recording.save(folder=folder, dtype="float32" if fault == "nan" else "int16")
    return truth


def break_it(recording: "BaseRecording", fault: str) -> "BaseRecording":
    """Return the recording with a fault."""
    from spikeinterface.core import NumpyRecording

    traces, rng = recording.get_traces(), np.random.default_rng(5)
    if fault == "silent":
        traces = rng.normal(0.0, 5.0, traces.shape)
    elif fault == "flat":
        traces = np.zeros(traces.shape)
    elif fault == "railed":
        traces = np.where(rng.random(traces.shape) > 0.5, 32767, -32768)
    elif fault == "nan":
        traces[:: int(RATE_HZ)] = np.nan
    elif fault == "half_dead":
        traces[:, traces.shape[1] // 2 :] = 0.0
    broken = NumpyRecording(traces.astype("float32"), RATE_HZ)
    broken.set_probegroup(recording.get_probegroup())
    broken.set_channel_gains(1.0)
    broken.set_channel_offsets(0.0)
    return broken


def run(
    command: list[str], folder: Path, *, env: dict[str, str] | None = None, may_fail: bool = False
) -> tuple[float, float]:
    """Run a command in a folder; return its wall time in s and its peak memory in MB."""
    said = folder / "output.txt"
    with said.open("a") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output)
        _, process.returncode, usage = os.wait4(process.pid, 0)
        took_s = time.perf_counter() - started
    if process.returncode and not may_fail:
        sys.exit(f"{' '.join(command[:3])} failed in {folder}:\n{said.read_text()[-3000:]}")
    return took_s, usage.ru_maxrss / 1000


def snakemake(
    folder: Path, *arguments: str, env: dict[str, str] | None = None, may_fail: bool = False
) -> tuple[float, float]:
    """Run snakemake as :func:`run` does."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    return run(command, folder, env=env, may_fail=may_fail)


def compare(what: str, sides: dict[str, Callable[[], tuple[float, float]]], pairs: int) -> float:
    """Run two sides in turn; print and return the median of the first's time over the second's."""
    ratios = []
    for pair in range(pairs):
        order = list(sides)[:: -1 if pair % 2 else 1]
        took = {name: sides[name]() for name in order}
        first_s, second_s = (took[name][0] for name in sides)
        ratios.append(first_s / second_s)
        told = ", ".join(f"{name} {took[name][0]:.1f} s {took[name][1]:.0f} MB" for name in sides)
        print(f"{what}: {told}, ratio {ratios[-1]:.3f}", flush=True)
    print(f"{what}: median ratio {statistics.median(ratios):.3f}")
    return statistics.median(ratios)
