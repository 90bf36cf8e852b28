"""A table from folders that grows: what is known, comments, tables as people edit them."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from laboratory import RATE_HZ, nwb, run, with_probes
from spikecanary import discover
from spikecanary.table import read_table
from workbench import write_open_ephys as open_ephys
from workbench import write_spikeglx as spikeglx


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
    node = node.parent  # the streams of a session are numbered over all its nodes
    assert len(found("")) == 1
    open_ephys(node / "Record Node 2/experiment1/recording1", streams)
    assert len(found("")) == 3


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


def test_what_cannot_be_opened_is_added_once_it_can(tmp_path, capsys):
    folder = tmp_path / "a_g0_imec0"
    spikeglx(folder, "a_g0_t0.imec0.ap")
    (folder / "params.py").write_text("")  # Kilosort was here
    raw = folder / "a_g0_t0.imec0.ap.bin"
    whole = raw.read_bytes()
    raw.write_bytes(whole[:250_000])
    status, rows, text = run(tmp_path, tmp_path)
    assert (status, rows) == (1, {})
    assert text.count("copy") == 1  # finish it
    raw.unlink()
    status, rows, text = run(tmp_path, tmp_path)
    assert (status, rows) == (1, {})
    assert "Finish the copy" not in text
    assert "No appropriate combination of .meta and .bin" in text
    raw.write_bytes(whole)
    status, rows, text = run(tmp_path, tmp_path)
    assert (status, [*rows]) == (0, ["a_g0_imec0"])
    assert "combination" not in text


def write_intan(path, n_samples=60_000):
    """Write a file of Intan's of one channel, version 1.0: a header, and blocks of 60 samples."""

    def text(name=""):
        return struct.pack("<I", 2 * len(name)) + name.encode("utf-16-le")

    header = struct.pack("<IhhfhffffffhffIIIh", 0xC6912702, 1, 0, 30_000.0, *[0] * 13, 1)
    group = text() + text() + struct.pack("<hhh", 1, 1, 1)
    channel = text("A-000") + text() + struct.pack("<10h2f", 0, 0, 0, 1, *[0] * 8)
    blocks = np.zeros(n_samples // 60, [("at", "<u4", 60), ("signal", "<u2", 60)])
    blocks["at"] = np.arange(n_samples).reshape(-1, 60)
    path.write_bytes(header + group + channel + blocks.tobytes())


def test_file_that_ends_inside_a_block_gets_one_remedy(tmp_path):
    path = tmp_path / "a.rhd"
    write_intan(path)
    assert [*run(tmp_path, path)[1]] == ["a"]
    (tmp_path / "recordings.tsv").unlink()
    path.write_bytes(path.read_bytes()[:-100])
    text = run(tmp_path, path)[2]
    assert "the file ends inside a block" in text
    assert text.count("Finish the copy, and compare the file with the original.") == 1
    assert "Copy the file" not in text
    assert "num_channels" not in text


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
