"""A table from folders: every stream that a person would sort, and no other."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import spikeinterface as si
import yaml
from probeinterface import ProbeGroup, generate_tetrode
from spikeinterface.extractors.nwbextractors import NwbRecordingExtractor

from spikecanary import discover, inputcheck, plan
from spikecanary.config import Config
from spikecanary.failures import DependencyError
from spikecanary.outputs.nwb import read_subject
from spikecanary.recording import clock, formats, preprocess, readers
from spikecanary.table import read_table
from workbench import write_open_ephys as open_ephys
from workbench import write_spikeglx as spikeglx

RATE_HZ = 30_000
N = 4


def traces(n_channels=N, duration_s=2.5, rate_hz=RATE_HZ):
    rng = np.random.default_rng(0)
    return rng.normal(0, 30, (int(duration_s * rate_hz), n_channels)).astype("int16")


def with_probes(n_probes=1):
    """Return a recording of tetrodes, 300 um apart."""
    recording = si.NumpyRecording([traces(N * n_probes)], RATE_HZ)
    recording.set_channel_gains(0.195)
    recording.set_channel_offsets(0)
    group = ProbeGroup()
    for number in range(n_probes):
        probe = generate_tetrode()
        probe.move([300 * number, 0])
        probe.set_device_channel_indices(np.arange(N) + N * number)
        group.add_probe(probe)
    recording.set_probegroup(group)
    return recording


def nwb(path, series):
    """Write an NWB file with these electrical series: rates in Hz."""
    from datetime import UTC, datetime

    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.ecephys import ElectricalSeries
    from pynwb.file import Subject

    file = NWBFile("a", "b", datetime(2024, 1, 1, tzinfo=UTC), session_id="day3")
    file.subject = Subject(subject_id="m7", species="Mus musculus")
    device = file.create_device("probe")
    group = file.create_electrode_group("shank0", "", "", device)
    for number in range(N):
        file.add_electrode(group=group, location="CA1", rel_x=0.0, rel_y=20.0 * number)
    for name, rate_hz in series.items():
        region = file.create_electrode_table_region(list(range(N)), "all")
        data = traces(rate_hz=rate_hz)
        file.add_acquisition(
            ElectricalSeries(
                name=name, data=data, electrodes=region, rate=float(rate_hz), conversion=1e-6
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with NWBHDF5IO(path, "w") as io:
        io.write(file)


def blackrock(path, rate_hz):
    """Write a Blackrock file (2.2) of one channel."""
    samples = traces(1, rate_hz=rate_hz)
    head = np.zeros(314 + 66, "uint8").tobytes()
    head = (
        b"NEURALCD" + bytes([2, 2]) + np.array([380], "<u4").tobytes() + b"30 kS/s".ljust(16, b"\0")
    )
    head += bytes(256) + np.array([RATE_HZ // rate_hz, RATE_HZ], "<u4").tobytes()
    head += np.array([2024, 1, 1, 1, 12, 0, 0, 0], "<u2").tobytes() + np.array([1], "<u4").tobytes()
    head += b"CC" + np.array([1], "<u2").tobytes() + b"chan1".ljust(16, b"\0") + bytes([1, 1])
    head += np.array([-8191, 8191, -8191, 8191], "<i2").tobytes() + b"uV".ljust(16, b"\0")
    head += bytes(20)
    data = b"\1" + np.array([0, len(samples)], "<u4").tobytes() + samples.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + data)


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Write what laboratories have: eight formats, copies of CatGT, results and junk."""
    folder = tmp_path_factory.mktemp("raw data")
    for gate in (0, 1):
        run = folder / f"sub-01/ses-02/ecephys/run_g{gate}"
        for probe in (0, 1):
            for kind in ("ap", "lf"):
                spikeglx(run / f"run_g{gate}_imec{probe}", f"run_g{gate}_t0.imec{probe}.{kind}")
        (run / f"run_g{gate}_t0.nidq.bin").write_bytes(bytes(100))
        (run / f"run_g{gate}_t0.nidq.meta").write_text("typeThis=nidq\n")
    day = folder / "oe/2024-01-01_12-00-00"
    neuropixels = {
        "Neuropix-PXI-100.ProbeA-AP": (["CH0", "CH1"], RATE_HZ),
        "Neuropix-PXI-100.ProbeA-LFP": (["CH0", "CH1"], 2500),
        "NI-DAQmx-103.PXI-6133": (["AI0", "AI1"], RATE_HZ),
    }
    board = {"Acquisition_Board-100.Rhythm": (["CH1", "CH2", "CH3", "AUX1", "ADC1"], RATE_HZ)}
    for number in (1, 2):
        open_ephys(day / f"Record Node 101/experiment{number}/recording1", neuropixels)
    open_ephys(day / "Record Node 101/experiment1/recording2", neuropixels)
    open_ephys(day / "Record Node 104/experiment1/recording1", board)
    with_probes(2).save(folder=folder / "saved/two_probes", verbose=False)
    with_probes().save(folder=folder / "saved/one.zarr", format="zarr", verbose=False)
    nwb(folder / "nwb/mouse.nwb", {"ElectricalSeriesAP": RATE_HZ, "ElectricalSeriesLF": 1000})
    nwb(folder / "nwb/one.nwb", {"ElectricalSeries": RATE_HZ})
    for suffix, rate_hz in (("ns2", 1000), ("ns5", RATE_HZ)):
        blackrock(folder / f"utah/day1.{suffix}", rate_hz)
    compressed(folder / "ibl")
    for name in ("notes.txt", "video.mp4", "empty.nwb", "saved/table.csv"):
        (folder / name).write_bytes(b"")
    (folder / "raw.dat").write_bytes(bytes(1000))
    (folder / "broken").mkdir()
    (folder / "broken/structure.oebin").write_text("{")
    (folder / "phy").mkdir()
    (folder / "phy/params.py").write_text("")
    (folder / "phy/recording.dat").write_bytes(bytes(1000))
    return folder


def compressed(folder):
    """Write a SpikeGLX file compressed with mtscomp."""
    import mtscomp

    spikeglx(folder, "x_g0_t0.imec0.ap")
    raw = folder / "x_g0_t0.imec0.ap.bin"
    mtscomp.compress(
        raw,
        raw.with_suffix(".cbin"),
        raw.with_suffix(".ch"),
        sample_rate=RATE_HZ,
        n_channels=N + 1,
        dtype="int16",
        n_threads=1,
    )
    raw.unlink()


def run(tmp_path, *arguments):
    table = tmp_path / "recordings.tsv"
    status = discover.main([*map(str, arguments), "--out", str(table), "--jobs", "2"])
    return status, {row.id: row for row in read_table(table)}, table.read_text()


def brief(rows, folder):
    """Return path, stream, options and channels of each row."""
    return [
        (
            str(Path(row.paths[0]).relative_to(folder)),
            row.stream_id or "",
            *(str(value) for value in row.reader_options.values()),
            *([row.channels] if row.channels else []),
        )
        for row in rows.values()
    ]


def test_every_stream_that_a_person_would_sort_and_no_other(tree, tmp_path, capsys):
    status, rows, text = run(tmp_path, tree)
    said = capsys.readouterr().out
    runs = "sub-01/ses-02/ecephys"
    day = "oe/2024-01-01_12-00-00"
    assert brief(rows, tree) == [
        ("ibl", ""),
        ("nwb/mouse.nwb", "", "acquisition/ElectricalSeriesAP"),
        ("nwb/one.nwb", ""),
        (f"{day}/Record Node 101/experiment1", "1"),
        (f"{day}/Record Node 101/experiment2", "1"),
        (f"{day}/Record Node 104/experiment1", "0", "CH1-CH3"),
        ("saved/one.zarr", ""),
        ("saved/two_probes", "", "group=0"),
        ("saved/two_probes", "", "group=1"),
        (f"{runs}/run_g0/run_g0_imec0", "imec0.ap"),
        (f"{runs}/run_g0/run_g0_imec1", "imec1.ap"),
        (f"{runs}/run_g1/run_g1_imec0", "imec0.ap"),
        (f"{runs}/run_g1/run_g1_imec1", "imec1.ap"),
        ("utah/day1.ns5", ""),
    ]
    row = rows["sub-01_ses-02_run_g0_imec1"]
    assert row.metadata == {"subject": "01", "session": "02", "probe_name": "imec1"}
    row = rows["2024-01-01_12-00-00_Record-Node-101_experiment2"]
    assert row.metadata["session"] == "2024-01-01_12-00-00"
    assert row.metadata["probe_name"] == "ProbeA"
    assert rows["mouse"].metadata["subject"] == "m7"
    reasons = [line.split("\t") for line in text.splitlines() if line.startswith("# discover")]
    by_path = {Path(path.split(": ")[1]).name: said for path, _, said in reasons}
    assert status == 1
    assert "cannot" not in by_path["run_g0"]
    assert by_path["run_g0"] == "run_g0_t0.nidq.bin: NI-DAQ or OneBox, no probe"
    assert by_path["day1.ns2"] == "sampled at 1000 Hz: a field potential"
    assert "not a valid HDF5 file" in by_path["empty.nwb"]
    assert "ValueError" in by_path["broken"]
    assert "raw samples do not say" in by_path[tree.name]
    assert "imec0.ap-SYNC, imec0.lf, imec0.lf-SYNC" in text
    assert "recording.dat" not in said
    assert "day1: 2.5 s, 1 channels\n  kilosort4 needs the positions of the channels" in said


def test_plan_finds_nothing_new(tree, tmp_path, capsys):
    _, rows, _ = run(tmp_path, tree)
    said = capsys.readouterr().out
    table = plan.make(Config(), list(rows.values()), tmp_path, 2)
    problems = {problem for text in table["problems"] for problem in text.split("; ") if problem}
    assert all("has no probe" in each for each in problems)
    assert said.count("has no probe.") == sum(table["problems"] != "")
    assert said.count("no probe\n") == 2  # NI-DAQ


def test_folder_without_a_known_format_is_named(tmp_path):
    for name in ("mat/m1.mat", "packed/a.zip"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    text = run(tmp_path, tmp_path)[2]
    assert f"{tmp_path}\t\tno file of a known format" in text


def test_files_and_their_folder(tmp_path, capsys):
    for name in "abc":
        nwb(tmp_path / f"{name}.nwb", {"raw": 30_000.0})
    a, b = (tmp_path / f"{name}.nwb" for name in "ab")
    assert [*run(tmp_path, a, b)[1]] == ["a", "b"]
    (tmp_path / "recordings.tsv").unlink()
    assert [*run(tmp_path, a, tmp_path)[1]] == ["a", "b", "c"]


def test_comments_in_a_table_whose_last_column_is_the_name(tmp_path):
    table = tmp_path / "recordings.tsv"
    table.write_text("path\treader\trecording\nx.raw\tmda\tx\n# y.raw\tmda\n")
    assert [*run(tmp_path, tmp_path)[1]] == ["x"]


def test_tables_as_other_programs_save_them(tmp_path, capsys):
    nwb(tmp_path / "a.nwb", {"raw": 30_000.0})
    table = tmp_path / "recordings.tsv"
    for header in ("recording\tpath\treader\tnote", '"recording"\t"path"\t"reader"\t"note"'):
        table.write_text(f'{header}\n"x"\ty.raw\tmda\tone\x0btwo\u2028three\n')
        _, rows, text = run(tmp_path, tmp_path / "a.nwb")
        assert [*rows] == ["x", "a"]
        assert text.startswith(header)
        assert rows["a"].paths == (str(tmp_path / "a.nwb"),)
    table.write_text("recording\tpath\treader\nü\tx\tmda\n", encoding="utf-16")
    assert discover.main([str(tmp_path), "--out", str(table)]) == 2
    assert "save it as text with tabs (TSV, UTF-8)" in capsys.readouterr().err


def test_raw_file_with_a_row_by_hand_is_not_named_again(tmp_path, capsys):
    for name in ("by_hand.dat", "other.dat"):
        (tmp_path / name).write_bytes(b"x")
    assert "by_hand.dat, other.dat" in run(tmp_path, tmp_path)[2]
    with (tmp_path / "recordings.tsv").open("a") as table:
        table.write(f"mine\t{tmp_path / 'by_hand.dat'}\tbinary\n")
    capsys.readouterr()
    text = run(tmp_path, tmp_path)[2]
    assert "not recognised: other.dat" in text
    assert "by_hand.dat, " not in text + capsys.readouterr().out


def test_a_second_run_adds_what_is_new_and_touches_nothing(tmp_path):
    raw = tmp_path / "raw"
    spikeglx(raw / "a_g0_imec0", "a_g0_t0.imec0.ap")
    with_probes(2).save(folder=raw / "two", verbose=False)
    table = tmp_path / "recordings.tsv"
    table.write_text("# mine\nrecording\tpath\treader\tstream_id\nold\tx.h5\tmaxwell\n")
    status, rows, text = run(tmp_path, raw)
    assert [*rows] == ["old", "a_g0_imec0", "two_group-0", "two_group-1"]
    assert text.startswith("# mine\nrecording\tpath\treader\tstream_id\tchannels\t")
    assert "\nold\tx.h5\tmaxwell\n" in text
    assert status == 0
    assert run(tmp_path, raw)[2] == text
    edited = text.replace("a_g0_imec0\t", "mine\t", 1).replace("group=1", "group=1,0")
    edited = edited.replace("two_group-0", "#two_group-0")
    table.write_text(edited)
    spikeglx(raw / "a_g1_imec0", "a_g1_t0.imec0.ap")
    _, rows, text = run(tmp_path, raw, raw / "two")
    assert [*rows] == ["old", "mine", "two_group-1", "a_g1_imec0"]
    assert text.startswith(edited.split("# discover")[0])


def test_options_that_a_person_adds_make_no_new_row(tmp_path):
    nwb(tmp_path / "two.nwb", {"ElectricalSeriesA": RATE_HZ, "ElectricalSeriesB": RATE_HZ})
    _, rows, text = run(tmp_path, tmp_path)
    assert [*rows] == ["two_ElectricalSeriesA", "two_ElectricalSeriesB"]
    edited = text.replace('SeriesA"}', 'SeriesA", "load_time_vector": true}')
    (tmp_path / "recordings.tsv").write_text(edited)
    assert run(tmp_path, tmp_path)[2] == edited != text


def test_hand_written_rows_of_folders_above_are_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    spikeglx(tmp_path / "a_g0/a_g0_imec0", "a_g0_t0.imec0.ap")
    table = tmp_path / "recordings.tsv"
    for path in (f"{tmp_path}/a_g0", "~/a_g0"):
        table.write_text(f"recording\tpath\treader\tstream_id\nx\t{path}\tspikeglx\timec0.ap\n")
        assert [*run(tmp_path, tmp_path)[1]] == ["x"]


@pytest.mark.parametrize("stream", [("CH1",), ("CH1", "x_AUX")])
def test_rows_of_a_record_node_are_of_its_first_or_named_experiment(tmp_path, stream):
    node, table = tmp_path / "day/Record Node 1", tmp_path / "recordings.tsv"
    streams = {f"Board-100.{name}": ([name, "CH2"], RATE_HZ) for name in stream}
    header = "recording\tpath\treader\tstream_id\treader_options\n"

    def found(options, folder=tmp_path):
        table.write_text(f"{header}x\t{node}\topenephysbinary\t0\t{options}\n")
        rows = [*run(tmp_path, folder)[1].values()][1:]
        return [Path(row.paths[0]).name for row in rows if row.stream_id in (None, "0")]

    first, second = (json.dumps({"experiment_name": f"experiment{n}"}) for n in (1, 2))
    open_ephys(node / "experiment1/recording1", streams)
    assert found("") == found(first) == []
    open_ephys(node / "experiment2/recording1", streams)
    assert found("") == found(first) == ["experiment2"]
    assert found("", node / "experiment2") == ["experiment2"]
    assert found(second) == ["experiment1"]


def test_output_of_catgt_replaces_its_raw_data(tmp_path, capsys):
    raw, same = tmp_path / "run_g0/run_g0_imec0", tmp_path / "b_g0/b_g0_imec0"
    spikeglx(raw, "run_g0_t0.imec0.ap")
    filtered = tmp_path / "catgt_run_g0/run_g0_imec0/run_g0_tcat.imec0.ap"
    spikeglx(filtered.parent, filtered.name, created="2026")
    meta = filtered.with_name(f"{filtered.name}.meta")  # CatGT keeps the time of its input apart
    (time,) = re.findall("fileCreateTime=.*", (raw / "run_g0_t0.imec0.ap.meta").read_text())
    original = time.replace("fileCreateTime", "fileCreateTime_original")
    meta.write_text(f"{meta.read_text().rstrip()}\n{original}\n")
    spikeglx(tmp_path / "other/run_g0_imec0", "run_g0_t0.imec0.ap", created="2024")
    for name in ("b_g0_t0.imec0.ap", "b_g0_tcat.imec0.ap"):
        spikeglx(same, name, created="2025")
    _, rows, text = run(tmp_path, tmp_path)
    found = [(str(Path(row.paths[0]).relative_to(tmp_path)), row.end_s) for row in rows.values()]
    assert found == [
        ("b_g0/b_g0_imec0", 2.5),
        ("catgt_run_g0/run_g0_imec0", None),
        ("other/run_g0_imec0", None),
    ]
    assert f"CatGT's output of it is in {tmp_path}/catgt_run_g0" in text


def test_gates_and_probes_in_one_folder(tmp_path):
    for gate in (0, 1):
        for probe in (0, 1):
            spikeglx(tmp_path / "flat", f"f_g{gate}_t0.imec{probe}.ap")
    _, rows, text = run(tmp_path, tmp_path)
    assert [(row.id, row.stream_id, row.start_s, row.end_s) for row in rows.values()] == [
        ("flat_f_g0_imec0", "imec0.ap", None, 2.5),
        ("flat_f_g1_imec0", "imec0.ap", 2.5, 5.0),
        ("flat_f_g0_imec1", "imec1.ap", None, 2.5),
        ("flat_f_g1_imec1", "imec1.ap", 2.5, 5.0),
    ]
    assert {row.metadata["session"] for row in rows.values()} == {"f"}
    assert run(tmp_path, tmp_path)[2] == text
    (tmp_path / "recordings.tsv").unlink()
    _, rows, _ = run(tmp_path, tmp_path, "--concatenate")
    assert [(row.id, row.paths, row.pieces()) for row in rows.values()] == [
        (f"flat_imec{probe}", (str(tmp_path / "flat"),), ((0.0, 5.0),)) for probe in (0, 1)
    ]


def test_gates_that_are_recorded_later_get_rows_and_the_others_stay(tmp_path):
    folder = tmp_path / "flat"
    for gate in range(4):
        spikeglx(folder, f"f_g{gate}_t0.imec0.ap")
        _, rows, text = run(tmp_path, folder)
        if gate == 0:  # its row covers all of the folder: it is refused from then on
            with (tmp_path / "recordings.tsv").open("a") as table:
                table.write("# f_g9\tx\tspikeglx\tin a comment\n")
            continue
        if gate == 1:
            assert [row.pieces() for row in rows.values()] == [((0.0, None),)]
            (tmp_path / "recordings.tsv").unlink()
            _, rows, text = run(tmp_path, folder)
        ends = [2.5 * (n + 1) for n in range(gate + 1)]
        assert [row.pieces() for row in rows.values()] == [((end - 2.5, end),) for end in ends]
    assert run(tmp_path, folder)[2] == text
    header, _, *others = text.splitlines()
    (tmp_path / "recordings.tsv").write_text("\n".join([header, *others]))
    assert len(run(tmp_path, folder)[1]) == 3  # one of them was removed


def test_triggers_of_one_gate_are_one_recording_and_names_may_hold_t(tmp_path):
    for trigger in (0, 1):
        name = f"m1_training_g0_t{trigger}.imec0.ap"
        spikeglx(tmp_path / "m1_training_g0", name, created=f"2024-01-01T10:0{trigger}:00")
    (row,) = run(tmp_path, tmp_path)[1].values()
    assert (row.id, row.end_s) == ("m1_training_g0", None)
    assert row.metadata["session"] == "m1_training"


def test_comment_of_a_folder_goes_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    assert "no file of a known format" in run(tmp_path, "raw")[2]
    spikeglx(tmp_path / "raw", "a_g0_t0.imec0.ap")
    assert "no file of a known format" not in run(tmp_path, tmp_path / "raw")[2]


def test_comments_on_other_files_stay_and_a_spreadsheets_quotes_keep_none(tmp_path):
    for name in ("a", "b"):
        nwb(tmp_path / name / "x.nwb", {"raw": RATE_HZ, "lf": 1000})
    (tmp_path / "c,d").mkdir()
    for name in ("a", "b", "c,d"):
        text = run(tmp_path, tmp_path / name)[2]
    assert text.count("# discover") == 3
    (tmp_path / "recordings.tsv").write_text(
        text.replace(f"# discover: {tmp_path}/c,d", f'"# discover: {tmp_path}/c,d"')
    )
    assert run(tmp_path, tmp_path / "c,d")[2] == text
    nwb(tmp_path / "c,d/x.nwb", {"raw": RATE_HZ})
    assert run(tmp_path, tmp_path / "c,d")[2].count("# discover") == 2


def test_table_that_is_a_link_stays_one_with_its_mode(tmp_path):
    nwb(tmp_path / "a/x.nwb", {"raw": RATE_HZ})
    (tmp_path / "shared.tsv").write_text("recording\tpath\treader\n")
    (tmp_path / "shared.tsv").chmod(0o664)
    (tmp_path / "recordings.tsv").symlink_to("shared.tsv")
    assert [*run(tmp_path, tmp_path / "a")[1]] == ["x"]
    assert (tmp_path / "recordings.tsv").is_symlink()
    assert (tmp_path / "shared.tsv").stat().st_mode & 0o777 == 0o664
    assert len(read_table(tmp_path / "shared.tsv")) == 1


def test_reader_that_returns_units_too(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "made.h5", "w") as file:
        file.create_group("recordings")
    read = discover.reader_function

    def of(name):
        return (lambda _: (with_probes(), "units")) if name == "mearec" else read(name)

    monkeypatch.setattr(discover, "reader_function", of)
    found = discover.inspect(formats.Recognised(str(tmp_path / "made.h5"), "mearec"), "none")
    assert "tuple" not in found[0].reason


def test_what_cannot_be_opened_is_added_once_it_can(tmp_path, capsys):
    folder = tmp_path / "a_g0_imec0"
    spikeglx(folder, "a_g0_t0.imec0.ap")
    (folder / "params.py").write_text("")  # Kilosort was here
    raw = folder / "a_g0_t0.imec0.ap.bin"
    whole = raw.read_bytes()
    raw.write_bytes(whole[:250_000])
    status, rows, text = run(tmp_path, tmp_path)
    assert (status, rows) == (1, {})
    assert "is the copy finished?" in text
    raw.unlink()
    status, rows, text = run(tmp_path, tmp_path)
    assert (status, rows) == (1, {})
    assert "is the copy finished?" not in text
    assert "No appropriate combination of .meta and .bin" in text
    raw.write_bytes(whole)
    status, rows, text = run(tmp_path, tmp_path)
    assert (status, [*rows]) == (0, ["a_g0_imec0"])
    assert "combination" not in text


def test_module_that_a_reader_lacks_is_told_with_its_remedy(tmp_path):
    (tmp_path / "a.smrx").write_text("x")
    _, rows, text = run(tmp_path, tmp_path)
    assert rows == {}
    assert "sonpy is not installed" in text
    assert DependencyError.remedy in text


def test_catgt_in_the_folder_of_other_streams_is_refused_with_the_remedy(tmp_path):
    for name in ("c_g0_t0.imec0.ap", "c_g0_t0.imec0.lf", "c_g0_tcat.imec0.ap"):
        spikeglx(tmp_path / "c", name)
    status, rows, text = run(tmp_path, tmp_path)
    assert (status, rows) == (1, {})
    assert "move CatGT's output to a folder of its own" in text
    spikeglx(tmp_path / "own", "name with spaces_g0_tcat.imec0.ap")
    assert run(tmp_path, tmp_path / "own")[2].count("of its own") == 1


def test_files_that_lie_wrongly_are_told_where_to(tmp_path):
    open_ephys(tmp_path / "copied/recording1", {"A-100.R": (["CH1", "CH2"], RATE_HZ)})
    status, rows, text = run(tmp_path, tmp_path)
    assert (status, rows) == (1, {})
    assert "(Open Ephys's folders are experiment1/recording1: bring them back)" in text
    (tmp_path / "CSC1.ncs").touch()
    assert formats.describe_layout(str(tmp_path), "neuralynx") == ""
    (tmp_path / "CSC1_0001.ncs").touch()
    assert "move files _0001.ncs" in formats.describe_layout(str(tmp_path), "neuralynx")


def test_formats_by_content_and_by_name(tmp_path):
    import h5py

    for name, group in (
        ("a.h5", "wells"),
        ("b.h5", "Data/Recording_0/AnalogStream"),
        ("c.h5", "x"),
    ):
        with h5py.File(tmp_path / name, "w") as file:
            file.create_group(group)
    (tmp_path / "d.raw").write_bytes(b"MC_DataTool binary")
    (tmp_path / "e.raw").write_bytes(b"1234")
    for name in ("f.rhd", "g.plx", "h.smrx", "nlx/a.ncs", "tank/x.tsq", "old/100_CH1.continuous"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "day").mkdir()
    for name in ("info.rhs", "amp-A-000.dat", "time.dat"):
        (tmp_path / "day" / name).write_bytes(b"")
    found = {
        (str(Path(one.path).relative_to(tmp_path)), one.reader)
        for one in formats.walk(str(tmp_path), set())
    }
    assert found == {
        ("a.h5", "maxwell"),
        ("b.h5", "mcsh5"),
        ("d.raw", "mcsraw"),
        ("f.rhd", "intan"),
        ("g.plx", "plexon"),
        ("h.smrx", "ced"),
        ("nlx", "neuralynx"),
        ("tank", "tdt"),
        ("old", "openephyslegacy"),
        ("day/info.rhs", "intan"),
        (".", ""),
    }


def test_every_reader_of_the_formats_is_one_of_spikeinterface():
    by_content = {reader for reader, _ in formats.TEXTS.values()} | {*formats.HDF5}
    assert {reader for reader, _ in formats.MARKS.values()} | by_content <= {*readers()}


def test_filtered_copies_and_folders_that_cannot_be_listed(tmp_path, monkeypatch):
    streams = [("WB - wideband", {}), ("SPKC - filtered", {})]
    monkeypatch.setattr(discover, "list_streams", lambda *_: streams)
    monkeypatch.setattr(discover, "_inspect_stream", lambda one, *_: [one])
    (tmp_path / "a.plx").touch()
    found = discover.inspect(formats.Recognised(str(tmp_path / "a.plx"), "plexon"), "probe")
    assert [one.reason for one in found] == ["", "the raw signal, filtered"]

    def deny(folder, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", folder))
        return iter(())

    monkeypatch.setattr(formats.os, "walk", deny)
    (only,) = formats.walk(str(tmp_path), set())
    assert only.failed
    assert "Permission denied" in only.reason


def test_runs_of_one_probe_are_joined_when_asked(tmp_path):
    for gate in (0, 1):
        spikeglx(tmp_path / f"a_g{gate}/a_g{gate}_imec0", f"a_g{gate}_t0.imec0.ap")
    _, rows, _ = run(tmp_path, tmp_path, "--concatenate")
    assert [len(row.paths) for row in rows.values()] == [2]
    assert next(iter(rows.values())).metadata["session"] == "a"
    spikeglx(tmp_path / "a_g2/a_g2_imec0", "a_g2_t0.imec0.ap")
    _, rows, _ = run(tmp_path, tmp_path, "--concatenate")
    assert [len(row.paths) for row in rows.values()] == [2, 1]
    board = {"Acquisition_Board-100.Rhythm": (["CH1", "CH2"], RATE_HZ)}
    for number in (1, 2):
        open_ephys(tmp_path / f"day/Record Node 1/experiment{number}/recording1", board)
    _, rows, _ = run(tmp_path, tmp_path / "day", "--concatenate")
    assert [Path(path).name for path in [*rows.values()][-1].paths] == [
        "experiment1",
        "experiment2",
    ]


def test_runs_of_another_rate_are_not_joined_and_a_link_is_no_second_file(tmp_path, capsys):
    for number, rate_hz in enumerate((RATE_HZ, 20_000, RATE_HZ), start=1):
        board = {"Acquisition_Board-100.Rhythm": (["CH1", "CH2"], rate_hz)}
        open_ephys(tmp_path / f"raw/day/Record Node 1/experiment{number}/recording1", board)
    nwb(tmp_path / "raw/b.nwb", {"ElectricalSeries": RATE_HZ})
    (tmp_path / "raw/a link.nwb").symlink_to(tmp_path / "raw/b.nwb")
    _, rows, _ = run(tmp_path, tmp_path / "raw", "--concatenate")
    assert [[Path(path).name for path in row.paths] for row in rows.values()] == [
        ["b.nwb"],
        ["experiment1", "experiment3"],
        ["experiment2"],
    ]
    assert "not joined" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paths", "n_sessions"),
    [
        (["m1_240101_120000.rhd", "m1_240101_120100.rhd"], 1),
        (["m1_240101_120000/info.rhd", "m1_240101_120100/info.rhd"], 1),
        (["m1_240101_120000.rhd", "m1_240102_090000.rhd"], 2),
        (["m1001.ns5", "m1002.ns5"], 1),
        (["m1-20240101-001.ns5", "m1-20240101-002.ns5"], 1),
        (["m1_20240101001.ns5", "m1_20240101002.ns5"], 1),
        (["m1_20240101.ns5", "m1_20240102.ns5"], 2),
        (["m1_240101.ns5", "m1_240102.ns5"], 2),
    ],
)
def test_runs_of_one_session_are_those_of_one_day(paths, n_sessions):
    rows = [discover.Found(path, "intan", row={"path": path}) for path in paths]
    assert len({one.place() for one in rows}) == n_sessions
    sessions = {one.row["session"] for one in discover.name_rows(rows, ())} - {""}
    assert len(sessions) == (n_sessions if n_sessions == 1 or "rhd" in paths[0] else 0)


def test_sessions_of_two_animals_have_names_of_their_own(tmp_path):
    def add(mouse, gate, probe=0):
        run_ = tmp_path / f"mouse{mouse}/2024-01-01/rec_g{gate}/rec_g{gate}_imec{probe}"
        spikeglx(run_, f"rec_g{gate}_t0.imec{probe}.ap", created=f"2024{mouse}{gate}")

    def sessions():
        rows = run(tmp_path, *sorted(tmp_path.glob("mouse*")))[1].values()
        return sorted({(Path(row.paths[0]).parts[-4], row.session) for row in rows})

    for mouse in "AB":
        add(mouse, 0)
    add("A", 0, probe=1)
    both = [(f"mouse{mouse}", f"mouse{mouse}_2024-01-01_rec") for mouse in "AB"]
    assert sessions() == both
    add("A", 1)  # goes on with what its row in the table has
    assert sessions() == both
    (tmp_path / "recordings.tsv").unlink()
    (tmp_path / "mouseB").rename(tmp_path / "later")
    assert sessions() == [("mouseA", "rec")]
    (tmp_path / "later").rename(tmp_path / "mouseB")
    assert sessions() == [("mouseA", "rec"), ("mouseB", "2024-01-01_rec")]


def test_ids_of_one_name_say_where_each_is(tmp_path):
    for mouse in ("a", "b"):
        spikeglx(tmp_path / f"raw/{mouse}/r_g0/r_g0_imec0", "r_g0_t0.imec0.ap")
    assert [*run(tmp_path, tmp_path / "raw")[1]] == ["a_r_g0_r_g0_imec0", "b_r_g0_r_g0_imec0"]


def test_a_row_a_group_and_ids_that_are_unique(tmp_path):
    for mouse in ("m1", "m2"):
        with_probes(2).save(folder=tmp_path / mouse / "data", verbose=False)
        with_probes(2).save(folder=tmp_path / mouse / "Tët rode;" / "x y", verbose=False)
    _, rows, text = run(tmp_path, tmp_path, "--split-by", "none")
    assert [*rows] == ["m1", "m2"]
    assert "a name of its path cannot be in a table" in text
    (tmp_path / "recordings.tsv").unlink()
    _, rows, _ = run(tmp_path, tmp_path, "--split-by", "tetrode")
    assert [(row.id, row.channels) for row in rows.values()] == [
        ("m1_group-0", "group=0"),
        ("m1_group-1", "group=1"),
        ("m2_group-0", "group=0"),
        ("m2_group-1", "group=1"),
    ]


def test_a_row_a_shank(data, tmp_path):
    _, rows, _ = run(tmp_path, data / "sglx_np2", "--split-by", "shank")
    assert [(row.id, row.channels) for row in rows.values()] == [
        ("run-001_g0_imec0_group-0", "group=0"),
        ("run-001_g0_imec0_group-1", "group=1"),
    ]


def test_ids_of_odd_names(tmp_path):
    names = ("0" * 40 + "1", "-", "summary.tsv", "ü", "x" * 200)
    for name in names:
        with_probes().save(folder=tmp_path / "raw" / name / "data", verbose=False)
    with_probes().save(folder=tmp_path / "raw" / "gates", verbose=False)
    _, rows, _ = run(tmp_path, tmp_path / "raw")
    assert len(rows) == 6
    assert not {"gates", "summary.tsv"} & {*rows}


def test_bad_table_and_missing_folder(tmp_path, capsys):
    assert run(tmp_path, tmp_path)[0] == 0
    table = tmp_path / "recordings.tsv"
    assert discover.main([str(tmp_path / "none"), "--out", str(table)]) == 1
    said = capsys.readouterr().out
    assert f"{tmp_path}/none: does not exist" in said
    assert "No such file" not in said
    within = str(table / "x.tsv")  # not a folder
    assert discover.main([str(tmp_path / "none"), "--out", within, "--jobs", "0"]) == 2
    assert (
        f"the table cannot be written: [Errno 17] File exists: '{table}'" in capsys.readouterr().err
    )
    table.write_text("recording\tpath\nx\ty\n")
    assert discover.main([str(tmp_path), "--out", str(table)]) == 2
    assert "column 'reader' is missing" in capsys.readouterr().err


def test_table_of_the_config_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("lab.yaml").write_text("recordings: lab.tsv\n")
    assert discover.main([str(tmp_path), "--configfile", "lab.yaml", "--jobs", "1"]) == 0
    assert Path("lab.tsv").exists()
    assert "added to lab.tsv" in capsys.readouterr().out
    discover.main([str(tmp_path), "--jobs", "1"])
    assert Path("config/recordings.tsv").exists()


def test_presets_are_proposed_by_probe_and_sorter(tree, data, tmp_path):
    settings = tmp_path / "config.yaml"

    def proposed(folder, **given):
        settings.write_text(yaml.safe_dump(given))
        (tmp_path / "recordings.tsv").unlink(missing_ok=True)
        _, rows, _ = run(tmp_path, folder, "--configfile", settings)
        return [(row.preprocessing, row.params) for row in rows.values()]

    saved, probe1 = tree / "saved/one.zarr", tree / "sub-01/ses-02/ecephys/run_g0/run_g0_imec0"
    circus = {"sorter": {"name": "spykingcircus2"}}
    assert proposed(saved) == [(None, "kilosort4_tetrodes")]
    assert proposed(saved, **circus) == [("tetrodes", None)]
    assert proposed(probe1, **circus) == [("neuropixels1", None)]
    assert proposed(data / "sglx_np2", **circus) == [("neuropixels2", None)]
    assert proposed(data / "sglx_np2") == [(None, None)]
    assert proposed(saved, **circus, preprocessing={"common_reference": {}}) == [(None, None)]


def test_shipped_presets_can_be_applied():
    settings = Config().preprocessing_of
    named = {f"my_{name}": steps for name, steps in settings.items()}
    assert not list(inputcheck.check_steps(Config(preprocessing_of=named)))
    recording = with_probes()
    recording.set_property("inter_sample_shift", np.arange(N) / 13)
    for steps in settings.values():
        made = preprocess(recording, steps)
        assert np.ptp(made.get_traces(end_frame=300)) > 0


def test_nwb_file_tells_when_it_began_and_its_subject(tmp_path):
    path = tmp_path / "x.nwb"
    nwb(path, {"raw": 30_000.0})
    opened = NwbRecordingExtractor(path)
    assert clock.read_start(opened, str(path)) == "2024-01-01T00:00:00+00:00"
    told = {"subject_id": "m7", "species": "Mus musculus"}
    assert read_subject(path) == told
    assert read_subject(tmp_path / "archived.nwb") == {}


def test_analog_inputs_of_blackrock_are_no_electrodes(tmp_path):
    recording = si.NumpyRecording([traces(N)], RATE_HZ, channel_ids=["129", "130", "1", "2"])
    recording.set_property("channel_name", ["ainp1", "ainp2", "chan1", "chan2"])
    recording.save(folder=tmp_path / "day1", verbose=False)
    (row,) = run(tmp_path, tmp_path)[1].values()
    assert row.channels == "1-2"


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        ("CH1 CH2 A1_AUX1 B2_AUX3 ADC4", [2, 3, 4]),
        ("CH1 CH2 ACC1 ACC2 ACC3", [2, 3, 4]),
        ("CH1 accX acc_y ACC-Z accel1 STIM_1 stim", [1, 2, 3, 4, 5, 6]),
        ("ACC1 ACC2 PFC1 PFC2", []),
        ("ACC1 ACC2 ACC3 ACC4 PFC1", []),
        ("ACC1 ACC2 ACC3", []),
        ("stim1 stim4 CH1", []),
        ("AUX1 ADC1", [0, 1]),
    ],
)
def test_channels_that_are_no_electrodes(names, left_out):
    found = discover._are_electrodes([(at, name) for at, name in enumerate(names.split())])
    assert [at for at, is_one in enumerate(found) if not is_one] == left_out


def test_channels_that_are_left_out_are_named_in_a_comment(tmp_path):
    ids = ["CH1", "ACC1", "ACC2", "ACC3"]
    recording = si.NumpyRecording([traces(N)], RATE_HZ, channel_ids=ids)
    recording.save(folder=tmp_path / "day1", verbose=False)
    _, rows, text = run(tmp_path, tmp_path)
    assert rows["day1"].channels == "CH1"
    assert "no electrodes, by their names: channels ACC1, ACC2, ACC3" in text


def mcs(path, streams):
    """Write a file of MCS: of each stream its label and kind."""
    kinds = [(x, "i8") for x in ("ChannelID", "Exponent", "ADZero", "Tick", "ConversionFactor")]
    info = np.zeros(N, [*kinds, ("Unit", "S1"), ("Label", "S2")])
    info["ChannelID"], info["Tick"], info["ConversionFactor"], info["Unit"] = range(N), 50, 1, "V"
    with h5py.File(path, "w") as file:
        for number, (label, kind) in enumerate(streams):
            stream = file.create_group(f"Data/Recording_0/AnalogStream/Stream_{number}")
            stream.attrs["Label"], stream.attrs["DataSubType"] = label, np.bytes_(kind)
            stream["ChannelData"] = traces(rate_hz=20_000).T
            stream["ChannelDataTimeStamps"] = [[0, 0, 49_999]]
            stream["InfoChannel"] = info
        file.create_group("Data/Recording_1")


def test_streams_of_mcs_and_of_spikegadgets_without_electrodes(tmp_path):
    streams = [("Electrode Raw Data", "Electrode"), ("Analog Data", "Auxiliary")]
    mcs(tmp_path / "a.h5", [*streams, ("Digital Data", "Digital")])
    status, rows, text = run(tmp_path, tmp_path)
    assert [row.stream_id for row in rows.values()] == ["0"]
    assert "Stream_1 Analog Data Auxiliary, Stream_2 Digital Data Digital\tno electrodes" in text
    assert "Recording_1\tSpikeInterface reads Recording_0 alone" in text
    assert status == 0
    ecu = discover.Found("/x.rec", "spikegadgets", stream="ECU")
    assert next(discover._inspect_stream(ecu, "none", "")).reason.startswith("no electrodes")


def test_runs_that_could_not_be_joined_are_not_said_to_be(tmp_path, capsys):
    for number, names in enumerate((["CH1", "CH2"], ["CH1", "CH3"]), start=1):
        board = {"Acquisition_Board-100.Rhythm": (names, RATE_HZ)}
        open_ephys(tmp_path / f"day/Record Node 1/experiment{number}/recording1", board)
    assert len(run(tmp_path, tmp_path)[1]) == 2
    assert "--concatenate" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ids", "named"),
    [
        (["CH1", "CH2", "CH3", "AUX1"], "CH1-CH3"),
        (["CH1", "CH3", "CH2", "AUX1"], "CH1,CH3,CH2"),
        (["CH3", "CH2", "CH1", "AUX1"], "CH3-CH1"),
    ],
)
def test_channels_out_of_order_are_listed(tmp_path, ids, named):
    recording = si.NumpyRecording([traces(N)], RATE_HZ, channel_ids=ids)
    recording.save(folder=tmp_path / "day1", verbose=False)
    (row,) = run(tmp_path, tmp_path)[1].values()
    assert row.channels == named
