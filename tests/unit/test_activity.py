"""The scan for activity, on seeded recordings."""

import numpy as np

from spikecanary.config import SorterSettings
from spikecanary.failures import RecordingLayoutError, SorterParameterError
from spikecanary.sorter import SortTask, activity
from spikecanary.table import Recording

RATE_HZ = 30_000.0


def noise(duration_s=4.0, n_channels=4, scale=8.0):
    rng = np.random.default_rng(3)
    return rng.normal(0.0, scale, (int(duration_s * RATE_HZ), n_channels)).astype("float32")


def scan(tmp_path, traces, shortest_s=6.0, sorter="kilosort4"):
    path = tmp_path / "traces.raw"
    traces.astype("int16").tofile(path)
    options = {"sampling_frequency": RATE_HZ, "dtype": "int16", "num_channels": traces.shape[1]}
    row = Recording(id="x", paths=(str(path),), reader="binary", reader_options=options)
    task = SortTask(row=row, sorter=SorterSettings(name=sorter))
    return activity.scan(task, shortest_s)


def add_spikes(traces, start_s, end_s, rate_hz=50):
    rng = np.random.default_rng(4)
    for at in rng.uniform(start_s, end_s, int(rate_hz * (end_s - start_s))):
        traces[int(at * RATE_HZ) :][:20] -= (200.0 * np.hanning(20)[:, None]).astype("float32")


def test_scan_finds_where_the_activity_begins(tmp_path):
    traces = noise(120.0, 2)
    add_spikes(traces, 71.3, 73.8)
    found = scan(tmp_path, traces)
    assert 71.0 < found["start_s"] < 71.7
    assert found["peaks_per_s"] > 50
    assert not found["silent"]
    assert found["read_s"] <= 60


def test_scan_finds_bursts_of_two_seconds_among_silence(tmp_path):
    traces = noise(300.0, 2)
    for start_s in (35.0, 78.0, 121.0, 164.0, 207.0, 250.0):
        add_spikes(traces, start_s, start_s + 2.0)
    found = scan(tmp_path, traces)
    assert found["peaks_per_s"] > 50
    assert (found["start_s"] - 35.0 + 0.5) % 43.0 < 1.0


def test_scan_of_noise_sees_nothing(tmp_path):
    for n_channels in (4, 16):
        assert scan(tmp_path, noise(30.0, n_channels))["silent"]


def test_rare_spikes_are_silence_to_a_sorter_that_learns_from_a_batch_alone(tmp_path):
    traces = noise(120.0, 1)
    add_spikes(traces, 0.0, 119.0, rate_hz=0.3)
    assert scan(tmp_path, traces)["silent"]
    assert not scan(tmp_path, traces, sorter="mountainsort5")["silent"]
    for seconds in (3.0, 20.0):  # of which pieces overlap
        assert scan(tmp_path, noise(seconds, 1), 2.0, "mountainsort5")["silent"]


def test_positive_spikes_are_seen(tmp_path):
    traces = noise(60.0, 2)
    add_spikes(traces, 20.0, 40.0)
    for sorter in ("mountainsort5", "kilosort4"):
        assert not scan(tmp_path, -traces, sorter=sorter)["silent"]


def test_recording_that_is_flat_for_most_of_its_time_is_not_silent(tmp_path):
    traces = noise(120.0, 2)
    traces[: int(80 * RATE_HZ)] = 0.0
    add_spikes(traces, 80.0, 120.0)
    assert not scan(tmp_path, traces)["silent"]


def test_last_seconds_are_scanned(tmp_path):
    traces = noise(60.0, 2)
    add_spikes(traces, 50.0, 60.0)
    found = scan(tmp_path, traces, shortest_s=15.0, sorter="mountainsort5")
    assert not found["silent"]
    assert found["start_s"] <= 45.0


def test_scan_leaves_room_for_the_window(tmp_path):
    traces = noise(30.0, 2)
    add_spikes(traces, 28.0, 30.0)
    assert scan(tmp_path, traces, shortest_s=10.0)["start_s"] <= 20.0


FOUND = {"read_s": 46.0, "n_peaks": 3784, "noise": 50.0, "largest_group": 16}


def explain(name="kilosort4", dtype="int16", params=None, **found):
    row = Recording(id="x", paths=("x.raw",), reader="binary")
    task = SortTask(row=row, sorter=SorterSettings(name=name, params=params or {}))
    return activity.explain_missed(FOUND | found, task, {"dtype": dtype, "gain_to_uV": 1e6})


def test_samples_in_volts_are_not_silence():
    failure = explain(dtype="float32", noise=1e-5)
    assert isinstance(failure, RecordingLayoutError)
    assert "1e-05" in str(failure)
    assert "gain to uV: 1e+06" in str(failure)
    assert "preprocessing_of: {in_uV: {scale_to_uV: {}}} in the config" in failure.remedy
    assert failure.evidence["noise"] == 1e-5
    assert explain(dtype="float32", noise=1e-5, params={"scale": 1e6}) is None
    assert explain(dtype="int16", noise=0.0) is None


def test_tetrodes_are_not_silence():
    failure = explain(largest_group=4)
    assert isinstance(failure, SorterParameterError)
    assert "3,784 peaks" in str(failure)
    assert "{nblocks: 0}} in the config" in failure.remedy
    assert "nblocks" not in explain(largest_group=4, params={"nblocks": 0}).remedy
    assert explain(name="mountainsort5", largest_group=4) is None
    assert explain() is None
