"""Stamps of a recording's files: what counts as a change, and what does not."""

import os
import shutil

import pytest
from spikeinterface.core import generate_recording
from spikeinterface.extractors import recording_extractor_full_dict

from spikecanary.recording import stamps
from spikecanary.table import Recording


def row(path, reader="binary", **fields):
    return Recording(id="x", paths=(str(path),), reader=reader, **fields)


def of(path, reader="binary", plugin=None, **fields):
    """Return the stamps, read anew."""
    stamps._of_text.cache_clear()
    return stamps.of_recording(row(path, reader, **fields), plugin)


def test_file_by_name_size_and_time(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(b"12")
    os.utime(path, ns=(5, 5))
    assert of(path) == {"paths": [["a.raw", 2, 5]]}
    shutil.copy2(path, tmp_path / "b.raw")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(path, moved)
    assert of(path) is None
    assert of(moved / "a.raw") == {"paths": [["a.raw", 2, 5]]}  # found again at another place


def test_address_has_no_stamp_but_itself():
    assert of("s3://bucket/a.zarr") == {"paths": [["s3://bucket/a.zarr"]]}


#: Of a reader: what it reads in a folder, and what others leave there.
FOLDERS = {
    "spikeglx": (["run_g0/run_g0_imec0/run_g0_t0.imec0.ap.bin", "run.meta"], ["cluster_info.tsv"]),
    "openephysbinary": (
        ["node/recording1/structure.oebin", "node/recording1/continuous/A/continuous.dat"],
        ["node/settings.xml", "node/recording1/continuous/A/params.py"],
    ),
    "openephyslegacy": (["100_CH1.continuous"], ["notes.txt"]),
    "neuralynx": (["CSC1.ncs", "CSC2.Ncs", "CSC3.NCS"], ["CheetahLogFile.txt"]),
    "tdt": (["Block-1.tev", "Block-1.tsq"], ["StoresListing.txt"]),
    "spikeinterface": (
        ["binary.json", "properties/gain_to_uV.npy", "traces_cached_seg0.raw"],
        ["phy/params.py", "x.log", "mask.npy", "filtered.raw", "sorted/spike_times.npy"],
    ),
    "mda": (["geom.csv", "params.json", "raw.mda"], ["firings.mda", "out/firings.mda"]),
    "nobody": (["anything", "deep/er"], []),
}


@pytest.mark.parametrize("reader", FOLDERS)
def test_folder_by_the_files_that_its_reader_reads(tmp_path, reader):
    data, others = FOLDERS[reader]
    for name in data:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"data")
    before = of(tmp_path, reader)
    assert before["paths"][0][:3] == [tmp_path.name, len(data), 4 * len(data)]
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("by another program")
    os.utime(tmp_path)
    assert of(tmp_path, reader) == before
    path = tmp_path / data[-1]
    os.utime(path, ns=(7, 7))
    changed = of(tmp_path, reader)
    assert changed != before
    path.rename(path.with_name("9" + path.name.replace(".", "-", 1)))
    assert of(tmp_path, reader) != changed


def test_lock_of_an_editor_and_a_loop_hide_no_change(tmp_path):
    (tmp_path / "x.dat").write_text("data")
    (tmp_path / ".hidden").write_text("data, too")
    before = of(tmp_path, "nobody")
    assert before["paths"][0][1] == 1
    (tmp_path / "._x.dat").write_text("of macOS")
    (tmp_path / ".#x.dat").symlink_to("somebody@host.1234")
    (tmp_path / "loop").symlink_to(".")
    assert of(tmp_path, "nobody") == before
    (tmp_path / "x.dat").write_text("more data")
    assert of(tmp_path, "nobody") not in (before, None)
    (tmp_path / "itself").symlink_to("itself")
    assert of(tmp_path, "nobody") is not None
    (tmp_path / "y.dat").symlink_to("not/mounted")  # data, and away
    assert of(tmp_path, "nobody") is None


def test_loop_behind_a_link_hides_no_data(tmp_path):
    run = tmp_path / "disk/run"
    run.mkdir(parents=True)
    (run / "x.dat").write_text("data")
    (run / "latest").symlink_to(".")
    (tmp_path / "data").symlink_to("disk")
    assert of(run, "nobody") is not None
    assert of(tmp_path / "data/run", "nobody") == of(run, "nobody")


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_was_noted_and_what_has_changed(tmp_path, is_folder):
    folder = tmp_path / "run"
    folder.mkdir()
    one, two = folder / "a.bin", folder / "a.meta"
    for path in (one, two):
        path.write_text(path.name)
        os.utime(path, ns=(5, 7_123_456_789))
    named = (folder, "spikeglx") if is_folder else (one, "binary")
    noted = of(*named)

    def is_noted(*, some_away=False):
        return stamps.are_noted(of(*named), noted, some_away=some_away)

    assert is_noted()
    for kept_ns in (7_123_456_700, 7_120_000_000, 7_000_000_000):  # by NTFS, exFAT, tar
        for path in (one, two):
            os.utime(path, ns=(5, kept_ns))
        assert is_noted()
    if not is_folder:  # FAT
        os.utime(one, (5, 8))
        assert is_noted()
    os.utime(one, (5, 10))
    assert not is_noted(some_away=True)
    os.utime(one, (5, 7))
    two.unlink()
    assert is_noted(some_away=True)
    assert is_noted() is not is_folder
    one.unlink()
    assert (is_noted(), is_noted(some_away=True)) == (False, True)
    assert not stamps.are_noted({"paths": [["a", 1, 2]]}, {"paths": 3}, some_away=True)
    before = {"paths": [["run", 2, 11, "abc"]]}  # of earlier versions
    assert stamps.are_noted({"paths": [["run", 2, 11, "abc", "d"]]}, before, some_away=False)


def test_changes_of_two_files_of_one_name(tmp_path):
    for folder, size in (("a", 20), ("b", 30)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.bin").write_bytes(bytes(size))
    both = row(tmp_path).model_copy(
        update={"paths": tuple(str(tmp_path / folder / "x.bin") for folder in "ab")}
    )
    before = stamps.of_recording(both, None)
    (tmp_path / "b/x.bin").write_bytes(bytes(31))
    now = stamps.of_recording(both, None)
    assert stamps.describe_changes(before, now) == "x.bin: 30 bytes then, 31 now"
    assert stamps.describe_changes(before, before) == ""


def test_emptied_folder_is_away(tmp_path):
    (tmp_path / "notes.txt").write_text("archived")
    assert of(tmp_path, "spikeglx") is None


@pytest.mark.parametrize("kind", ["binary", "zarr"])
def test_folder_saved_by_spikeinterface(tmp_path, kind):
    folder = tmp_path / ("saved" if kind == "binary" else "saved.zarr")
    generate_recording(durations=[0.1], num_channels=2).save(folder=folder, format=kind)
    before = of(folder, "spikeinterface")
    assert before["paths"][0][1] >= 3
    hidden = [path for path in folder.rglob(".z*") if path.is_file()]
    assert bool(hidden) is (kind == "zarr" and not (folder / "zarr.json").exists())
    for path in hidden[:1]:  # zarr's own metadata
        status = path.stat()
        os.utime(path, ns=(9, 9))
        assert of(folder, "spikeinterface") != before
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "analysis.txt").write_text("by somebody")
    assert of(folder, "spikeinterface") == before
    largest = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.utime(largest, ns=(9, 9))
    assert of(folder, "spikeinterface") != before


@pytest.mark.parametrize(
    ("reader", "named", "beside", "stranger"),
    [
        ("intan", "info.rhd", "amplifier.dat", "temp_wh.dat"),
        ("intan", "info.rhs", "amp-A-000.dat", "notes.txt"),
        ("blackrock", "FileSpec2.3001.ns5", "FileSpec2.3001.nev", "FileSpec2.3002.ns5"),
        ("neuronexus", "a.xdat.json", "a_data.xdat", "b_data.xdat"),
        ("neuroscope", "a.xml", "a.dat", "a.clu.1"),
        ("axona", "a.bin", "a.set", "b.set"),
    ],
)
def test_files_beside_the_one_that_is_named(tmp_path, reader, named, beside, stranger):
    for name in (named, beside):
        (tmp_path / name).write_bytes(b"data")
    before = of(tmp_path / named, reader)
    assert before["paths"][0][1] == 2
    (tmp_path / stranger).write_text("x")
    assert of(tmp_path / named, reader) == before
    (tmp_path / beside).write_bytes(b"more data")
    assert of(tmp_path / named, reader) != before


def test_single_file_of_a_reader_of_several(tmp_path):
    (tmp_path / "one.rhd").write_bytes(b"data")
    (tmp_path / "two.rhd").write_bytes(b"data")
    assert of(tmp_path / "one.rhd", "intan")["paths"][0][:2] == ["one.rhd", 4]


def test_texts_count_by_content(tmp_path):
    probe, plugin, raw = tmp_path / "p.json", tmp_path / "s.py", tmp_path / "a.raw"
    for path in (probe, plugin, raw):
        path.write_text("1")
    before = of(raw, probe=str(probe), plugin=str(plugin))
    for path in (probe, plugin):
        os.utime(path, ns=(3, 3))
    assert of(raw, probe=str(probe), plugin=str(plugin)) == before
    for path in (probe, plugin):
        path.write_text("2")
        changed = of(raw, probe=str(probe), plugin=str(plugin))
        assert changed != before
        before = changed
    probe.unlink()
    assert of(raw, probe=str(probe), plugin=str(plugin)) is None


def test_probes_in_a_folder_that_spikeinterface_saved(tmp_path):
    recording = generate_recording(durations=[0.1], num_channels=4)
    recording.save(folder=tmp_path / "saved")
    before = of(tmp_path / "saved", "spikeinterface")
    probes = tmp_path / "saved/probegroup.json"
    probes.write_text(probes.read_text().replace("20.0", "40.0"))
    now = of(tmp_path / "saved", "spikeinterface")
    assert not stamps.are_noted(now, before, some_away=True)
    assert stamps.describe_changes(before, now) == "another probe 0 file"
    # As versions noted it that did not look at them.
    assert stamps.are_noted(now, {"paths": before["paths"]}, some_away=False)


def test_readers_of_the_tables_exist():
    known = {*recording_extractor_full_dict, "spikeinterface"}
    assert {*stamps.DATA_FILES, *stamps.BESIDE} <= known
