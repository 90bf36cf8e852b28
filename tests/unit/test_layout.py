"""The layout check: healthy files are never stopped, wrong declarations are found."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import butter, lfilter
from spikeinterface.generation import generate_ground_truth_recording

from spikecanary.failures import RecordingLayoutError
from spikecanary.recording import layout
from spikecanary.recording.layout import Layout
from spikecanary.table import Recording

RATE_HZ = 30_000.0


@functools.cache
def spikes(n_channels=16, seed=0):
    """Return 10 s of generated traces in counts of 0.195 uV, int16."""
    recording, _ = generate_ground_truth_recording(
        durations=[10.0],
        sampling_frequency=RATE_HZ,
        num_channels=n_channels,
        num_units=max(3, n_channels // 3),
        seed=seed,
    )
    return np.round(recording.get_traces() / 0.195).astype("int16")


@pytest.fixture(scope="module")
def traces():
    return spikes()


def slow(traces):
    seconds = np.arange(len(traces))[:, None] / RATE_HZ
    rng = np.random.default_rng(1)
    drift = np.cumsum(rng.normal(0.0, 0.5, (len(traces), 1)), axis=0)
    return (traces + 1000 * np.sin(2 * np.pi * 50 * seconds) + drift).astype("int16")


def common(traces):
    noise = np.random.default_rng(1).normal(0.0, 200.0, (len(traces), 1))
    return (traces + noise).astype("int16")


def muscle(traces):
    """Add one signal of 300 to 1500 Hz to all channels, as muscles near a bundle of wires do."""
    noise = np.random.default_rng(1).normal(size=(len(traces), 1))
    b, a = butter(2, [300, 1500], btype="band", fs=RATE_HZ)
    shared = lfilter(b, a, noise, axis=0)
    return np.round(traces + 200 * shared / shared.std()).astype("int16")


def dead(traces):
    return np.where(np.arange(traces.shape[1]) % 3 == 0, 0, traces).astype("int16")


def half_railed(traces):
    spoilt = traces.copy()
    spoilt[len(traces) // 2 :] = 32767
    return spoilt


@pytest.mark.parametrize("n_channels", [2, 8])
def test_slow_signal_of_all_channels_is_no_other_layout(tmp_path, n_channels):
    path = write(tmp_path / "x.raw", muscle(spikes(n_channels, seed=1)))
    assert layout.find_better(path, Layout("<i2", n_channels), RATE_HZ) is None


HEALTHY = {
    "int16": lambda x: x,
    "uint16": lambda x: (x.astype(int) + 32768).astype("uint16"),
    "int32": lambda x: x.astype("int32"),
    "float32": lambda x: (x * 0.195).astype("float32"),
    "volts": lambda x: x * 0.195e-6,
    "inverted": lambda x: -x,
    "offset": lambda x: x + 2048,
    "low gain": lambda x: np.round(x / 25).astype("int16"),
    "slow signals": slow,
    "common noise": common,
    "dead channels": dead,
    "half railed": half_railed,
    "silent": np.zeros_like,
    "noise": lambda x: np.random.default_rng(2).normal(0, 50, x.shape).astype("int16"),
    "gaps of NaN": lambda x: np.where(np.arange(len(x))[:, None] % 999, x, np.nan).astype("f4"),
}


def write(path, traces, order="C", header=b""):
    path.write_bytes(header + np.asarray(traces, order="C").tobytes(order))
    return str(path)


@pytest.mark.medium
@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_file_is_never_stopped(tmp_path, traces, kind):
    made = HEALTHY[kind](traces)
    path = write(tmp_path / "x.raw", made)
    assert layout.find_better(path, Layout(made.dtype.str, 16), RATE_HZ) is None


@pytest.mark.medium
@pytest.mark.parametrize("n_channels", [1, 2, 64])
def test_number_of_channels_of_a_healthy_file(tmp_path, n_channels):
    path = write(tmp_path / "x.raw", spikes(n_channels, seed=n_channels))
    assert layout.find_better(path, Layout("<i2", n_channels), RATE_HZ) is None


def test_real_files_are_never_stopped(data):
    for path in sorted(data.glob("locust/*.raw")):
        assert layout.find_better(str(path), Layout("<i2", 4), 15_000.0) is None
    (path,) = data.glob("sglx_np2/*/*.ap.bin")
    assert layout.find_better(str(path), Layout("<i2", 385), RATE_HZ) is None


MADE = [
    ("int16", 16),
    *(pytest.param(kind, 16, marks=pytest.mark.medium) for kind in ("uint16", "int32", "float32")),
    pytest.param("slow signals", 16, marks=pytest.mark.medium),
    *(pytest.param("slow signals", n_channels, marks=pytest.mark.slow) for n_channels in (4, 64)),
]


@pytest.mark.parametrize(("kind", "n_channels"), MADE)
@pytest.mark.parametrize(
    "wrong",
    [
        {"dtype": "<i2"},
        {"dtype": "<u2"},
        {"dtype": ">i2"},
        {"dtype": "<f4"},
        {"dtype": "<i4"},
        {"num_channels": 0.5},
        {"num_channels": 2},
        {"time_axis": 1},
        {"file_offset": 1},
    ],
    ids=str,
)
def test_wrong_declaration_is_found(tmp_path, kind, wrong, n_channels):
    made = HEALTHY[kind](spikes(n_channels, seed=n_channels))
    right = Layout(made.dtype.str, n_channels)
    if "num_channels" in wrong:
        wrong = {"num_channels": int(wrong["num_channels"] * n_channels)}
    declared = replace(right, **wrong)
    if declared == right:
        pytest.skip("not wrong")
    path = write(tmp_path / "x.raw", made)
    found = layout.find_better(path, declared, RATE_HZ)
    assert found is not None
    better, bits, its = found
    same = (better.num_channels, better.time_axis) == (n_channels, 0)
    if "file_offset" not in wrong:
        assert same
        assert np.dtype(better.dtype) == np.dtype(right.dtype)
    assert bits < its


@pytest.mark.parametrize("right", [">f8", "<i8", ">i8"])
def test_types_of_eight_bytes_are_found(tmp_path, right):
    made = spikes(4)[:60_000] * (0.195 if right == ">f8" else 1)
    path = write(tmp_path / "x.raw", made.astype(right))
    assert layout.find_better(path, Layout(right, 4), RATE_HZ) is None
    for wrong in ("<i2", "<i4", "<f8"):
        better, _, _ = layout.find_better(path, Layout(wrong, 4), RATE_HZ)
        assert better == Layout(right, 4), wrong


@pytest.mark.parametrize("kind", ["random bytes", "float16"])
def test_what_is_no_signal_is_not_read_well_in_another_way(tmp_path, traces, kind):
    made = np.random.default_rng(0).integers(0, 256, 2_000_000, "uint8")
    made = (traces * 0.195).astype("float16") if kind == "float16" else made
    path = write(tmp_path / "x.raw", made)
    assert layout.find_better(path, Layout("<i2", 16), RATE_HZ) is None


@pytest.mark.parametrize("more", [-1, 3])
def test_forgotten_channels_are_found(tmp_path, traces, more):
    path = write(tmp_path / "x.raw", traces)
    better, _, _ = layout.find_better(path, Layout("<i2", 16 + more), RATE_HZ)
    assert better.num_channels == 16


def test_stored_by_channel_is_found(tmp_path, traces):
    path = write(tmp_path / "x.raw", traces, order="F")
    better, _, _ = layout.find_better(path, Layout("<i2", 16), RATE_HZ)
    assert better == Layout("<i2", 16, time_axis=1)


@pytest.mark.parametrize("n_bytes", [1, 1001])
def test_header_of_odd_length_is_found(tmp_path, traces, n_bytes):
    path = write(tmp_path / "x.raw", traces, header=(bytes(range(256)) * 4)[:n_bytes])
    better, _, _ = layout.find_better(path, Layout("<i2", 16), RATE_HZ)
    assert better.file_offset % 2 == 1
    assert better.dtype == "<i2"


def row(path, **options):
    given = {"sampling_frequency": RATE_HZ, "dtype": "int16", "num_channels": 16} | options
    return Recording(id="x", paths=(path,), reader="binary", reader_options=given)


def test_failure_names_the_declaration_that_fits(tmp_path, traces):
    path = write(tmp_path / "x.raw", traces)
    assert layout.check(row(path), RATE_HZ) == []
    with pytest.raises(RecordingLayoutError) as caught:
        layout.check(row(path, dtype="uint16"), RATE_HZ)
    error = caught.value
    assert error.category == "environment"
    assert (
        error.remedy
        == "Set dtype 'int16' (not 'uint16') in reader_options of the recordings table."
    )
    assert error.evidence["score_declared"] > error.evidence["score_fits"]
    assert "'num_channels': 16" in error.evidence["fits"]


def test_size_that_is_no_whole_number_of_samples_is_a_warning(tmp_path):
    noise = np.random.default_rng(2).normal(0, 50, (30_000, 16)).astype("int16")
    path = write(tmp_path / "x.raw", noise, header=b"0123456789")
    (warning,) = layout.check(row(path), RATE_HZ)
    assert "10 bytes are left over (frames of 32)" in warning


def test_other_readers_are_believed():
    of_nwb = Recording(id="x", paths=("/no/such.nwb",), reader="nwb")
    assert layout.check(of_nwb, RATE_HZ) == []


def filtered(traces):
    return lfilter(*butter(3, [0.02, 0.2], "band"), traces, axis=0)


def stimulated(traces):
    spoilt, phase = traces.astype(int), np.arange(len(traces)) % 3000
    spoilt[phase < 30] += 20_000
    spoilt[(phase >= 30) & (phase < 60)] -= 20_000
    return np.clip(spoilt, -32768, 32767)


def with_trigger(traces):
    trigger = (np.arange(len(traces)) % 300 < 30) * 5000
    return np.column_stack([traces, trigger])


def artefact_at_the_start(traces):
    spoilt = traces.copy()
    spoilt[:20] = np.random.default_rng(1).integers(-32768, 32767, (20, traces.shape[1]))
    return spoilt


def tetrode_offsets(traces):
    """Return four channels with offsets of their own."""
    return traces[:, :4] + np.array([150, -400, 3000, 20])


def blanked(traces):
    return np.where(np.arange(len(traces))[:, None] % 1500 < 600, 0, traces)


def decaying(traces):
    """Return stimulation at 20 Hz, which decays on all channels alike."""
    phase = np.arange(len(traces))[:, None] % 1500
    return np.clip(traces + (phase < 45) * 20_000 * np.exp(-phase / 10), -32768, 32767)


def plugged_for_a_second(traces):
    return np.where(np.arange(len(traces))[:, None] < 30_000, traces, 0)


def tone(traces, rate_hz=8000, amplitude=400):
    samples = np.arange(len(traces))[:, None]
    return traces + amplitude * np.cos(2 * np.pi * samples * rate_hz / RATE_HZ + 0.3)


def open_inputs(traces):
    """Return the first quarter of the channels, beside inputs whose hum is clipped."""
    n_samples, n_channels = traces.shape
    phases = np.random.default_rng(3).uniform(0, 0.3, n_channels)
    hum = 50_000 * np.sin(2 * np.pi * 50 * np.arange(n_samples)[:, None] / RATE_HZ + phases)
    is_open = np.arange(n_channels) >= n_channels // 4
    return np.clip(np.where(is_open, hum, traces), -32768, 32767)


ODD = {
    "a tone of 8 kHz": tone,
    "a tone of 10 kHz": lambda x: tone(x, 10_000),
    "a loud tone of 12 kHz": lambda x: tone(x, 12_000, 10_000),
    "a tone of half the rate": lambda x: tone(x, 15_000, 1000),
    "open inputs": open_inputs,
    "tetrode with offsets": tetrode_offsets,
    "every second dead": lambda x: np.where(np.arange(x.shape[1]) % 2, 0, x),
    "all dead but the first": lambda x: np.where(np.arange(x.shape[1]), 0, x),
    "every second at an offset": lambda x: np.where(np.arange(x.shape[1]) % 2, 1000, x),
    "the same on two": lambda x: np.repeat(x[:, ::2], 2, axis=1),
    "blanked": blanked,
    "decaying": decaying,
    "plugged for a second": plugged_for_a_second,
    "held": lambda x: np.repeat(x[::2], 2, axis=0),
    "less than a count": lambda x: np.round(x / 170),
    "twelve bits of sixteen": lambda x: x // 4 * 16,
    "filtered": filtered,
    "stimulated": stimulated,
    "one-sample pulses": lambda x: x * 0.3 + 20_000 * (np.arange(len(x)) % 3000 == 0)[:, None],
    "with a trigger": with_trigger,
    "artefact": artefact_at_the_start,
    "clipped": lambda x: np.clip(x.astype(int) * 8, -2048, 2047),
    "referenced": lambda x: x - np.median(x, axis=1, keepdims=True),
    "the same on all": lambda x: np.repeat(x[:, :1], x.shape[1], axis=1),
}


@pytest.mark.medium
@pytest.mark.parametrize("kind", ODD)
def test_odd_but_healthy_file_is_never_stopped(tmp_path, kind):
    made = np.asarray(ODD[kind](spikes(4, seed=5)), dtype="int16")
    path = write(tmp_path / "x.raw", made)
    assert layout.find_better(path, Layout("<i2", made.shape[1]), RATE_HZ) is None


FLOATS = {
    "an offset": lambda x: x * 0.195 + 400,
    "offsets": lambda x: x * 0.195 + np.linspace(-3000, 3000, x.shape[1]),
    "hum": lambda x: x * 0.195 + 500 * np.sin(np.arange(len(x))[:, None] * 2 * np.pi / 600),
    "nothing": lambda x: np.full(x.shape, np.nan),
}


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("n_channels", [4, 16])
def test_floating_point_numbers_of_a_healthy_file(tmp_path, n_channels, kind):
    made = FLOATS[kind](spikes(n_channels, seed=5)).astype("float32")
    path = write(tmp_path / "x.raw", made)
    assert layout.find_better(path, Layout("<f4", n_channels), RATE_HZ) is None


@pytest.mark.parametrize(
    "declared",
    [Layout("<i4", 16), Layout("<f4", 16), Layout("<u2", 64), Layout("<i2", 96), Layout("<i2", 44)],
    ids=str,
)
def test_two_mistakes_and_odd_numbers_of_channels(tmp_path, declared):
    path = write(tmp_path / "x.raw", spikes(32, seed=1))
    better, _, _ = layout.find_better(path, declared, RATE_HZ)
    assert better == Layout("<i2", 32)


def test_numbers_of_one_byte(tmp_path, traces):
    made = np.clip(traces // 10 + 128, 0, 255).astype("uint8")
    path = write(tmp_path / "x.raw", made)
    assert layout.find_better(path, Layout("|u1", 16), RATE_HZ) is None
    for declared in (Layout("<i2", 8), Layout("<u2", 16)):
        better, _, _ = layout.find_better(path, declared, RATE_HZ)
        assert better == Layout("|u1", 16), declared


@pytest.mark.parametrize("n_channels", [1, 2])
def test_filtered_file_of_few_channels_is_never_stopped(tmp_path, n_channels):
    made = filtered(spikes(4, seed=5)[:, :n_channels]).astype("int16")
    path = write(tmp_path / "x.raw", made)
    assert layout.find_better(path, Layout("<i2", n_channels), RATE_HZ) is None


@pytest.mark.parametrize("scale", [1.0, 0.195])
def test_float64_of_float32_is_believed_and_found(tmp_path, traces, scale):
    path = write(tmp_path / "x.raw", (traces * np.float32(scale)).astype("float64"))
    assert layout.find_better(path, Layout("<f8", 16), RATE_HZ) is None
    better, _, _ = layout.find_better(path, Layout("<f4", 16), RATE_HZ)
    assert better == Layout("<f8", 16)


def test_float64_of_channels_that_are_constant_but_one(tmp_path, traces):
    made = np.where(np.arange(16) < 15, 1000, traces) * 0.195e-6
    path = write(tmp_path / "x.raw", made)
    assert layout.find_better(path, Layout("<f8", 16), RATE_HZ) is None


@pytest.mark.parametrize("n_bytes", [2, 4, 6])
@pytest.mark.parametrize("kind", ["the third is dead", "the first is beside the last"])
def test_copy_that_is_cut_within_a_sample_is_not_stopped(tmp_path, kind, n_bytes):
    made = spikes(8, seed=31)
    made = made[:, [0, 2, 4, 6, 7, 5, 3, 1]] if "beside" in kind else made[:, :4] * [1, 1, 0, 1]
    path = write(tmp_path / "x.raw", made.astype("int16"))
    with (tmp_path / "x.raw").open("ab") as file:
        file.write(bytes(n_bytes))
    assert layout.find_better(path, Layout("<i2", made.shape[1]), RATE_HZ) is None


@pytest.mark.parametrize("kind", ["a header that is skipped", "a blank beginning"])
def test_copy_of_channels_in_any_order_that_is_cut_within_a_sample(tmp_path, kind):
    made = spikes(16, seed=3)[:, np.random.default_rng(3).permutation(16)].copy()
    header = bytes(range(256)) * 4 * ("header" in kind)
    if not header:
        made[:1000] = 0
    path = tmp_path / "x.raw"
    for cut in (1, 7, 12):
        path.write_bytes(header + made.tobytes()[: -2 * cut])
        declared = Layout("<i2", 16, file_offset=len(header))
        assert layout.find_better(str(path), declared, RATE_HZ) is None


@pytest.mark.parametrize(("n_channels", "declared"), [(8, 16), (32, 2), (64, 1)])
def test_numbers_of_channels_that_are_far_off(tmp_path, n_channels, declared):
    smooth = lfilter(*butter(1, 2000, fs=RATE_HZ), spikes(n_channels, seed=1), axis=0)
    path = write(tmp_path / "x.raw", np.round(smooth * 3).astype("int16"))
    better, _, _ = layout.find_better(path, Layout("<i2", declared), RATE_HZ)
    assert better == Layout("<i2", n_channels)


@pytest.mark.parametrize("n_channels", [5, 8])
def test_counter_that_is_forgotten_is_found(tmp_path, n_channels):
    rng = np.random.default_rng(n_channels)
    made = spikes(n_channels, seed=2)[:, rng.permutation(n_channels)]
    counter = (np.arange(len(made)) % 30_000).astype("int16")
    path = write(tmp_path / "x.raw", np.column_stack([made, counter]))
    better, _, _ = layout.find_better(path, Layout("<i2", n_channels), RATE_HZ)
    assert better == Layout("<i2", n_channels + 1)


def test_floating_point_numbers_with_hum_that_are_read_as_integers(tmp_path):
    path = write(tmp_path / "x.raw", FLOATS["hum"](spikes(16, seed=5)).astype("float32"))
    better, _, _ = layout.find_better(path, Layout("<i2", 16), RATE_HZ)
    assert better == Layout("<f4", 16)


@pytest.mark.parametrize(("n_channels", "n_bytes"), [(16, 12), (16, 70), (32, 100)])
def test_header_that_shifts_the_channels_is_found(tmp_path, n_channels, n_bytes):
    path = write(tmp_path / "x.raw", spikes(n_channels, seed=1), header=bytes(n_bytes))
    better, _, _ = layout.find_better(path, Layout("<i2", n_channels), RATE_HZ)
    assert better == Layout("<i2", n_channels, file_offset=n_bytes % (2 * n_channels))


def clock(traces, period=4, high=2):
    """Return channels beside one that repeats exactly."""
    return np.column_stack([traces, (np.arange(len(traces)) % period < high) * 1000]).astype("i2")


@pytest.mark.parametrize(
    ("n_channels", "period", "high"),
    [(8, 2, 1), (8, 6, 3), (8, 8, 1), (32, 4, 2), (1, 30, 15)],
)
def test_clock_beside_electrodes_is_no_other_layout(tmp_path, n_channels, period, high):
    made = clock(spikes(n_channels, seed=n_channels), period, high)
    path = write(tmp_path / "x.raw", made)
    assert layout.find_better(path, Layout("<i2", n_channels + 1), RATE_HZ) is None


def test_clock_beside_noise_is_no_other_layout(tmp_path):
    noise = np.random.default_rng(2).normal(0, 20, (120_000, 4))
    # Not in step with the samples, it leaves something without its tones.
    path = write(tmp_path / "x.raw", clock(noise, 4.001))
    assert layout.find_better(path, Layout("<i2", 5), RATE_HZ) is None


@pytest.mark.parametrize("wrong", [{"num_channels": 9}, {"dtype": ">i2"}, {"file_offset": 1}])
def test_wrong_declaration_beside_a_clock_is_found(tmp_path, wrong):
    path = write(tmp_path / "x.raw", clock(spikes(35, seed=35)))
    better, _, _ = layout.find_better(path, replace(Layout("<i2", 36), **wrong), RATE_HZ)
    assert (better.dtype, better.num_channels) == ("<i2", 36)
