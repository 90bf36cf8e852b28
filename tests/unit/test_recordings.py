"""The table, and opening recordings through their readers."""

import json
from pathlib import Path

import numpy as np
import pytest

from spikecanary import inputcheck, signals, sorter, table
from spikecanary.config import BadInputError, Config
from spikecanary.failures import RecordingUnreadableError, classify
from spikecanary.outputs import phy
from spikecanary.recording import cut_window, describe_header, open_recording, preprocess, remedy_of
from spikecanary.supervise import child
from spikecanary.table import Recording

HEADER = "recording\tpath\treader\treader_options\tstart_s\tend_s\tsubject\n"


def read(tmp_path, text):
    (tmp_path / "table.tsv").write_text(text)
    return table.read_table(tmp_path / "table.tsv")


def test_table(tmp_path):
    rows = read(
        tmp_path,
        "\ufeff# my batch\r\n"
        + HEADER
        + '\none\t/data/a b;  c.raw\tbinary\t{"dtype": "int16"}\t1.5\t\tm1\n'
        + 'two\td\tnwb\t"{""a"": 1}"\t\t\t\n',
    )
    assert rows[0] == Recording(
        id="one",
        paths=("/data/a b", "c.raw"),
        reader="binary",
        reader_options={"dtype": "int16"},
        start_s=1.5,
        metadata={"subject": "m1"},
        line=4,
    )
    assert (rows[1].reader_options, rows[1].line, rows[1].stream_id) == ({"a": 1}, 5, None)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a b\tx\tnwb\t\t\t\t", "column recording: use letters, digits and '.', '_', '-'"),
        ("\tx\tnwb\t\t\t\t", "(recording ''), column recording: is empty"),
        ("../x\tx\tnwb\t\t\t\t", "a letter or digit first, got '../x'"),
        (".x\tx\tnwb\t\t\t\t", "a letter or digit first, got '.x'"),
        ("gates\tx\tnwb\t\t\t\t", "column recording: is the name of a file or folder"),
        ("a\t ; \tnwb\t\t\t\t", "column path: is empty"),
        ("a\tx\t\t\t\t\t", "column reader: is empty"),
        ("a\tx\tnwb\t[1]\t\t\t", "column reader_options: Input should be a valid dictionary"),
        ("a\tx\tnwb\t{\t\t\t", "column reader_options: not JSON: Expecting"),
        ("a\tx\tnwb\t\tnan\t\t", "column start_s: Input should be a finite number, got 'nan'"),
        ("a\tx\tnwb\t\tsoon\t\t", "column start_s: Input should be a valid number"),
        ("a\tx\tnwb\t\t\t-3\t", "column end_s: Input should be greater than or equal to 0"),
        ("a\tx\tnwb\t\t4\t4\t", "end_s 4 s is not after start_s 4 s"),
        ("a\tx\tnwb\t\t\t\t\tmore", "8 fields, but the header has 7"),
    ],
)
def test_bad_row(tmp_path, line, problem):
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, HEADER + line + "\n")
    assert problem in str(caught.value)
    assert "line 2" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("recording\tpaths\treader\n", "column 'path' is missing (did you mean 'paths'?)"),
        (HEADER.replace("subject", "reader"), "column 'reader' appears twice"),
    ],
)
def test_bad_table(tmp_path, text, problem):
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, text)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("chunks", "problem"),
    [
        ("0-60,120", "column chunks: write start-end in seconds, such as 0-60,120-300, got '0-60"),
        ("0-x", "column chunks: Input should be a valid number"),
        ("0-60,60-90", "column chunks: 60 s is not after 60 s"),
        ("0-60,30-90", "column chunks: 30 s is not after 60 s"),
        ("5-5", "column chunks: 5 s is not after 5 s"),
        ("5-5.01,7-8", "5-5.01 s is less than 0.1 s"),
        ("0-60\t3", "chunks is set, and so is start_s or end_s"),
    ],
)
def test_bad_chunks(tmp_path, chunks, problem):
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, f"recording\tpath\treader\tchunks\tend_s\na\tx\tnwb\t{chunks}\n")
    assert problem in str(caught.value)


def test_chunks(tmp_path):
    (row,) = read(tmp_path, "recording\tpath\treader\tchunks\na\tx\tnwb\t0-60, 120.5-300\n")
    assert row.chunks == ((0.0, 60.0), (120.5, 300.0))
    assert Recording.model_validate(json.loads(row.model_dump_json())) == row


def test_all_problems_of_a_table_come_together(tmp_path):
    rows = ["a\tx\tnwb\t{\t-1", "a\tx\tnwb", "b\tx\tnwb\t\t\t\t\tmore"]
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, HEADER + "\n".join(rows) + "\t\t\n")
    found = "\n".join(caught.value.problems)
    for problem in (
        "line 2 (recording 'a'), column reader_options: not JSON",
        "line 2 (recording 'a'), column start_s: ",
        "line 3: recording 'a' is already in line 2",
        "line 4: 10 fields, but the header has 7",
    ):
        assert problem in found
    assert len(caught.value.problems) == 4


def test_columns_without_a_name_and_quotes(tmp_path):
    header = "recording\tpath\treader\tnote\t\t\n"
    rows = read(tmp_path, header + 'a\t"x;y"\tnwb\t5" probe\t\t\n')
    assert rows[0].paths == ("x", "y")
    assert rows[0].metadata == {"note": '5" probe'}


@pytest.fixture
def row(write_binary, reader_options):
    return Recording(
        id="x",
        paths=(str(write_binary("active", 8.0)),),
        reader="binary",
        reader_options=reader_options,
    )


def test_open_concatenates_and_cuts(row, write_binary):
    both = row.model_copy(update={"paths": (*row.paths, str(write_binary("noise", 3.0)))})
    whole = open_recording(both)
    assert describe_header(whole) == {
        "duration_s": 11.0,
        "n_samples": 330_000,
        "n_channels": 4,
        "sampling_frequency_hz": 30_000.0,
        "dtype": "int16",
        "n_probes": 0,
        "gain_to_uV": 1.0,
        "is_binary": False,
    }
    cut = open_recording(both.model_copy(update={"start_s": 7.5, "end_s": 9.0}))
    assert cut.get_num_samples() == 45_000
    np.testing.assert_array_equal(cut.get_traces(), whole.get_traces(0, 225_000, 270_000))
    window = cut_window(cut, 0.5, 1.0)
    np.testing.assert_array_equal(window.get_traces(), whole.get_traces(0, 240_000, 255_000))


@pytest.mark.parametrize("header", [0, 6])
def test_file_stored_by_channel_is_read_by_channel(row, tmp_path, header):
    by_time = open_recording(row)
    path = tmp_path / "by_channel.raw"
    path.write_bytes(b"x" * header + by_time.get_traces().T.tobytes())
    options = row.reader_options | {"time_axis": 1, "file_offset": header}
    by_channel = row.model_copy(update={"paths": (str(path),), "reader_options": options})
    opened = open_recording(by_channel)
    np.testing.assert_array_equal(opened.get_traces(0, 700, 900), by_time.get_traces(0, 700, 900))
    assert opened.channel_ids.tolist() == by_time.channel_ids.tolist()
    assert opened.get_channel_gains().tolist() == by_time.get_channel_gains().tolist()
    assert describe_header(opened)["is_binary"] is False


@pytest.mark.parametrize(
    ("header", "rest", "is_whole"), [(0, 0, True), (80, 0, False), (0, 3, False)]
)
def test_file_that_is_more_than_samples_is_not_handed_to_a_sorter(
    row, tmp_path, header, rest, is_whole
):
    path = tmp_path / "x.raw"
    path.write_bytes(b"x" * header + Path(row.paths[0]).read_bytes() + b"x" * rest)
    options = row.reader_options | {"file_offset": header}
    odd = row.model_copy(update={"paths": (str(path),), "reader_options": options})
    opened = open_recording(odd)
    assert describe_header(opened)["is_binary"] is is_whole
    handed = sorter.prepare(opened, sorter.make_task(odd, Config()))
    assert handed.is_binary_compatible() is is_whole
    assert handed.get_num_samples() == 240_000


def test_probe(row, tetrode):
    opened = open_recording(row.model_copy(update={"probe": str(tetrode)}))
    assert opened.get_channel_locations().shape == (4, 2)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"paths": ("/no/such",)}, "/no/such does not exist (recording x)"),
        ({"probe": "/no/probe.json"}, "probe file /no/probe.json does not exist"),
        ({"reader": "nwb", "reader_options": {}}, "reader 'nwb' cannot open"),
        ({"reader": "nbw"}, "unknown reader 'nbw' (did you mean 'nwb'?)"),
        ({"end_s": 6e8}, "the table asks for 0 s to 600000000 s, but x ends at 8 s"),
        ({"start_s": 8.0}, "the table asks for 8 s to its end, but x ends at 8 s"),
        ({"chunks": ((0.0, 1.0), (7.0, 9.0))}, "the table asks for 7 s to 9 s, but x ends at 8 s"),
    ],
)
def test_what_cannot_be_opened(row, update, message):
    with pytest.raises(RecordingUnreadableError) as caught:
        open_recording(row.model_copy(update=update))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "begins", ["/annex/objects/MD5E-s9--a.dat\n", "version https://git-lfs.gi"]
)
def test_a_file_that_stands_for_another(row, tmp_path, begins):
    (tmp_path / "x.dat").write_text(begins)
    pointer = row.model_copy(update={"paths": (str(tmp_path / "x.dat"),)})
    with pytest.raises(RecordingUnreadableError, match="only points to its content") as told:
        open_recording(pointer)
    assert told.value.remedy.startswith("Fetch it: git ")


def test_a_link_to_what_git_annex_did_not_fetch(row, tmp_path):
    (tmp_path / "x.dat").symlink_to(".git/annex/objects/Xk/2m/MD5E-s9--a.dat")
    with pytest.raises(RecordingUnreadableError) as caught:
        open_recording(row.model_copy(update={"paths": (str(tmp_path / "x.dat"),)}))
    said = classify.classify(child.describe_error(caught.value))
    assert "is a link to '.git/annex/objects/Xk/2m/MD5E-s9--a.dat', which does not" in str(said)
    assert "datalad get" in said.remedy


@pytest.mark.parametrize(
    ("said", "is_named"),
    [
        ("Gaps.\nTo open it, initialize the reader with `ignore_integrity_checks=True`.", 1),
        ("Please select one using the `rec_name` parameter", 1),
        ("Several streams: specify one with the 'stream_name' argument", 0),
        ("use_names_as_ids=True is not possible", 0),
    ],
)
def test_an_option_that_a_reader_names_is_the_remedy(said, is_named):
    assert ("that the message names" in remedy_of(ValueError(said))) == is_named


def test_probe_that_does_not_fit(row, tmp_path):
    from probeinterface import generate_linear_probe, write_probeinterface

    path = tmp_path / "long.json"
    probe = generate_linear_probe(32)
    probe.set_device_channel_indices(range(32))
    write_probeinterface(path, probe)
    with pytest.raises(
        RecordingUnreadableError,
        match=r"wires channels 4, 5, .*; the recording has channels 0 to 3, for one contact",
    ):
        open_recording(row.model_copy(update={"probe": str(path)}))


def test_spikeinterface_folder_and_preprocessing(row, tmp_path):
    saved = open_recording(row).save(folder=tmp_path / "saved", progress_bar=False)
    opened = open_recording(
        Recording(id="y", paths=(str(tmp_path / "saved"),), reader="spikeinterface")
    )
    steps = {"common_reference": {"operator": "average"}}
    referenced = preprocess(opened, steps)
    raw = saved.get_traces(0, 0, 100).astype(float)
    expected = raw - raw.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(referenced.get_traces(0, 0, 100), expected, atol=1)
    assert steps == {"common_reference": {"operator": "average"}}
    assert preprocess(opened, {}) is opened


def test_samples_in_volts_are_scaled(row):
    options = row.reader_options | {"gain_to_uV": 0.5}
    opened = open_recording(row.model_copy(update={"reader_options": options}))
    assert opened.has_scaleable_traces()  # SpikeInterface ignores a gain alone
    scaled = preprocess(opened, {"scale_to_uV": {}, "common_reference": {}})
    assert scaled.get_channel_gains().tolist() == [1.0] * 4
    raw = opened.get_traces(0, 0, 100) * 0.5
    expected = raw - np.median(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(scaled.get_traces(0, 0, 100), expected, atol=1e-3)
    known = {"recordings": "none.tsv", "preprocessing": {"scale_to_uV": {}}}
    assert list(inputcheck.check_steps(Config.model_validate(known))) == []


def test_real_spikeglx(data):
    row = Recording(
        id="np2", paths=(str(data / "sglx_np2"),), reader="spikeglx", stream_id="imec0.ap"
    )
    opened = open_recording(row)
    header = describe_header(opened)
    assert (header["n_channels"], header["duration_s"], header["n_probes"]) == (384, 0.5, 1)
    assert opened.get_property("inter_sample_shift") is not None
    wrong = row.model_copy(update={"stream_id": "imec0.lf"})
    with pytest.raises(RecordingUnreadableError, match=r"imec0\.lf is not in"):
        open_recording(wrong)


def test_real_biocam(data):
    path = data / "biocam/biocam_hw3.0_fw1.6.brw"
    opened = open_recording(Recording(id="b", paths=(str(path),), reader="biocam"))
    header = describe_header(opened)
    assert header["sampling_frequency_hz"] == pytest.approx(19_753.774, abs=1e-3)
    assert (header["n_channels"], header["dtype"]) == (36, "uint16")
    microvolts = opened.get_traces(return_in_uV=True)
    assert abs(np.median(microvolts)) < 100.0
    assert 1.0 < np.std(microvolts) < 100.0


def test_row_survives_as_plain_data(row):
    plain = json.loads(row.model_dump_json())
    opened = open_recording(Recording.model_validate(plain))
    assert describe_header(opened)["duration_s"] == 8.0


def test_class_that_says_it_is_binary_and_keeps_no_file(tmp_path):
    samples = np.random.default_rng(0).normal(0, 50, (30_000, 4)).astype("int16")
    (tmp_path / "x.bin").write_bytes(bytes(8) + samples.tobytes())
    options = {"sampling_frequency": 30_000.0, "num_channels": 4}
    row = Recording(
        id="x", paths=(str(tmp_path / "x.bin"),), reader="whitematter", reader_options=options
    )
    opened = open_recording(row, [], thorough=True)
    assert not describe_header(opened)["is_binary"]
    assert signals.check(opened).failure() is None
    assert phy.find_raw(opened) is None
