"""The signal map, on seeded recordings."""

import numpy as np
import pytest
from spikeinterface.core import NumpyRecording, get_noise_levels
from spikeinterface.generation import generate_ground_truth_recording

from spikecanary import signals
from spikecanary.config import AnalysisSettings
from spikecanary.failures import (
    InsufficientActivityError,
    NonFiniteSignalError,
    PreprocessingError,
    SaturatedSignalError,
)
from spikecanary.outputs import analysis
from spikecanary.sentinel import BadPeriod

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
    seen = report(traces)
    assert (seen.flat, seen.railed, seen.non_finite) == (["1"], ["2"], [])
    assert seen.failure() is None
    assert seen.warnings() == [
        "1 of 4 channels are flat: 1 (column bad_channels leaves them out)",
        "1 of 4 channels are at the converter's limits: 2 (column bad_channels leaves them out)",
    ]


@pytest.mark.parametrize("kind", ["flat", "railed", "mixed"])
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
    seen = report(noise(), gain=[1.0, 1.0, np.nan, 1.0])
    assert seen.noise_uV is seen.rows[0].noise_uV is None
    (said,) = seen.warnings()
    assert said.startswith("gains of channels are NaN or infinite")


def test_data_tell_silence_nan_and_saturation_apart():
    silence = InsufficientActivityError("none")
    assert signals.tell_apart(silence, report(noise()).model_dump()) is silence
    spoilt = noise()
    spoilt[::100] = np.nan
    told = signals.tell_apart(silence, report(spoilt).model_dump())
    assert isinstance(told, NonFiniteSignalError)
    assert "on 4 of 4 channels" in str(told)
    dead = signals.tell_apart(silence, report(np.zeros_like(spoilt)).model_dump())
    assert isinstance(dead, SaturatedSignalError)
    assert signals.tell_apart(None, report(noise()).model_dump()) is None
    # A text says NaN of data that were seen to be finite.
    said = NonFiniteSignalError("the signal holds NaN")
    assert signals.tell_apart(said, report(noise()).model_dump()) is None


@pytest.mark.parametrize(("first", "count"), [(0, None), (100_000, 1000), (5, 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_sample_that_is_not_finite_is_found_anywhere(first, count, value):
    traces = noise()
    traces[first : None if count is None else first + count, 3] = value
    seen = report(traces)
    failure = seen.failure()
    assert isinstance(failure, NonFiniteSignalError)
    assert failure.evidence == {
        "n_samples": len(traces) if count is None else count,
        "channels": ["3"],
        "first_s": first / RATE_HZ,
    }
    assert f"the first at {first / RATE_HZ:.3f} s" in str(failure)
    assert seen.non_finite == ["3"]


def test_whole_reading_can_be_switched_off():
    traces = noise(60.0)
    traces[int(1.5 * RATE_HZ), 0] = np.nan  # between two pieces
    recording = NumpyRecording([traces], RATE_HZ)
    assert signals.check(recording).non_finite_samples == 1
    assert signals.check(recording, whole=False).non_finite_samples == 0


def dead(traces):
    traces[:] = 0


def railed(traces):
    traces[:] = np.where(traces > 0, 32767, -32768)


def stuck(traces):
    traces[:] = 32767


def louder(traces):
    traces *= 10


@pytest.mark.parametrize(
    ("spoil", "what"), [(dead, "flat"), (railed, "railed"), (stuck, "railed"), (louder, "noisy")]
)
@pytest.mark.parametrize(
    ("duration_s", "start_s", "end_s"),
    [(8, 1, 8), (60, 20, 25), (40, 20, 40), (30, 0, 3), (20, 5, 6.2)],
)
def test_bad_period_is_named_with_its_place(spoil, what, duration_s, start_s, end_s):
    traces = noise(duration_s)
    spoil(traces[int(start_s * RATE_HZ) : int(end_s * RATE_HZ)])
    if what == "noisy" and end_s - start_s > 0.7 * duration_s:
        pytest.skip("what is usual is what is there for most of the time")
    seen = report(traces.astype("int16"))
    (period,) = seen.bad_periods
    assert period.what == what
    assert (period.start_s, period.end_s) == pytest.approx((start_s, end_s), abs=0.05)
    assert seen.failure() is None
    assert f"1 bad period: {period.start_s:.2f} to" in seen.warnings()[0]
    stopped = seen.failure(bad_periods_stop=True)
    assert isinstance(stopped, SaturatedSignalError) == (what != "noisy")
    bad = [row for row in seen.rows if row.flat == 4 or row.railed == 4]
    assert bool(bad) is (what != "noisy")


@pytest.mark.parametrize(
    ("cut", "shown"),
    [
        (((3.0, None),), ["4.00 to 5.00", "5.00 to 7.00", "3.250"]),
        (((0.0, 1.0), (3.0, 4.0), (8.0, 10.0)), ["3.00 to 4.00", "8.00 to 10.00", "0.250"]),
    ],
)
def test_times_are_shown_as_columns_count_them(cut, shown):
    flat = [BadPeriod(start_s=a, end_s=b, what="flat") for a, b in ((1.0, 2.0), (2.0, 4.0))]
    update = {"cut": cut, "bad_periods": flat, "non_finite_samples": 1, "first_non_finite_s": 0.25}
    seen = report(noise(0.5)).model_copy(update=update)
    told = seen.describe_bad_periods() + str(seen.failure())
    assert all(f"{each} s" in told for each in shown)
    assert told.count("counted as start_s, end_s and chunks are") == 2


def test_noise_of_less_than_a_count_is_not_judged():
    traces = np.round(noise(30.0, scale=0.5)).astype("int16")
    assert report(traces, gain=12.0).bad_periods == []


@pytest.mark.parametrize("begins", [True, False])
def test_amplifier_without_electrodes_is_quiet(begins):
    recording, _ = generate_ground_truth_recording(
        durations=[20.0], num_channels=4, num_units=6, sampling_frequency=RATE_HZ, seed=1
    )
    traces, unplugged = recording.get_traces(), noise(10.0, scale=0.3)
    if begins:
        traces[: len(unplugged)] = unplugged
    else:
        traces[-len(unplugged) :] = unplugged
    (period,) = report(np.round(traces * 5).astype("int16"), gain=0.2).bad_periods
    assert period.what == "quiet"
    assert period.start_s == pytest.approx(0.0 if begins else 10.0, abs=0.05)


def test_noise_is_measured_outside_of_bad_periods():
    traces = noise(8.0)
    traces[int(RATE_HZ) : int(5 * RATE_HZ)] = 0
    recording = NumpyRecording([traces], RATE_HZ)
    recording.set_channel_gains(0.5)
    recording.set_channel_offsets(0.0)
    bad = [BadPeriod(start_s=1.0, end_s=5.0, what="flat")]
    everywhere = get_noise_levels(recording.clone(), random_slices_kwargs={"seed": 0})
    assert everywhere.max() < 3.0
    analysis.note_noise(recording, bad, AnalysisSettings())
    for method in ("mad", "std"):
        assert get_noise_levels(recording, method=method) == pytest.approx(4.0, rel=0.05)


def test_bad_period_over_the_network_begins_and_ends_with_a_chunk():
    traces = noise(40.0)
    traces[int(20.2 * RATE_HZ) : int(30.7 * RATE_HZ)] = 0
    seen = signals.check(NumpyRecording([traces], RATE_HZ), remote=True)
    (period,) = [each for each in seen.bad_periods if each.what == "flat"]
    chunk_s = 500e3 / (4 * traces.itemsize * RATE_HZ)
    assert period.start_s == pytest.approx(20.2, abs=chunk_s)
    assert period.end_s == pytest.approx(30.7, abs=2 * chunk_s)


def test_channel_that_dies_is_named():
    traces = noise(60.0)
    traces[int(30 * RATE_HZ) :, 2] = 0
    seen = report(traces)
    assert seen.warnings() == ["1 of 4 channels carry no signal for a part of the recording: 2"]
    assert seen.bad_periods == []


def test_map_covers_the_recording_in_few_rows():
    seen = report(noise(90.0))
    assert len(seen.rows) == 60
    assert (seen.rows[0].start_s, seen.rows[-1].end_s) == (0.0, pytest.approx(90.0))
    assert all(row.noise_uV == pytest.approx(8.0, rel=0.1) for row in seen.rows)
    assert [before.end_s for before in seen.rows[:-1]] == [row.start_s for row in seen.rows[1:]]


def test_silenced_periods_are_zero_and_nothing_else_is():
    recording = NumpyRecording([noise(10.0)], RATE_HZ)
    periods = [signals.BadPeriod(start_s=2.0, end_s=3.0, what="railed")]
    silent = signals.silence(recording, periods)
    assert not silent.get_traces(start_frame=60_000, end_frame=90_000).any()
    kept = {"start_frame": 90_000, "end_frame": 120_000}
    np.testing.assert_array_equal(silent.get_traces(**kept), recording.get_traces(**kept))
    part = signals.silence(recording.frame_slice(75_000, 150_000), periods, start_s=2.5)
    assert not part.get_traces(end_frame=15_000).any()
    assert part.get_traces(start_frame=15_000).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("kinds", [(dead, stuck), (stuck, dead)])
def test_bad_periods_that_touch_can_be_silenced(kinds):
    traces = noise(20.0)
    for number, spoil in enumerate(kinds):
        spoil(traces[int((5 + 4.2 * number) * RATE_HZ) : int((9.2 + 4.2 * number) * RATE_HZ)])
    recording = NumpyRecording([traces.astype("int16")], RATE_HZ)
    periods = signals.check(recording).bad_periods
    assert {period.what for period in periods} == {"flat", "railed"}
    silent = signals.silence(recording, periods)
    assert not silent.get_traces(
        start_frame=int(5.1 * RATE_HZ), end_frame=int(13.3 * RATE_HZ)
    ).any()


@pytest.mark.parametrize("first", [12, 8, 4])
def test_channels_that_die_are_named_and_no_bad_period(first):
    traces = noise(20.0, 16)
    traces[len(traces) // 2 :, first:] = 0.0
    seen = report(traces)
    assert seen.bad_periods == []
    assert seen.partly == [str(number) for number in range(first, 16)]


def test_a_short_signal_before_zeros_is_one():
    traces = noise(60.0)
    traces[len(traces) // 12 :] = 0.0
    seen = report(traces)
    assert seen.failure() is None
    assert [(p.what, round(p.start_s)) for p in seen.bad_periods] == [("flat", 5)]
    assert isinstance(report(np.zeros_like(traces)).failure(), SaturatedSignalError)


def test_unsigned_samples_are_not_silenced():
    recording = NumpyRecording([(noise() + 32768).astype("uint16")], RATE_HZ)
    periods = [signals.BadPeriod(start_s=2.0, end_s=3.0, what="flat")]
    with pytest.raises(PreprocessingError, match="zeros are no silence"):
        signals.silence(recording, periods)
