"""Reading is lazy: a canary reads about its window, not the recording."""

import json
import os
import subprocess

import numcodecs
import numpy as np
import pytest
from spikeinterface.core import NumpyRecording

from bucket import BUCKET, SERIES, Bucket, write_nwb
from spikecanary.signals import MOST_BYTES

pytestmark = pytest.mark.slow
WINDOW_S = 30.0
N_CHANNELS = 64
RATE_HZ = 30_000.0
SIZE_GB = 4
REMOTE_S = 200


def cached_mb(path):
    """Megabytes of a file that are in the page cache: what was read, and read ahead."""
    done = subprocess.run(
        ["fincore", "--bytes", "--noheadings", "--output", "RES", str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout) / 1e6


def make_second():
    second = np.random.default_rng(0).normal(0.0, 10.0, (int(RATE_HZ), N_CHANNELS)).astype("int16")
    second[::1000] -= 200
    return second


def test_canary_reads_about_its_window(project):
    path = project.folder / "large.raw"
    second = make_second()
    size_s = SIZE_GB * 10**9 // second.nbytes
    with path.open("wb") as file:  # sparse: the window, and 5 s of each minute
        for number in range(size_s):
            if number < WINDOW_S or number % 60 < 5:
                file.seek(number * second.nbytes)
                file.write(second.tobytes())
        file.truncate(size_s * second.nbytes)
        file.flush()
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
    # Besides the window: the pieces of the signal map, and where its bad periods begin and end.
    assert window_mb * 0.9 < read_mb < window_mb + 1.2 * MOST_BYTES / 1e6


@pytest.fixture
def bucket(monkeypatch):
    bucket = Bucket()
    for variable, value in bucket.environment().items():
        monkeypatch.setenv(variable, value)
    yield bucket
    bucket.close()


@pytest.mark.parametrize(
    ("name", "mode", "stored"),
    [
        ("x.zarr", None, {}),
        ("x.nwb", "remfile", {}),
        ("x.nwb", "remfile", {"chunks": (40_000, N_CHANNELS)}),
        ("x.nwb", "fsspec", {}),
    ],
)
def test_canary_fetches_about_its_window(project, bucket, name, mode, stored):
    """The recording has 770 MB, not compressed."""
    traces = np.tile(make_second(), (REMOTE_S, 1))
    path = project.folder / name
    row = {"path": f"s3://{BUCKET}/{name}", "reader": "zarr", "reader_options": ""}
    if mode is None:
        recording = NumpyRecording([traces], RATE_HZ)
        compressor = numcodecs.Blosc(clevel=0)
        recording.save(format="zarr", folder=path, compressor=compressor, progress_bar=False)
        bucket.put(path, name)
    else:
        write_nwb(path, traces, RATE_HZ, **stored)
        bucket.files[f"/{BUCKET}/{name}"] = path
        options = json.dumps({"stream_mode": mode, "electrical_series_path": SERIES})
        row = {"path": f"{bucket.url}/{BUCKET}/{name}", "reader": "nwb", "reader_options": options}
    project.add("far", **row)
    project.config["canary"] = {"window_s": WINDOW_S}
    bucket.sent = 0
    run = project.run("results/far/canary.json")
    assert run.returncode == 0, run.output
    assert project.sentinel("far")["outcome"] == "passed"
    wanted_mb = (WINDOW_S * RATE_HZ * N_CHANNELS * 2 + MOST_BYTES) / 1e6
    sent_mb = bucket.sent / 1e6
    print(f"{name} {mode} {stored}: window and pieces {wanted_mb:.0f} MB, sent {sent_mb:.0f} MB")
    assert sent_mb <= 1.5 * wanted_mb
