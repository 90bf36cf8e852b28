"""A table from folders: runs of a session, joined or apart, and ids that are unique."""

import re
from pathlib import Path

import pytest

from laboratory import RATE_HZ, nwb, run, with_probes
from spikecanary import discover
from workbench import write_open_ephys as open_ephys
from workbench import write_spikeglx as spikeglx


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
    assert {row.preprocessing for row in rows.values()} == {None}  # CatGT has aligned the samples


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


def test_catgt_in_the_folder_of_other_streams_is_refused_with_the_remedy(tmp_path):
    for name in ("c_g0_t0.imec0.ap", "c_g0_t0.imec0.lf", "c_g0_tcat.imec0.ap"):
        spikeglx(tmp_path / "c", name)
    status, rows, text = run(tmp_path, tmp_path)
    assert (status, rows) == (1, {})
    assert "Move CatGT's output to a folder of its own" in text
    spikeglx(tmp_path / "own", "name with spaces_g0_tcat.imec0.ap")
    assert run(tmp_path, tmp_path / "own")[2].count("of its own") == 1


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
        (["a/m1_g0/m1_g0_imec0", "a/m1_g1/m1_g1_imec0"], 1),
        (["a/m_g1_g0/m_g1_g0_imec0.rhd", "a/m_g2_g0/m_g2_g0_imec0.rhd"], 2),
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


def test_a_gate_after_the_chunks_of_a_row_is_new_and_links_come_after_what_they_lead_to(tmp_path):
    for gate in (0, 1):
        spikeglx(tmp_path / "raw/flat", f"f_g{gate}_t0.imec0.ap")
    (tmp_path / "a link").symlink_to(tmp_path / "raw")
    (tmp_path / "recordings.tsv").write_text(
        "recording\tpath\treader\tstream_id\tchunks\n"
        f"x\t{tmp_path}/raw/flat\tspikeglx\timec0.ap\t0-1,1.5-2.5\n"
    )
    _, rows, _ = run(tmp_path, tmp_path)
    assert [(row.paths, row.start_s) for row in rows.values()] == [
        ((f"{tmp_path}/raw/flat",), None),
        ((f"{tmp_path}/raw/flat",), 2.5),
    ]
