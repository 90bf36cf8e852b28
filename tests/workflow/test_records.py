"""Results folders that are not as jobs left them: archived, moved, half lost, closed."""

import json
import os
import shutil

import pytest

from engine import Engine

THREE = "a b c"


@pytest.fixture
def engine(tmp_path):
    return Engine(tmp_path, THREE)


@pytest.mark.medium
def test_archived_batch_stays_as_it_ended(engine):
    """Also what was stopped for good; and archives know whole seconds only."""
    engine.world(b="biological")
    assert engine.run().done() == "canary: a b c; sort: a c; exit 0"
    raws = [engine.folder / f"{name}.raw" for name in THREE.split()]
    for raw in raws:
        raw.rename(raw.with_suffix(".away"))
    assert "Nothing to be done" in engine.run().output
    for raw in raws:
        raw.with_suffix(".away").rename(raw)
        whole_s = int(raw.stat().st_mtime)
        os.utime(raw, (whole_s, whole_s))
    assert "Nothing to be done" in engine.run().output
    engine.raw("b", "xx", new=True)
    assert engine.run().done() == "canary: b; exit 0"


def test_some_files_of_a_folder_are_archived(tmp_path):
    engine = Engine(tmp_path, "a")
    data = engine.folder / "session"
    data.mkdir()
    for name in ("x.ap.bin", "x.ap.meta"):
        (data / name).write_text(name)
    table = engine.folder / "config/recordings.tsv"
    table.write_text("recording\tpath\treader\na\tsession\tspikeglx\n")
    assert engine.run().done() == "canary: a; sort: a; exit 0"
    (data / "x.ap.bin").rename(engine.folder / "archived")
    assert "Nothing to be done" in engine.run().output
    assert engine.run(canary={"force": ["a"], "window_s": 0}).done() == "exit 0"
    (data / "x.ap.bin").write_text("another one, as long as it takes")
    assert engine.run().done() == "canary: a; sort: a; exit 0"


@pytest.mark.medium
def test_stop_whose_journal_is_lost_is_tested_again(engine):
    engine.world(b="resource")
    assert engine.run().status == 1
    engine.result("b/attempts.jsonl").unlink()
    assert engine.run().done() == "canary: b; exit 1"
    engine.world()
    assert engine.run().done() == "canary: b; sort: b; exit 0"


@pytest.mark.medium
def test_folders_that_cannot_be_worked_in_cost_no_other(engine):
    assert engine.run(canary={"force": ["x"]}).status == 1  # bad input: nothing is made
    engine.result().mkdir()
    engine.result("a").write_text("no folder")
    engine.result("b").symlink_to("b")
    run = engine.run()
    assert run.done() == "canary: c; sort: c; exit 1"
    assert engine.run().done() == "exit 1"
    text = "results has no folders of theirs to work in: ['a', 'b']"
    assert f"Left out, {text}" in run.output
    assert f"\n{text}" in engine.run("results/a/sort.json").output
    engine.rows("a b")
    assert f"\n{text}" in engine.run().output
    engine.result("a").unlink()
    engine.result("b").unlink()
    engine.rows(f"{THREE} d")
    engine.result("d").write_text("all of its wave")
    run = engine.run()
    assert run.done() == "canary: a b; sort: a b; exit 1"
    engine.result("d").unlink()
    assert engine.run().done() == "canary: d; sort: d; exit 0"


@pytest.mark.medium
@pytest.mark.parametrize(
    "name", ["summary.tsv", "report.html", ".checked", ".errors", "gates", "waves"]
)
def test_file_in_the_place_of_a_folder_or_the_other_way_round(engine, name):
    path = engine.result(name)
    engine.result().mkdir()
    path.mkdir() if "." in name else path.write_text("")
    run = engine.run()
    assert run.done() == "exit 1"
    assert f"\nresults/{name} should be a {'file' if '.' in name else 'folder'}: " in run.output
    assert "common.smk" not in run.output


@pytest.mark.medium
def test_verdict_that_changed_behind_snakemakes_back_is_said(engine):
    engine.world(b="environment")
    assert engine.run().status == 1
    engine.world()
    assert engine.run("results/b/canary.json").status == 0
    engine.run("--touch")
    run = engine.run()
    assert run.done() == "exit 1"
    assert "with other recordings or verdicts, or unreadable (gates/1.tsv)" in run.output
    again = engine.run("--forcerun", "results/gates/1.tsv")
    assert again.done() == "sort: b; exit 0", again.output


@pytest.mark.medium
def test_record_without_a_part_costs_no_other(engine):
    assert engine.run("results/a/sort.json").status == 0
    path = engine.result("a/sort.json")
    record = json.loads(path.read_text())
    del record["canary_settings"]["task"]
    path.write_text(json.dumps(record))
    assert engine.run().done().startswith("canary: b c; sort: b c")


@pytest.mark.medium
def test_summary_of_a_run_with_errors_is_made_again(tmp_path):
    """Also where what failed is gone from the table, and nothing else is to run."""
    engine = Engine(tmp_path, "a b", gate={"wave_size": 2})
    assert engine.run().status == 0
    engine.rows(THREE)
    engine.world(c="fails")
    for _ in range(2):  # the second time the note is known
        assert engine.run().status == 1
        assert "failed" in engine.result("summary.tsv").read_text()
        engine.rows("a b")
        assert engine.run().done() == "exit 0"
        assert "failed" not in engine.result("summary.tsv").read_text()
        assert "failed" not in engine.result("report.html").read_text()
        engine.rows(THREE)
    engine.rows("a b")
    assert "Nothing to be done" in engine.run().output


@pytest.mark.medium
def test_check_that_was_left_is_made_again(engine):
    assert engine.run().status == 0
    engine.result(".checked").touch()
    lock = engine.folder / ".snakemake/locks/0.output.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("results/.checked")
    engine.run("--summary")
    assert engine.result(".checked").exists()  # another run may await it
    shutil.rmtree(engine.folder / ".snakemake")
    changed = {"sorter": {"params": {"nblocks": 3}}}
    run = engine.run(**changed)
    assert run.done() == "exit 1"
    assert "3 sorted with other settings or data" in run.output


@pytest.mark.medium
def test_number_that_is_written_otherwise_sorts_nothing_again(engine):
    engine.config["outputs"] = ["units"]
    given = {"sorter": {"params": {"nblocks": 1}}}
    engine.world(b="biological")
    assert engine.run(**given).status == 0
    written = engine.run(sorter={"params": {"nblocks": 1.0}})
    assert written.done("canary", "sort", "analyze", "curate") == "exit 0"
