"""Whether a recording is whole: sizes against headers, clocks, parts, streams."""

import os
import shutil
import time

import numpy as np
import pytest
from spikeinterface.core import NumpyRecording

from spikecanary import integrity, plan
from spikecanary.config import Config
from spikecanary.failures import (
    DependencyError,
    RecordingLayoutError,
    RecordingUnreadableError,
)
from spikecanary.recording import open_recording
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
        ({"gain": 0.39}, "gains 0.195 and 0.39 uV per count"),
        ({"depths": [9, 8, 7, 6]}, "positions of the channels, which only the second one has"),
        ({"rate_hz": 30_000.02}, "sampling rate 30000 and 30000.02 Hz"),
        ({"ids": ["a", "b", "c", "d"]}, "channel ids 0 ... and a ..."),
        ({"samples": traces()[:, :3]}, "4 and 3 channels"),
        ({"samples": traces().astype("float32")}, "int16 and float32 samples"),
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
    assert "positions of the channels, such as 1 at (0, 20) and at (0, 40) um" in text


def test_small_difference_of_the_rate_can_be_allowed(tmp_path):
    paths = save(tmp_path / "one"), save(tmp_path / "two", rate_hz=30_000.02)
    assert "sampling_frequency_max_diff" in refusal(saved(*paths))
    allowed = saved(*paths, reader_options={"sampling_frequency_max_diff": 0.05})
    assert open_recording(allowed).get_num_samples() == 120_000


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
    assert "300,000 of 900,000 bytes are there (33% of what its header announces)" in text
    assert "is the copy finished?" in text
    notes = []
    open_recording(of_spikeglx(spikeglx(tmp_path / "more", announced=150_000)), notes)
    assert "more than the 150,000 of its header" in notes[0]


def test_synchronisation_stream_is_refused_with_the_streams_there(tmp_path):
    path = spikeglx(tmp_path / "run")
    text = refusal(of_spikeglx(path, "imec0.ap-SYNC"), RecordingLayoutError)
    assert "holds no electrodes" in text
    assert "there are imec0.ap" in text


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
    assert "1 gap: 6,000 samples after 1.000 s (sample 30,000)" in notes[0]


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


def test_zarr_with_missing_chunks(tmp_path):
    path = save(tmp_path / "x.zarr", format="zarr", chunk_duration="0.5s")
    assert open_recording(saved(path)).get_num_samples() == 60_000
    (tmp_path / "x.zarr/traces_seg0/2.0").unlink()
    assert "3 of 4 chunks are there (75%" in refusal(saved(path))


def test_gap_of_the_clock_is_named_and_samples_count(tmp_path):
    times = np.arange(60_000) / RATE_HZ
    times[45_000:] += 36_000
    path = save(tmp_path / "x", times=times)
    notes = []
    recording = open_recording(saved(path, start_s=1.0, end_s=2.0), notes, thorough=True)
    assert recording.get_num_samples() == 30_000
    assert "the clock has 1 gap: 36,000 s after 1.500 s (sample 45,000)" in notes[0]


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
        "gain": "gains 0.195 and 1 uV per count",
        "module": "MEArec",
        "probe": "the probe file",
        "channels": "no channel 'CH9'",
        "json": "cannot open",
        "end": "ends at 2.000 s",
        "short": "is not whole",
    }.items():
        assert words in problems[name]
    assert set(table["action"]) == {"canary"}
