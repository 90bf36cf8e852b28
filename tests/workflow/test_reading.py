"""Reading is lazy: a canary reads about its window, not the recording."""

import os
import subprocess

import pytest

WINDOW_S = 30.0
N_CHANNELS = 64
RATE_HZ = 30_000.0
SIZE_GB = 4


def cached_mb(path):
    """Megabytes of a file that are in the page cache: what was read, and read ahead."""
    done = subprocess.run(
        ["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout) / 1e6


def test_canary_reads_about_its_window(project):
    path = project.folder / "large.raw"
    with path.open("wb") as file:
        file.truncate(SIZE_GB * 10**9)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_mb(path) > 1:
        pytest.fail("the page cache does not let go of the file")
    options = f'{{"sampling_frequency": {RATE_HZ}, "dtype": "int16", "num_channels": {N_CHANNELS}}}'
    project.add("large", path=str(path), reader_options=options)
    project.config["canary"] = {"window_s": WINDOW_S}
    run = project.run("results/large/canary.json")
    assert run.returncode == 0, run.output
    assert project.sentinel("large")["windows"][0]["end_s"] == WINDOW_S
    window_mb = WINDOW_S * RATE_HZ * N_CHANNELS * 2 / 1e6
    read_mb = cached_mb(path)
    print(f"window {window_mb:.0f} MB, recording {SIZE_GB * 1000} MB, read {read_mb:.0f} MB")
    assert window_mb * 0.9 < read_mb < window_mb * 1.5
