"""The signal check and the activity scan, on seeded recordings."""

from dataclasses import asdict

import numpy as np
import pytest
from spikeinterface.core import NumpyRecording

from spikecanary import signals
from spikecanary.failures import (
    InsufficientActivityError,
    NonFiniteSignalError,
    SaturatedSignalError,
)
from spikecanary.table import Recording

RATE_HZ = 30_000.0


def noise(duration_s=4.0, n_channels=4, scale=8.0):
    rng = np.random.default_rng(3)
    return rng.normal(0.0, scale, (int(duration_s * RATE_HZ), n_channels)).astype("float32")


def report(traces, gain=1.0):
    recording = NumpyRecording([traces], RATE_HZ)
    if gain is not None:
        recording.set_channel_gains(gain)
        recording.set_channel_offsets(0.0)
    return signals.check(recording)


def test_good_signal_is_not_remarked_on():
    seen = report(noise())
    assert seen.noise_uV == pytest.approx(8.0, rel=0.05)
    assert (seen.flat, seen.railed, seen.non_finite) == ([], [], [])
    assert seen.failure() is None
    assert seen.warnings() == []


def test_some_bad_channels_are_a_warning_that_names_them():
    traces = noise()
    traces[:, 1] = 5.0
    traces[:, 2] = np.where(traces[:, 2] > 0, 2047.0, -2048.0)
    traces[::5000, 3] = np.nan
    seen = report(traces)
    assert (seen.flat, seen.railed, seen.non_finite) == (["1"], ["2"], ["3"])
    assert seen.failure() is None
    assert seen.warnings() == [
        "1 of 4 channels have samples that are not finite: 3",
        "1 of 4 channels are flat: 1",
        "1 of 4 channels are at the converter's limits: 2",
    ]


@pytest.mark.parametrize("kind", ["flat", "railed", "mixed", "nan"])
def test_no_channel_with_a_signal(kind):
    traces = noise()
    if kind in ("flat", "mixed"):
        traces[:, :2] = 0.0
    if kind == "flat":
        traces[:, 2:] = 7.0
    if kind in ("railed", "mixed"):
        traces[:, 2:] = np.where(traces[:, 2:] > 0, 32767.0, -32768.0)
    if kind == "railed":
        traces[:, :2] = np.where(traces[:, :2] > 0, 32767.0, -32768.0)
    if kind == "nan":
        traces[:] = np.nan
    failure = report(traces).failure()
    assert isinstance(failure, SaturatedSignalError)
    assert failure.evidence == {"n_channels": 4}


@pytest.mark.parametrize(("gain", "warned"), [(1e-3, True), (1.0, False), (1e3, True)])
def test_implausible_gain_is_a_warning(gain, warned):
    said = report(noise(), gain=gain).warnings()
    assert bool(said) is warned
    assert all("is the gain right?" in line for line in said)


def test_unknown_gain_is_no_noise_level():
    assert report(noise(), gain=None).noise_uV is None


def test_data_tell_silence_nan_and_saturation_apart():
    silence = InsufficientActivityError("none")
    assert signals.tell_apart(silence, asdict(report(noise()))) is silence
    spoilt = noise()
    spoilt[::100] = np.nan
    told = signals.tell_apart(silence, asdict(report(spoilt)))
    assert isinstance(told, NonFiniteSignalError)
    assert "on 4 of 4 channels" in str(told)
    dead = signals.tell_apart(silence, asdict(report(np.zeros_like(spoilt))))
    assert isinstance(dead, SaturatedSignalError)
    assert signals.tell_apart(None, asdict(report(noise()))) is None


def scan(tmp_path, traces, shortest_s=6.0):
    path = tmp_path / "traces.raw"
    traces.astype("int16").tofile(path)
    options = {"sampling_frequency": RATE_HZ, "dtype": "int16", "num_channels": traces.shape[1]}
    row = Recording(id="x", paths=(str(path),), reader="binary", reader_options=options)
    return signals.scan(row.model_dump(mode="json"), 2.0, shortest_s)


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
    assert scan(tmp_path, noise(60.0, 4))["silent"]
    assert scan(tmp_path, noise(30.0, 40))["silent"]


def test_scan_leaves_room_for_the_window(tmp_path):
    traces = noise(30.0, 2)
    add_spikes(traces, 28.0, 30.0)
    assert scan(tmp_path, traces, shortest_s=10.0)["start_s"] <= 20.0
