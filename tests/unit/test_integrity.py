"""Whether a recording is whole: sizes against headers, clocks, parts, streams."""

import os
import shutil
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries
from spikeinterface.core import (
    NumpyRecording,
    create_sorting_analyzer,
    generate_ground_truth_recording,
    load,
)

from spikecanary import discover, plan, signals
from spikecanary.config import Config
from spikecanary.failures import (
    DependencyError,
    RecordingLayoutError,
    RecordingUnreadableError,
)
from spikecanary.recording import clock, formats, integrity, open_recording
from spikecanary.table import Recording
from workbench import write_open_ephys, write_spikeglx

RATE_HZ = 30_000.0
N = 4


def traces(seconds=2.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 50.0, (int(seconds * RATE_HZ), N)).astype("int16")


def save(path, samples=None, *, gain=0.195, ids=None, times=None, depths=None, **options):
    rate_hz = options.pop("rate_hz", RATE_HZ)
    recording = NumpyRecording([traces() if samples is None else samples], rate_hz, channel_ids=ids)
    if depths:
        recording.set_dummy_probe_from_locations(np.array([(0.0, depth) for depth in depths]))
    recording.set_channel_gains(gain)
    recording.set_channel_offsets(0.0)
    if times is not None:
        recording.set_times(times, segment_index=0)
    recording.save(folder=path, verbose=False, progress_bar=False, **options)
    return str(path)


def saved(*paths, **fields):
    return Recording(id="x", paths=paths, reader="spikeinterface", **fields)


def refusal(row, failure=RecordingUnreadableError, **thorough):
    with pytest.raises(failure) as caught:
        open_recording(row, **thorough)
    assert caught.value.category == "environment"
    return f"{caught.value} {caught.value.remedy}"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"gain": 0.39}, "gains in uV per count (0.195 and 0.39)"),
        ({"depths": [9, 8, 7, 6]}, "positions of channels in um (none and [0. 9.])"),
        ({"rate_hz": 30_000.02}, "sampling rates in Hz (30000.0 and 30000.02)"),
        ({"ids": ["a", "b", "c", "d"]}, "channels (0 and a)"),
        ({"samples": traces()[:, :3]}, "differ: numbers of channels (4 and 3)"),
        ({"samples": traces().astype("float32")}, "types of samples (int16 and float32)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_parts_of_other_set_ups_are_refused_with_both_named(tmp_path, other, words):
    first, second = save(tmp_path / "one"), save(tmp_path / "two", **other)
    text = refusal(saved(first, second))
    assert words in text
    assert first in text
    assert second in text


def test_parts_with_the_same_positions_in_another_order(tmp_path):
    first = save(tmp_path / "one", depths=[0, 20, 40, 60])
    text = refusal(saved(first, save(tmp_path / "two", depths=[0, 40, 20, 60])))
    assert "positions of channels in um ([ 0. 20.] and [ 0. 40.])" in text


def test_small_difference_of_the_rate_can_be_allowed(tmp_path):
    paths = save(tmp_path / "one"), save(tmp_path / "two", rate_hz=30_000.02)
    assert "sampling_frequency_max_diff" in refusal(saved(*paths))
    allowed = saved(*paths, reader_options={"sampling_frequency_max_diff": 0.05})
    assert open_recording(allowed).get_num_samples() == 120_000
    nearer = paths[0], save(tmp_path / "three", rate_hz=30_000.001)
    assert "sampling rates in Hz (30000.0 and 30000.001)" in refusal(saved(*nearer))


def test_parts_may_differ_in_channels_that_are_left_out(tmp_path):
    paths = [
        save(tmp_path / "one", ids=["a", "b", "c", "aux"], gain=[1.0, 1.0, 1.0, 0.5]),
        save(tmp_path / "two", traces(1.0)[:, :3], ids=["a", "b", "c"], gain=1.0),
    ]
    assert "numbers of channels" in refusal(saved(*paths))
    assert open_recording(saved(*paths, channels="a-c")).get_num_samples() == 90_000


def test_gains_that_were_rounded_are_the_same(tmp_path):
    row = saved(save(tmp_path / "one"), save(tmp_path / "two", gain=0.195 * 1.000_005))
    assert open_recording(row).get_num_samples() == 120_000


def test_parts_of_one_set_up_are_concatenated(tmp_path):
    row = saved(save(tmp_path / "one"), save(tmp_path / "two", traces(1.0)))
    notes = []
    assert open_recording(row, notes, thorough=True).get_num_samples() == 90_000
    assert notes == []


def spikeglx(folder, announced=None):
    """Write a SpikeGLX run of 1 s."""
    write_spikeglx(folder / "run_g0_imec0", duration_s=1.0, announced=announced)
    return str(folder)


def of_spikeglx(path, stream="imec0.ap"):
    return Recording(id="x", paths=(path,), reader="spikeglx", stream_id=stream)


def test_spikeglx_file_that_is_not_whole(tmp_path):
    assert open_recording(of_spikeglx(spikeglx(tmp_path / "whole"))).get_num_samples() == 30_000
    text = refusal(of_spikeglx(spikeglx(tmp_path / "part", announced=900_000)))
    assert "300,000 of 900,000 bytes are there (33% of what should be there)" in text
    assert "is the copy finished?" in text
    notes = []
    open_recording(of_spikeglx(spikeglx(tmp_path / "more", announced=150_000)), notes)
    assert "more than the 150,000 of its header" in notes[0]


def test_synchronisation_stream_is_refused_with_the_streams_there(tmp_path):
    path = spikeglx(tmp_path / "run")
    text = refusal(of_spikeglx(path, "imec0.ap-SYNC"), RecordingLayoutError)
    assert "holds no electrodes" in text
    assert "there are imec0.ap" in text


@pytest.mark.parametrize(("kinds", "is_read"), [("4,0,0,1", True), ("0,0,4,1", False)])
def test_electrodes_on_an_ni_daq(tmp_path, kinds, is_read):
    samples = traces(1.0)
    np.column_stack([samples, samples[:, :1]]).tofile(tmp_path / "w_g0_t0.nidq.bin")
    lines = {
        "fileName": "w_g0_t0.nidq.bin",
        "typeThis": "nidq",
        "nSavedChans": 5,
        "snsMnMaXaDw": kinds,
        "acqMnMaXaDw": kinds,
    }
    lines |= {"fileSizeBytes": 300_000, "fileTimeSecs": 1.0, "niSampRate": 30_000}
    lines |= {"niAiRangeMax": 5, "niAiRangeMin": -5, "niMNGain": 200, "niMAGain": 1}
    names = [*(f"MN0C{n};{n}" for n in range(4)), "XD0;4"]
    names = names if is_read else [*(f"XA{n};{n}" for n in range(4)), "XD0;4"]
    lines |= {"snsSaveChanSubset": "all", "fileCreateTime": "2024-01-01T00:00:00"}
    lines |= {"~snsChanMap": f"({kinds})" + "".join(f"({x}:{n})" for n, x in enumerate(names))}
    header = "".join(f"{name}={value}\n" for name, value in lines.items())
    (tmp_path / "w_g0_t0.nidq.meta").write_text(header)
    row = of_spikeglx(str(tmp_path), "nidq")
    if is_read:
        assert open_recording(row).get_num_samples() == len(samples)
    else:
        assert "holds no electrodes" in refusal(row, RecordingLayoutError)


def test_link_to_a_file_that_is_not_read_stops_nothing(tmp_path):
    path = spikeglx(tmp_path)
    other = tmp_path / "run_g0_imec1"
    other.mkdir()
    (other / "run_g0_t0.imec1.ap.bin").symlink_to("gone")
    assert notes_of(of_spikeglx(path))[0] == ""


def test_gaps_that_neo_refuses_are_told_with_the_option(tmp_path):
    """Its own advice is behind a table of the gaps."""
    kinds = [("reserved", "u1"), ("timestamps", "<u8"), ("num_data_points", "<u4"), ("x", "<i2", 4)]
    packets = np.zeros(60_000, kinds)
    packets["reserved"], packets["num_data_points"] = 1, 1
    packets["timestamps"] = np.arange(60_000) * 33_333 + 10**9
    for at in range(1, 60):
        packets["timestamps"][at * 1000 :] += 10**9
    head = b"BRSMPGRP" + bytes([3, 0]) + np.array([314 + 66 * 4], "<u4").tobytes()
    head += b"raw".ljust(16, b"\0") + bytes(256) + np.array([1, 10**9], "<u4").tobytes()
    head += np.array([2024, 1, 1, 1, 12, 0, 0, 0], "<u2").tobytes() + np.array([4], "<u4").tobytes()
    for number in range(1, 5):
        head += b"CC" + np.array([number], "<u2").tobytes() + b"chan".ljust(16, b"\0") + bytes(2)
        head += np.array([-8191, 8191, -8191, 8191], "<i2").tobytes() + b"uV".ljust(16, b"\0")
        head += bytes(20)
    path = tmp_path / "a.ns6"
    path.write_bytes(head + packets.tobytes())
    row = Recording(id="x", paths=(str(path),), reader="blackrock")
    remedy = 'Write reader_options: {"gap_tolerance_ms": 1} in its row.'
    assert remedy in refusal(row)
    (found,) = discover.inspect(formats.Recognised(str(path), "blackrock"), "none")
    assert remedy in found.reason
    row = row.model_copy(update={"reader_options": {"gap_tolerance_ms": 1}})
    assert open_recording(row).get_num_samples() == 60_000


def test_what_readers_leave_out_is_said(tmp_path):
    row = open_ephys(tmp_path / "ephys", 1.0)
    folder = next((tmp_path / "ephys").rglob("recording1"))
    shutil.copytree(folder, folder.with_name("recording2"))
    (folder.with_name("recording2") / "structure.oebin").unlink()
    assert "recording2 has no structure.oebin, and is left out" in notes_of(row)[0]
    for name, n_bytes in (("CSC1.ncs", 16_384), ("CSC2.ncs", 0), ("CSC3.ncs", 17_428)):
        (tmp_path / name).write_bytes(bytes(n_bytes))
    (note,) = integrity.describe_left_out(str(tmp_path), "neuralynx")
    assert note.startswith("channels without samples are left out: CSC1.ncs, CSC2.ncs in")


def test_field_potential_is_refused(tmp_path):
    text = refusal(saved(save(tmp_path / "lf", rate_hz=2500.0)), RecordingLayoutError)
    assert "sampled at 2500 Hz" in text


def open_ephys(folder, *durations_s, **options):
    """Write an Open Ephys folder with one recording a part."""
    board = {"Acquisition_Board-100.Rhythm_Data": (["CH1", "CH2", "CH3", "CH4"], RATE_HZ)}
    node = folder / "Record Node 101"
    for number, duration_s in enumerate(durations_s, start=1):
        recording = node / f"experiment1/recording{number}"
        write_open_ephys(recording, board, duration_s=duration_s, **options)
    return Recording(id="x", paths=(str(node),), reader="openephysbinary", stream_id="0")


def test_open_ephys_lost_samples_are_named_with_their_place(tmp_path):
    notes = []
    open_recording(open_ephys(tmp_path / "good", 2.0), notes, thorough=True)
    assert notes == []
    open_recording(open_ephys(tmp_path / "lost", 2.0, jump=6000), notes, thorough=True)
    assert "has 1 gap, and" in notes[0]
    assert "6000 samples after 1.000 s (sample 30000)" in notes[0]


def test_open_ephys_empty_part_is_left_out_and_a_short_one_refused(tmp_path):
    notes = []
    empty = open_ephys(tmp_path / "empty", 2.0, 0.0)
    assert open_recording(empty, notes).get_num_samples() == 60_000
    assert "segment 1 of" in notes[0]
    assert "has no samples" in notes[0]
    text = refusal(open_ephys(tmp_path / "short", 4.0, short=40_000))
    assert "80,000 of 120,000 samples are there (67%" in text


def test_recording_without_samples_is_refused(tmp_path):
    assert "no samples" in refusal(open_ephys(tmp_path / "none", 0.0))


@pytest.mark.parametrize("reader", ["spikeinterface", "binaryfolder"])
def test_binary_folder_that_ends_within_a_sample(tmp_path, reader):
    row = Recording(id="x", paths=(save(tmp_path / "saved"),), reader=reader)
    raw = tmp_path / "saved/traces_cached_seg0.raw"
    n_bytes = raw.stat().st_size
    assert open_recording(row).get_num_samples() == n_bytes // (2 * N)
    os.truncate(raw, n_bytes - 13)
    assert f"{n_bytes - 13:,} of {n_bytes - 8:,} bytes are there (nearly all" in refusal(row)


def test_traces_that_are_shorter_than_their_clock(tmp_path):
    path = save(tmp_path / "saved", times=TIMES)
    os.truncate(tmp_path / "saved/traces_cached_seg0.raw", 30_000 * 2 * N)
    assert "30,000 of 60,000 samples are there (50%" in refusal(saved(path))


def test_sorting_in_place_of_a_recording(tmp_path):
    recording, sorting = generate_ground_truth_recording(durations=[2.0], num_channels=4, seed=1)
    sorting.save(folder=tmp_path / "sorting")
    create_sorting_analyzer(sorting, recording, format="binary_folder", folder=tmp_path / "made")
    for name, what in (("sorting", "Sorting"), ("made", "SortingAnalyzer")):
        text = refusal(saved(str(tmp_path / name)))
        assert f"{name} holds a " in text
        assert f"{what}, which is no recording Name the recording" in text


def test_zarr_with_missing_chunks(tmp_path):
    path = save(tmp_path / "x.zarr", format="zarr", chunk_duration="0.5s")
    assert open_recording(saved(path)).get_num_samples() == 60_000
    chunk = tmp_path / "x.zarr/traces_seg0/2.0"
    unfinished = chunk.rename(chunk.with_name("2.0.4f2a.partial"))
    assert "3 of 4 chunks are there (75%" in refusal(saved(path))
    unfinished.unlink()
    assert "3 of 4 chunks are there (75%" in refusal(saved(path))
    timed = save(tmp_path / "t.zarr", format="zarr", chunk_duration="0.5s", times=TIMES)
    next((tmp_path / "t.zarr/times_seg0").glob("[0-9]*")).unlink()
    assert "times_seg0 is not whole" in refusal(saved(timed))


def test_gap_of_the_clock_is_named_and_samples_count(tmp_path):
    times = np.arange(60_000) / RATE_HZ
    times[45_000:] += 36_000
    path = save(tmp_path / "x", times=times)
    notes = []
    recording = open_recording(saved(path, start_s=1.0, end_s=2.0), notes, thorough=True)
    assert recording.get_num_samples() == 30_000
    assert "the clock has 1 gap, and" in notes[0]
    assert "36000 s after 1.500 s (sample 45000)" in notes[0]


def test_last_sample_is_read(tmp_path):
    path = save(tmp_path / "x.zarr", format="zarr", chunk_duration="0.5s")
    last = tmp_path / "x.zarr/traces_seg0/3.0"
    last.write_bytes(last.read_bytes()[:100])
    open_recording(saved(path))
    text = refusal(saved(path), notes=[], thorough=True)
    assert "sample 59,999 of 60,000" in text


def test_file_dated_in_the_future_is_a_note(tmp_path):
    path = tmp_path / "x.raw"
    traces().tofile(path)
    options = {"sampling_frequency": RATE_HZ, "dtype": "int16", "num_channels": N}
    row = Recording(id="x", paths=(str(path),), reader="binary", reader_options=options)
    notes = []
    open_recording(row, notes, thorough=True)
    assert notes == []
    os.utime(path, (time.time() + 86_400,) * 2)
    open_recording(row, notes, thorough=True)
    assert "is dated in the future" in notes[0]


def test_address_has_no_file_to_date():
    row = Recording(id="x", paths=("s3://bucket/x.zarr",), reader="zarr")
    assert list(integrity.describe_future(row)) == []


def test_reader_without_its_module_is_named(tmp_path):
    (tmp_path / "x.h5").touch()
    row = Recording(id="x", paths=(str(tmp_path / "x.h5"),), reader="mearec")
    assert "MEArec" in refusal(row, DependencyError)


def test_plan_of_a_table_in_which_every_row_is_broken(tmp_path):
    """Each is listed with its own problem, and none costs the others."""
    good = save(tmp_path / "good")
    (tmp_path / "x.h5").touch()
    (tmp_path / "probe.json").write_text("{}")
    shutil.copytree(good, tmp_path / "empty")
    (tmp_path / "empty/binary.json").write_text("[]")
    rows = {
        "missing": Recording(id="missing", paths=("/no/such",), reader="binary"),
        "gain": saved(good, save(tmp_path / "gain", gain=1.0)).model_copy(update={"id": "gain"}),
        "module": Recording(id="module", paths=(str(tmp_path / "x.h5"),), reader="mearec"),
        "probe": saved(good, probe=str(tmp_path / "probe.json")).model_copy(update={"id": "probe"}),
        "channels": saved(good, channels="CH9").model_copy(update={"id": "channels"}),
        "json": saved(str(tmp_path / "empty")).model_copy(update={"id": "json"}),
        "end": saved(good, end_s=9.0).model_copy(update={"id": "end"}),
        "short": of_spikeglx(spikeglx(tmp_path / "glx", announced=10**9)).model_copy(
            update={"id": "short"}
        ),
    }
    table = plan.make(Config(), list(rows.values()), tmp_path / "results", 1)
    problems = table.set_index("recording")["problems"]
    assert problems.index.tolist() == list(rows)
    for name, words in {
        "missing": "/no/such does not exist",
        "gain": "gains in uV per count (0.195 and 1.0)",
        "module": "MEArec",
        "probe": "the probe file",
        "channels": "no channel 'CH9'",
        "json": "cannot open",
        "end": "ends at 2.000 s",
        "short": "is not whole",
    }.items():
        assert words in problems[name]
    assert set(table["action"]) == {"canary"}


def notes_of(row):
    notes, parts = [], []
    open_recording(row, notes, thorough=True, parts=parts)
    return " ".join(notes), parts


TIMES = np.arange(60_000) / RATE_HZ


@pytest.mark.parametrize(
    ("times", "said", "at_1_s"),
    [
        (np.full(60_000, np.nan), "is not a number at some samples", 1.0),
        (np.where(TIMES < 1.5, TIMES, np.nan), "is not a number at some samples", 1.0),
        (
            np.where(TIMES == 1.0, np.nan, TIMES + 5 * (TIMES > 1.0)),  # for the time that is lost
            "is not a number at some samples",
            1.0,
        ),
        (np.full(60_000, -1.0), "the clock stands still", 0.0),
        (5 - TIMES, "the clock runs backwards. Times are counted", 6.0),
        (TIMES - 3 * (TIMES > 1.5), "1 gap, and the sort counts samples as if", 1.0),
        (TIMES * 1000, "goes on by 0.0333", 1.0),
        (TIMES * 1.5, "runs at 20000 Hz, its header says 30000", 1.5),
        (TIMES * 1.01, "runs at 29703 Hz, its header says 30000", 1.01),
        (np.minimum(TIMES, 1.2), "does not go on evenly: 23,999 of its steps", 1.0),
        (np.round(TIMES, 3), "does not go on evenly", 1.0),
        (TIMES * 1.00005, "", 1.00005),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_clocks_that_are_none(tmp_path, times, said, at_1_s):
    text, parts = notes_of(saved(save(tmp_path / "x", times=times)))
    assert said in text
    assert bool(text) == bool(said)
    assert len(parts[0].clock) <= integrity.MOST_KNOTS
    told = clock.times_s(np.array([30_000]), parts, RATE_HZ)
    assert told == pytest.approx([at_1_s], abs=0.003)


def test_times_that_jitter_make_no_record_of_megabytes(tmp_path):
    times = TIMES + np.random.default_rng(0).normal(0, 50e-6, len(TIMES))
    text, parts = notes_of(saved(save(tmp_path / "x", times=times)))
    assert "does not go on evenly" in text
    assert len(parts[0].model_dump_json()) < 100_000


def test_empty_segment_leaves_a_signal_map(tmp_path):
    recording = open_recording(open_ephys(tmp_path / "empty", 2.0, 0.0))
    assert signals.check(recording).failure() is None


@pytest.mark.parametrize(
    ("channels", "rate_hz", "gain", "said"),
    [
        ("1 2 3 4", 20_000, "0.195", "sampling rates in Hz (30000.0 and 20000)"),
        ("1 2 3", 30_000, "0.195", "numbers of channels (4 and 3)"),
        ("4 3 2 1", 30_000, "0.195", "channels (CH1 and CH4)"),
        ("1 2 3 4", 30_000, "1.95", "gains"),
    ],
)
def test_recordings_of_an_experiment_are_of_one_set_up(tmp_path, channels, rate_hz, gain, said):
    row = open_ephys(tmp_path, 1.0)
    names = [f"CH{number}" for number in channels.split()]
    second = tmp_path / "Record Node 101/experiment1/recording2"
    write_open_ephys(second, {"Acquisition_Board-100.Rhythm_Data": (names, rate_hz)})
    header = second / "structure.oebin"
    header.write_text(header.read_text().replace("0.195", gain))
    assert f"cannot be sorted together, since they differ: {said}" in refusal(row)


def test_spikeglx_part_of_which_only_the_header_is_there(tmp_path):
    path = spikeglx(tmp_path / "run")
    (meta,) = tmp_path.glob("run/*/*.meta")
    shutil.copy(meta, meta.with_name(meta.name.replace("_t0.", "_t1.")))
    assert "_t1.imec0.ap.bin is not whole: 0 of 300,000 bytes" in refusal(of_spikeglx(path))


def test_runs_that_were_added_to_the_folder_of_a_row(tmp_path):
    row = of_spikeglx(str(tmp_path))
    write_spikeglx(tmp_path, "r_g0_t0.imec0.ap", duration_s=1.0)
    write_spikeglx(tmp_path, "r_g0_t1.imec0.ap", duration_s=1.0)
    assert open_recording(row).get_num_samples() == 60_000  # triggers of one gate
    later = {"r_g1_t0.imec0.ap": "r_g0, r_g1", "r_g0_tcat.imec0.ap": "r_g0_tcat, r_g0"}
    for name, joined in later.items():
        write_spikeglx(tmp_path, name, duration_s=1.0)
        text = refusal(row, notes=[])
        assert open_recording(row)  # for the outputs of what was sorted
        assert f"holds several runs, which would be joined: {joined}" in text
        assert "write end_s 3.0." in text
        assert open_recording(row.model_copy(update={"end_s": 3.0}), []).get_num_samples() == 90_000
        last = row.model_copy(update={"start_s": 2.0})
        assert open_recording(last, []).get_num_samples() == 30_000
        for file in tmp_path.glob(f"{name}*"):
            file.unlink()


def test_spikeglx_file_of_another_number_of_channels(tmp_path):
    path = spikeglx(tmp_path / "run", announced=299_998)
    (file,) = tmp_path.glob("run/*/*.bin")
    file.write_bytes(file.read_bytes()[:-2])
    assert "299,998 of 300,000 bytes are there" in refusal(of_spikeglx(path))


def test_intan_files_have_a_number_for_each_time(tmp_path):
    opened = SimpleNamespace(stream_name="RHD2000 amplifier channel", get_num_channels=lambda: 4)
    (tmp_path / "time.dat").write_bytes(bytes(4 * 100))
    (tmp_path / "amplifier.dat").write_bytes(bytes(2 * 4 * 90))
    row = Recording(id="x", paths=(str(tmp_path / "info.rhd"),), reader="intan")
    with pytest.raises(RecordingUnreadableError, match="720 of 800 bytes are there"):
        integrity.check_complete(opened, row.paths[0], row, [])
    for name, n_samples in (("amp-A-000.dat", 100), ("amp-A-001.dat", 30)):
        (tmp_path / name).write_bytes(bytes(2 * n_samples))
    with pytest.raises(RecordingUnreadableError, match=r"amp-A-001.dat .* 60 of 200 bytes"):
        integrity.check_complete(opened, row.paths[0], row, [])


def test_nwb_timestamps_that_the_reader_leaves_out(tmp_path):
    times = TIMES.copy()
    times[45_000:] += 36_000
    text, _ = notes_of(write_nwb(tmp_path / "gap.nwb", times))
    assert "its list of timestamps has 1 gap, and" in text
    assert "36000 s after 1.500 s" in text
    parts = []
    path = str(tmp_path / "gap.nwb")
    row = Recording(id="x", paths=(path,), reader="nwb", channels="0-1")
    recording = open_recording(row, parts=parts)
    ends = np.array([0, recording.get_num_samples() - 1])
    assert clock.times_s(ends, parts, RATE_HZ) == pytest.approx(times[[0, -1]])
    for name, times in (("rounded", np.round(TIMES, 3)), ("ms", TIMES * 1000)):
        row = write_nwb(tmp_path / f"{name}.nwb", times)
        assert "its times are not in seconds" in refusal(row, RecordingLayoutError)


@pytest.mark.parametrize(
    ("times", "made_hz"),
    [
        (np.round(TIMES, 5), 33333.3),
        (np.round(TIMES, 6), 30303),
        ((TIMES + 64).astype("f4"), 32768),
    ],
)
def test_rate_that_the_reader_makes_of_rounded_times_is_refused(tmp_path, times, made_hz):
    with pytest.raises(RecordingUnreadableError) as caught:
        notes_of(write_nwb(tmp_path / "x.nwb", times))
    assert f"Hz, of which the reader makes {made_hz}: its times are rounded" in str(caught.value)
    assert "Write the rate into the file" in caught.value.remedy
    text, _ = notes_of(write_nwb(tmp_path / "unix.nwb", TIMES + 1.7e9))
    assert "of which the reader makes 299" in text


def test_electrodes_at_one_place_in_nwb_are_told_with_what_to_correct(tmp_path):
    row = write_nwb(tmp_path / "x.nwb", TIMES, rel_x=0.0, rel_y=0.0)
    assert "Correct rel_x and rel_y of the electrodes in the file" in refusal(row)


def write_nwb(path, times, **electrode):
    file = NWBFile("a", "b", datetime(2024, 1, 1, tzinfo=UTC))
    group = file.create_electrode_group("shank0", "", "", file.create_device("probe"))
    for _ in range(N):
        file.add_electrode(group=group, location="CA1", **electrode)
    region = file.create_electrode_table_region(list(range(N)), "all")
    series = {"data": traces(), "electrodes": region, "timestamps": times, "conversion": 1e-6}
    file.add_acquisition(ElectricalSeries(name="raw", **series))
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    return Recording(id="x", paths=(str(path),), reader="nwb")


def test_pauses_between_segments_and_order_of_files(tmp_path):
    row = open_ephys(tmp_path, 1.0, 1.0)
    for path in tmp_path.rglob("recording2/**/sample_numbers.npy"):
        np.save(path, np.load(path) + 330_000)
    assert "segment 1 of" in notes_of(row)[0]
    assert "10 s after the one before has ended" in notes_of(row)[0]
    runs = []
    for number in (0, 1):
        folder = tmp_path / f"r{number}"
        created = f"2026-01-01T1{number}:00:00"
        write_spikeglx(folder, f"r_g{number}_t0.imec0.ap", duration_s=1.0, created=created)
        runs.append(str(folder))
    for paths, said in ((runs, ""), (runs[::-1], "is their order right?"), (runs[:1] * 2, "twice")):
        row = Recording(id="x", paths=tuple(paths), reader="spikeglx", stream_id="imec0.ap")
        text, _ = notes_of(row)
        assert said in text
        assert bool(text) == bool(said)


@pytest.mark.parametrize(
    ("units", "of_others", "is_digital"),
    [
        ([""], [""], False),  # of Plexon nothing is known
        ([""], ["uV"], True),
        (["Volt"], ["a.u."], False),
        (["microV"], ["a.u."], False),
        (["a.u."], ["uV"], True),
        (["a.u."], ["a.u."], True),
    ],
)
def test_unit_that_tells_a_digital_signal(units, of_others, is_digital):
    opened = NumpyRecording([traces()[:, :1]], RATE_HZ)
    opened.set_property("physical_unit", np.array(units))
    opened.neo_reader = SimpleNamespace(header={"signal_channels": {"units": units + of_others}})
    if is_digital:
        with pytest.raises(RecordingLayoutError, match="holds no electrodes"):
            integrity.check_stream(opened, "/x")
    else:
        integrity.check_stream(opened, "/x")


def test_field_potential_of_neuroscope_at_the_rate_of_its_raw_data(tmp_path):
    (tmp_path / "a.xml").write_text(
        "<parameters><acquisitionSystem><nBits>16</nBits><nChannels>4</nChannels><samplingRate>"
        "30000</samplingRate><voltageRange>20</voltageRange><amplification>1000</amplification>"
        "</acquisitionSystem><anatomicalDescription><channelGroups/></anatomicalDescription>"
        "</parameters>"
    )
    row = Recording(id="x", paths=(str(tmp_path / "a.xml"),), reader="neuroscope")
    for suffix in ("eeg", "lfp"):
        traces(0.5).tofile(tmp_path / f"a.{suffix}")
        text = refusal(row, RecordingLayoutError)
        assert f"a.{suffix} is a field potential" in text
    traces().tofile(tmp_path / "a.dat")
    assert open_recording(row).get_num_samples() == 60_000


@pytest.mark.parametrize(
    ("reader", "units", "gains", "is_noted"),
    [
        ("Plexon", ["", ""], [2e3, 2e3], False),
        ("Blackrock", ["uV", "mV"], [5.0, 5.0], False),  # SpikeInterface's own
        ("Axon", ["volt", "nV"], [2e6, 2e-3], False),
        ("Axon", ["MILLIVOLT", "µV"], [2e3, 2.0], False),
        ("SpikeGadgets", ["", ""], [2.0, 2.0], True),
        ("Axon", ["a.u.", "a.u."], [2.0, 2.0], False),
    ],
)
def test_gains_by_the_units_that_neo_names(reader, units, gains, is_noted):
    opened, notes = NumpyRecording([traces()[:, :2]], RATE_HZ), []
    for name in ("gain", "offset"):
        opened.set_property(f"{name}_to_physical_unit", np.array([2.0, 2.0]))
        opened.set_property(f"{name}_to_uV", np.array([5.0, 5.0]))
    opened.set_property("physical_unit", np.array(units))
    opened.neo_reader = type(f"{reader}RawIO", (), {})()
    formats.mend(opened, "/x", {}, notes)
    assert opened.get_channel_gains().tolist() == gains
    assert opened.get_channel_offsets().tolist() == gains
    assert bool(notes) is is_noted


def test_biocam_is_opened_anew_as_it_was(data):
    path = str(next((data / "biocam").glob("*.brw")))
    options = {"fill_gaps_strategy": "zeros"}
    row = Recording(id="x", paths=(path,), reader="biocam", reader_options=options)
    opened = open_recording(row)
    assert opened.to_dict()["kwargs"]["fill_gaps_strategy"] == "zeros"
    assert load(opened.to_dict()).get_num_samples() == opened.get_num_samples()


@pytest.mark.parametrize(
    "name",
    [
        *("Rhythm_FPGA-100_ADC", "OneBox-ADC", "Signals AUX", "obx0.obx", "DC Amplifier channel"),
        *("USB board ADC output channel", "imec0.ap-SYNC", "RHD2000 auxiliary input channel"),
    ],
)
def test_streams_without_electrodes(name):
    opened = NumpyRecording([traces()], RATE_HZ)
    opened.stream_name = name
    with pytest.raises(RecordingLayoutError, match="holds no electrodes"):
        integrity.check_stream(opened, "/x")


def test_channel_of_an_older_open_ephys_recording_that_was_half_copied(tmp_path):
    sizes = {"100_CH1": 400, "100_CH2": 398, "100_CH3": 200}
    for name, n_records in sizes.items():
        (tmp_path / f"{name}.continuous").write_bytes(bytes(1024 + 2070 * n_records))
    files = sorted(map(str, tmp_path.glob("*.continuous")))
    reader = SimpleNamespace(_info={"continuous": {0: files}})
    opened = SimpleNamespace(neo_reader=reader, get_sampling_frequency=lambda: RATE_HZ)
    row = Recording(id="x", paths=(str(tmp_path),), reader="openephyslegacy")
    with pytest.raises(RecordingUnreadableError, match=r"100_CH3.continuous is not whole"):
        integrity.check_complete(opened, str(tmp_path), row, [])
