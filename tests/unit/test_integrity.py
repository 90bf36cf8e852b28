"""Whether a recording is whole: sizes against headers, clocks, parts, streams."""

import os
import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from spikeinterface.core import (
    create_sorting_analyzer,
    generate_ground_truth_recording,
)

from recordings_made import (
    RATE_HZ,
    TIMES,
    N,
    notes_of,
    of_spikeglx,
    open_ephys,
    refusal,
    save,
    saved,
    spikeglx,
    traces,
    write_nwb,
)
from spikecanary import plan, signals
from spikecanary.config import Config
from spikecanary.failures import (
    DependencyError,
    RecordingLayoutError,
    RecordingUnreadableError,
)
from spikecanary.recording import integrity, open_recording
from spikecanary.table import Recording
from workbench import write_open_ephys, write_spikeglx


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


def test_spikeglx_file_that_is_not_whole(tmp_path):
    assert open_recording(of_spikeglx(spikeglx(tmp_path / "whole"))).get_num_samples() == 30_000
    text = refusal(of_spikeglx(spikeglx(tmp_path / "part", announced=900_000)))
    assert "300,000 of 900,000 bytes are there (33% of what should be there)" in text
    notes = []
    open_recording(of_spikeglx(spikeglx(tmp_path / "more", announced=150_000)), notes)
    assert "more than the 150,000 of its header" in notes[0]


def test_link_to_a_file_that_is_not_read_stops_nothing(tmp_path):
    path = spikeglx(tmp_path)
    other = tmp_path / "run_g0_imec1"
    other.mkdir()
    (other / "run_g0_t0.imec1.ap.bin").symlink_to("gone")
    assert notes_of(of_spikeglx(path))[0] == ""


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


def test_open_ephys_empty_part_is_left_out_and_a_short_one_refused(tmp_path):
    notes = []
    empty = open_ephys(tmp_path / "empty", 2.0, 0.0)
    assert open_recording(empty, notes).get_num_samples() == 60_000
    assert "segment 1 of" in notes[0]
    assert "has no samples" in notes[0]
    text = refusal(open_ephys(tmp_path / "short", 4.0, short=40_000))
    assert "80,000 of 120,000 samples are there (67%" in text


def test_open_ephys_file_of_more_channels_than_its_header(tmp_path):
    row = open_ephys(tmp_path, 2.0)
    (file,) = tmp_path.rglob("continuous.dat")
    file.write_bytes(np.repeat(np.fromfile(file, "int16"), 2).tobytes())
    assert "holds 8 channels, its header names 4" in refusal(row, RecordingLayoutError)
    os.truncate(file, 100_000 * 2 * N)
    assert "has 100,000 samples, more than the 60,000 of its header" in notes_of(row)[0]


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
    chunk.touch()  # as cp leaves it on a full disk
    assert "3 of 4 chunks are there (75%" in refusal(saved(path))
    timed = save(tmp_path / "t.zarr", format="zarr", chunk_duration="0.5s", times=TIMES)
    next((tmp_path / "t.zarr/times_seg0").glob("[0-9]*")).unlink()
    assert "times_seg0 is not whole" in refusal(saved(timed))
    shutil.rmtree(path)
    save(tmp_path / "x.zarr", format="zarr")
    (tmp_path / "x.zarr/properties/gain_to_uV/0").unlink()
    assert "gain_to_uV is not whole: 0 of 1 chunks" in refusal(saved(path))


def test_last_sample_is_read(tmp_path):
    path = save(tmp_path / "x.zarr", format="zarr", chunk_duration="0.5s")
    last = tmp_path / "x.zarr/traces_seg0/3.0"
    last.write_bytes(last.read_bytes()[:100])
    open_recording(saved(path))
    text = refusal(saved(path), notes=[], thorough=True)
    assert "sample 59,999 of 60,000" in text


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
        "end": "the table asks for 0 s to 9 s, but end ends at 2 s",
        "short": "is not whole",
    }.items():
        assert words in problems[name]
    assert set(table["action"]) == {"canary"}


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


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("(0 0 0 500 ", "(0 0 0 1000 "), "gains in uV per count (2.34375 and 1.171875)"),
        (("(1 0 0 500 ", "(1 1 0 500 "), "sites (imroTbl) (1 0 0 500 250 1 and 1 1 0 500 250 1)"),
        (("=30000", "=30000.1"), "sampling rates in Hz (30000.0 and 30000.1)"),
        (("=0,1,2,3,", "=4,5,6,7,"), "saved channels (0,1,2,3,768 and 4,5,6,7,768)"),
    ],
)
@pytest.mark.parametrize("later", ["r_g1_t0.imec0.ap", "r_g0_t1.imec0.ap"])
def test_spikeglx_parts_are_of_one_set_up(tmp_path, later, edit, said):
    for name in ("r_g0_t0.imec0.ap", later):
        write_spikeglx(tmp_path, name, duration_s=1.0)
    row = of_spikeglx(str(tmp_path)).model_copy(update={"end_s": 1.0})  # as discover cuts them
    assert open_recording(row, []).get_num_samples() == 30_000
    header = tmp_path / f"{later}.meta"
    header.write_text(header.read_text().replace(*edit))
    text = refusal(row)
    assert f"{later}.bin cannot be sorted together, since they differ: {said}" in text
    assert "from a folder of its own, if they are in one" in text


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


def test_electrodes_at_one_place_in_nwb_are_told_with_what_to_correct(tmp_path):
    row = write_nwb(tmp_path / "x.nwb", TIMES, rel_x=0.0, rel_y=0.0)
    assert "Correct rel_x and rel_y of the electrodes in the file" in refusal(row)


@pytest.mark.parametrize(
    ("n_samples", "shape", "chunks", "said"),
    [
        (60_000, (60_000, N), (7_000, 3), ""),
        (59_900, (59_900, N), None, ""),
        (40_000, (40_000, N), None, "40,000 of 60,000 samples are there (67%"),
        (18_000, (60_000, N), (6_000, N), "/acquisition/raw/data is not whole: 3 of 10 chunks"),
        (N, (N, 60_000), None, "holds 60000 channels, its header names 4 Is the data transposed?"),
    ],
)
def test_nwb_that_is_not_whole(tmp_path, n_samples, shape, chunks, said):
    """Conversions that crashed leave chunks that were never written."""
    row = write_nwb(tmp_path / "x.nwb", TIMES)
    with h5py.File(row.paths[0], "a") as file:
        group = file["acquisition/raw"]
        noted = dict(group["data"].attrs)
        del group["data"]
        data = group.create_dataset("data", shape, "int16", chunks=chunks)
        data.attrs.update(noted)
        data[:n_samples] = np.resize(traces(), (n_samples, shape[1]))
    if said:
        assert said in refusal(row, notes=[], thorough=True)
    else:
        assert open_recording(row, [], thorough=True).get_num_samples() == n_samples


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
