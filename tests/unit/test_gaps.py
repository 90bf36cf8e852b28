"""Clocks of recordings: gaps, jitter, times that are none, parts and their order."""

import os
import time

import numpy as np
import pytest

from recordings_made import (
    RATE_HZ,
    TIMES,
    N,
    notes_of,
    open_ephys,
    refusal,
    save,
    saved,
    traces,
    write_nwb,
)
from spikecanary import discover
from spikecanary.failures import (
    RecordingLayoutError,
    RecordingUnreadableError,
)
from spikecanary.recording import clock, formats, integrity, open_recording
from spikecanary.table import Recording
from workbench import write_spikeglx


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


def test_open_ephys_lost_samples_are_named_with_their_place(tmp_path):
    notes = []
    open_recording(open_ephys(tmp_path / "good", 2.0), notes, thorough=True)
    assert notes == []
    open_recording(open_ephys(tmp_path / "lost", 2.0, jump=6000), notes, thorough=True)
    assert "has 1 gap, and" in notes[0]
    assert "6000 samples after 1.000 s (sample 30000)" in notes[0]


def test_gap_of_the_clock_is_named_and_samples_count(tmp_path):
    times = np.arange(60_000) / RATE_HZ
    times[45_000:] += 36_000
    path = save(tmp_path / "x", times=times)
    notes = []
    recording = open_recording(saved(path, start_s=1.0, end_s=2.0), notes, thorough=True)
    assert recording.get_num_samples() == 30_000
    assert "the clock has 1 gap, and" in notes[0]
    assert "36000 s after 1.500 s (sample 45000)" in notes[0]


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
    assert len(parts[0].clock) <= clock.MOST_KNOTS
    told = clock.times_s(np.array([30_000]), parts, RATE_HZ)
    assert told == pytest.approx([at_1_s], abs=0.003)


def test_start_time_that_is_no_number(tmp_path):
    row = write_nwb(tmp_path / "x.nwb", None, starting_time=np.nan)
    text, parts = notes_of(row)
    assert text == "its start time is not a number (nan). Times are counted from 0 s"
    assert clock.times_s(np.array([30_000]), parts, RATE_HZ) == pytest.approx([1.0])


def test_times_that_jitter_make_no_record_of_megabytes(tmp_path):
    times = TIMES + np.random.default_rng(0).normal(0, 50e-6, len(TIMES))
    text, parts = notes_of(saved(save(tmp_path / "x", times=times)))
    assert "does not go on evenly" in text
    assert len(parts[0].model_dump_json()) < 100_000


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
    assert f"Hz, its header says {made_hz}: its times are rounded" in str(caught.value)
    assert "Write the rate into the file" in caught.value.remedy
    text, _ = notes_of(write_nwb(tmp_path / "unix.nwb", TIMES + 1.7e9))
    assert "its header says 299" in text


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
