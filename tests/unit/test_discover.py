"""A table from folders: every stream that a person would sort, and no other."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import spikeinterface as si
import yaml
from spikeinterface.core import NumpyRecording
from spikeinterface.extractors.nwbextractors import NwbRecordingExtractor

from laboratory import RATE_HZ, N, nwb, run, traces, with_probes
from spikecanary import discover, inputcheck, plan
from spikecanary.config import Config
from spikecanary.failures import DependencyError
from spikecanary.outputs.nwb import read_subject
from spikecanary.recording import clock, formats, preprocess, readers
from workbench import write_open_ephys as open_ephys
from workbench import write_spikeglx as spikeglx


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
    assert "day1: 2.5 s, 1 channel\n  kilosort4 needs the positions of the channels" in said


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


def test_reader_that_returns_units_too(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "made.h5", "w") as file:
        file.create_group("recordings")
    read = discover.reader_function

    def of(name):
        return (lambda _: (with_probes(), "units")) if name == "mearec" else read(name)

    monkeypatch.setattr(discover, "reader_function", of)
    found = discover.inspect(formats.Recognised(str(tmp_path / "made.h5"), "mearec"), "none")
    assert "tuple" not in found[0].reason


def test_module_that_a_reader_lacks_is_told_with_its_remedy(tmp_path):
    (tmp_path / "a.smrx").write_text("x")
    _, rows, text = run(tmp_path, tmp_path)
    assert rows == {}
    assert "sonpy is not installed" in text
    assert DependencyError.remedy in text


def test_files_that_lie_wrongly_are_told_where_to(tmp_path):
    open_ephys(tmp_path / "copied/recording1", {"A-100.R": (["CH1", "CH2"], RATE_HZ)})
    status, rows, text = run(tmp_path, tmp_path)
    assert (status, rows) == (1, {})
    assert "Open Ephys's folders are experiment1/recording1: bring them back." in text
    (tmp_path / "CSC1.ncs").touch()
    assert formats.describe_layout(str(tmp_path), "neuralynx") == ""
    (tmp_path / "CSC1_0001.ncs").touch()
    assert "Move files _0001.ncs" in formats.describe_layout(str(tmp_path), "neuralynx")


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

    def deny(folder, onerror):
        onerror(PermissionError(13, "Permission denied", folder))
        return iter(())

    monkeypatch.setattr(formats.os, "walk", deny)
    (only,) = formats.walk(str(tmp_path), set())
    assert only.failed
    assert "Permission denied" in only.reason


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
    assert {x[0] for x in proposed(data / "biocam", **circus)} == {"mea_unsigned"}
    assert proposed(saved, **circus, preprocessing={"common_reference": {}}) == [(None, None)]


def test_shipped_presets_can_be_applied():
    settings = Config().preprocessing_of
    named = {f"my_{name}": steps for name, steps in settings.items()}
    assert not list(inputcheck.check_steps(Config(preprocessing_of=named)))
    recording = with_probes()
    recording.set_property("inter_sample_shift", np.arange(N) / 13)
    numbers = np.random.default_rng(1).integers(0, 4096, (3000, N), dtype="uint16")
    unsigned = NumpyRecording([numbers], 30_000.0)
    for name, steps in settings.items():
        made = preprocess(unsigned if name == "mea_unsigned" else recording, steps)
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


@pytest.mark.parametrize("name", ["A1_AUX1", "B2_AUX3", "ADC4", "accX", "acc_y", "ACC-Z", "accel1"])
def test_channels_that_are_no_electrodes(name):
    assert discover.NO_PROBE_CHANNEL.fullmatch(name)


def test_channels_that_are_left_out_are_named_in_a_comment(tmp_path):
    ids = ["CH1", "ACC_X", "ACC_Y", "ACC_Z"]
    recording = si.NumpyRecording([traces(N)], RATE_HZ, channel_ids=ids)
    recording.save(folder=tmp_path / "day1", verbose=False)
    _, rows, text = run(tmp_path, tmp_path)
    assert rows["day1"].channels == "CH1"
    assert "no electrodes, by their names: channels ACC_X, ACC_Y, ACC_Z" in text


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
