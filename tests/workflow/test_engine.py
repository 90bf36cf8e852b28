"""What runs, what runs again and what is cut: the real rules, with stubs for jobs.

The scenarios are real runs; a dry run is looked at where it promises something.
"""

import os
import re
import shutil
import time

import pytest

from engine import IDS, Engine
from spikecanary.outputs import FILES
from workbench import Run

LATER = pytest.mark.medium  # stubs, too, but more than `make check` has time for


def later(*values):
    """Return parameters of a test that are tested later than its others."""
    return [pytest.param(value, marks=LATER) for value in values]


def slow(*values):
    """Return parameters of a test that are tested last."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def test_story_of_a_batch(engine):
    """First run, repair, rows added, windows changed, versions bumped."""
    engine.world(b="biological", d="environment")
    assert engine.plan() == "6 canaries, 6 sorts"
    first = engine.run()
    assert first.done() == "canary: a b c d e f; sort: a c e f; exit 1"
    assert [rule for rule, _ in first.order[:7]] == ["node"] + ["canary"] * 6  # verdicts first
    assert engine.plan() == "1 canaries, 1 sorts"
    assert engine.run().done() == "canary: d; exit 1"
    engine.world(b="biological")
    assert engine.run().done() == "canary: d; sort: d; exit 0"
    again = engine.run()
    assert again.done() == "exit 0"
    assert "Nothing to be done" in again.output
    engine.rows(IDS + " g h")
    assert engine.run().done() == "canary: g h; sort: g h; exit 0"
    assert engine.result("gates/1.tsv").read_text().count("\n") == 4
    longer = {"canary": {"window_s": 60}}
    assert engine.run(**longer).done() == "canary: b; exit 0"
    engine.rows("a c d e")
    assert engine.run(**longer).done() == "exit 0"
    assert "Nothing to be done" in engine.run(**longer).output


@LATER
def test_sorts_that_run_again_are_named_with_why(finished):
    plan = finished.run("-n", sorter={"params": {"nblocks": 0}})
    assert (
        "6 finished sorts run again, because of what changed: a (other settings: sorter)"
        in plan.output
    )
    assert "run again" not in finished.run("-n").output
    finished.rows(IDS + " g", session="s s t t u u v")
    names = ["units", "figures", "phy", "nwb", "npz", "mat", "report"]
    settings = {"outputs": names, "exports": {"nwb": {"by": "session"}}}
    plan = finished.run("-n", sorter={"params": {"nblocks": 0}}, **settings)
    lines = plan.output.splitlines()[1:]  # the first is of --configfile
    assert len(lines) <= 25, plan.output


@LATER
def test_following_work_by_hand_makes_nothing_anew_where_there_is_none(finished):
    names = ["units", "figures", "phy"]
    finished.run(outputs=names)
    assert finished.run(outputs=names, curation={"manual": "phy"}).order == []


def test_nothing_is_sorted_again_by_an_update(finished):
    """Every file touched, every docstring edited, a key added, one more output asked for."""
    engine, later = finished, time.time()
    for path in [*engine.folder.rglob("*.py"), *engine.folder.rglob("*.smk")]:
        if ".snakemake" not in path.parts:
            path.write_text(re.sub(r'"""(?=[A-Z])', '"""Edited: ', path.read_text()))
    add_keys(engine.folder / "scripts/spikecanary/config/__init__.py")
    for path in [*engine.folder.rglob("*.*"), engine.folder / "Snakefile"]:
        if not {".snakemake", "results"} & set(path.parts) and path.suffix != ".raw":
            os.utime(path, (later, later))
    run = engine.run(outputs=["units"], canary={"new_key": 3}, sorter={"new_key": 3})
    assert run.done("canary", "sort", "curate") == "curate: a b c d e f; exit 0"
    assert "rule sort:" not in run.output
    assert "rule canary:" not in run.output


def add_keys(path):
    """Add a key with its default to sections of the config's models."""
    text = path.read_text()
    for name in ("SorterSettings", "CanarySettings", "WatchdogSettings", "ForecastSettings"):
        at = text.index("\n\n    ", text.index(f"class {name}(Settings):"))
        text = text[:at] + '\n\n    new_key: int = Field(3, description="New.")' + text[at:]
    path.write_text(text)


@LATER
def test_outputs_that_are_of_an_earlier_sort_are_named_and_not_shown(batches, tmp_path):
    engine = batches(tmp_path, "a b", ("units", "phy"))
    other = {"sorter": {"params": {"nblocks": 0}}}
    run = engine.run(outputs=["units"], **other)
    assert run.done() == "canary: a b; sort: a b; exit 0"
    assert "Older than the sort, so of another: a (phy), b (phy). Run again" in run.output
    page = engine.result("report.html").read_text()
    assert "not shown: phy." in page
    assert 'href="a/phy/"' not in page
    run = engine.run(outputs=["units", "phy"], **other)
    assert "Older than the sort" not in run.output
    assert 'href="a/phy/"' in engine.result("report.html").read_text()


@pytest.mark.parametrize(
    "name", ["sort.json", "units.tsv", *later("sorting", "analyzer", "metrics.tsv", "phy")]
)
def test_removed_output_is_made_again(batches, tmp_path, name):
    engine = batches(tmp_path, "a b", ("units", "phy"))
    path = engine.result("a", name)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    plan = engine.plan()
    run = engine.run()
    assert path.exists()
    assert (engine.result("a/units.tsv").exists(), run.status) == (True, 0)
    sorts = name in ("sorting", "sort.json")
    assert run.done() == ("sort: a; exit 0" if sorts else "exit 0")
    assert plan == f"0 canaries, {int(sorts)} sorts"
    assert {recording for _, recording in run.order} == {"a"}
    assert "Nothing to be done" in engine.run().output


def test_removed_sentinel(finished_but_b):
    """It does not cost a finished sort, whatever else its wave has to do; else it is made again."""
    engine = finished_but_b
    engine.result("a/canary.json").unlink()
    engine.result("b/canary.json").unlink()
    engine.rows("a b c d e f g")
    assert engine.run().done() == "canary: b g; sort: g; exit 0"
    rows = engine.result("summary.tsv").read_text().splitlines()
    assert [row.split("\t")[5] for row in rows[1:3]] == ["sorted", "stopped"]
    assert "Nothing to be done" in engine.run().output


def test_raw_files(finished):
    """Archived and back, dated in the future, completed by a copy with an older time, linked."""
    engine = finished
    away = engine.folder / "away"
    away.mkdir()
    shutil.move(engine.folder / "a.raw", away)
    assert "Nothing to be done" in engine.run().output
    shutil.move(away / "a.raw", engine.folder)
    assert "Nothing to be done" in engine.run().output
    engine.raw("b", "x", age_s=-7200, new=True)
    assert engine.run().done() == "canary: b; sort: b; exit 0"
    assert "Nothing to be done" in engine.run().output
    engine.raw("c", "xx", age_s=86_400, new=True)
    assert engine.run().done() == "canary: c; sort: c; exit 0"
    engine.raw("other", "yy", age_s=10)
    (engine.folder / "d.raw").unlink()
    (engine.folder / "d.raw").symlink_to("other.raw")
    assert engine.run().done() == "canary: d; sort: d; exit 0"
    assert "Nothing to be done" in engine.run().output


@LATER
def test_a_new_recording_dated_in_the_future_costs_nobody(tmp_path):
    engine = Engine(tmp_path, "a b")
    engine.raw("a", age_s=-7200, new=True)
    assert engine.run().done() == "canary: a b; sort: a b; exit 0"
    assert "Nothing to be done" in engine.run().output


def test_paths_are_data(tmp_path):
    """None is a pattern; a folder in which Snakemake cannot run is refused."""
    (tmp_path / "lab <x> <results>").mkdir()
    engine = Engine(tmp_path / "lab <x> <results>", "a b", recordings="table {0} <y>.tsv")
    odd = engine.folder / "{1} {recording} <results> %s $HOME 'q'"
    odd.mkdir()
    shutil.move(engine.folder / "a.raw", odd)
    table = (engine.folder / "config/recordings.tsv").read_text()
    table = table.replace("\ta.raw", f"\t{odd.name}/a.raw")
    (engine.folder / "table {0} <y>.tsv").write_text(table)
    assert engine.run().done() == "canary: a b; sort: a b; exit 0"
    assert "Nothing to be done" in engine.run().output
    moved = engine.folder.rename(tmp_path / "lab {1}")
    engine.folder = moved
    assert f"{moved}: Snakemake takes braces for wildcards" in engine.run().output


def test_reasons_of_jobs_are_short(finished):
    changed = finished.run("-n", "--quiet", "host", job={"threads": 2}).output
    finished.rows(IDS, lab="x x x x x x")
    edited = finished.run("-n", "--quiet", "host").output
    for name, output in {"config": changed, "rows": edited}.items():
        reasons = [line for line in output.splitlines() if "Params have changed" in line]
        assert any(f"now: {{'{name}': '" in reason for reason in reasons)
        assert max(map(len, reasons)) < 400


def test_versions(finished_but_b):
    """A bumped version runs again what it is of, and nothing else."""
    engine = finished_but_b
    reruns = engine.folder / "scripts/spikecanary/reruns.py"
    text = reruns.read_text()
    reruns.write_text(re.sub(r"CANARY_VERSION = \d+", "CANARY_VERSION = 99", text))
    assert engine.plan() == "1 canaries, 1 sorts"
    assert engine.run().done() == "canary: b; exit 0"
    reruns.write_text(re.sub(r"SORT_VERSION = \d+", "SORT_VERSION = 99", text))
    assert engine.plan() == "6 canaries, 6 sorts"
    assert engine.run().done() == "canary: a b c d e f; sort: a c d e f; exit 0"
    assert "Nothing to be done" in engine.run().output


def test_unsorted_recording_turns_to_stop(finished):
    finished.result("f/sort.json").unlink()
    finished.world(f="biological")
    changed = {"canary": {"window_s": 90}}
    assert finished.run(**changed).done() == "canary: f; exit 0"


def test_killed_canary_costs_nobody(engine):
    engine.world(b="killed")
    run = engine.run("--retries", "0")
    assert run.done() == "canary: a b b c d e f; sort: a b c d e f; exit 0"


def test_run_that_was_interrupted_before_any_gate_goes_on(engine):
    """Its summary and report are written by the error hook: they are not the end of it."""
    engine.world(a="interrupted", b="interrupted")
    run = engine.run()
    assert run.status == 1
    assert engine.result("summary.tsv").exists()
    assert not engine.result("gates/1.tsv").exists()
    engine.world()
    assert {name for rule, name in engine.run().order if rule == "sort"} == set("abc")
    assert "Nothing to be done" in engine.run().output


def test_changed_table_without_snakemakes_memory_is_said(engine):
    assert engine.run().status == 0
    shutil.rmtree(engine.folder / ".snakemake")
    engine.rows("x " + IDS)
    run = engine.run()
    assert run.done() == "canary: x; sort: x; exit 1"
    # Whether the table of the wave is made again by itself depends on the order of the first sorts.
    assert re.search(r"tables of waves with other recordings[^(]*\([^)]*gates/2\.tsv", run.output)
    command = re.search(r"(--forcerun .+)", run.output)[1].split()
    assert engine.run(*command).done() == "exit 0"
    rows = engine.result("summary.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows[1:]] == ["x", *IDS.split()]


def test_removed_recording_is_tested_and_sorted_in_one_run(engine):
    engine.rows("a b")
    assert engine.run().status == 0
    shutil.rmtree(engine.result("a"))
    assert engine.run().done() == "canary: a; sort: a; exit 0"
    assert "Nothing to be done" in engine.run().output


def test_removed_gate_hides_no_removed_sorting(engine):
    assert engine.run().status == 0
    engine.result("gates/1.tsv").unlink()
    shutil.rmtree(engine.result("a/sorting"))
    assert engine.run().done() == "sort: a; exit 0"
    shutil.rmtree(engine.result("b/sorting"))
    assert engine.run("sorted").done() == "sort: b; exit 0"


def test_finished_sort_has_its_outputs_whatever_a_later_canary_says(engine):
    assert engine.run().status == 0
    engine.world(b="environment")
    assert engine.run("-R", "canary").done() == "canary: a b c d e f; exit 0"
    engine.world()
    run = engine.run(outputs=["units"])
    assert run.done("sort", "curate") == "curate: a b c d e f; exit 0"


def test_failed_sort_leaves_a_whole_summary(engine):
    engine.world(b="fails")
    run = engine.run()
    assert run.done() == "canary: a b c d e f; sort: a b c d e f; exit 1"
    rows = engine.result("summary.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows[1:]] == IDS.split()
    assert "1 recording needs attention" in run.output
    engine.world()
    assert engine.run().done() == "sort: b; exit 0"


def test_waves_are_of_one_sorter_and_the_summary_in_the_order_of_the_table(engine):
    engine.rows(IDS, sorter="- mountainsort5 - mountainsort5 kilosort4 -")
    assert engine.run().status == 0
    gates = sorted(path.name for path in engine.result("gates").iterdir())
    assert gates == ["1-mountainsort5.tsv", "1.tsv", "2-mountainsort5.tsv", "2.tsv"]
    rows = engine.result("summary.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows[1:]] == IDS.split()
    assert "table_row" not in rows[0]


def test_trigger_of_code_is_warned_of(engine):
    text = "add to your profile: rerun-triggers: [mtime, params, input]"
    assert text not in engine.run("-n").output
    assert text in engine.run("-n", "--rerun-triggers", "mtime", "params", "input", "code").output


def test_terminal_shows_a_table_of_jobs_verdicts_and_no_single_jobs(tmp_path):
    engine = Engine(tmp_path, " ".join(f"r{number}" for number in range(90)))
    engine.config["outputs"] = [*FILES]
    assert len(engine.run("-n").output.splitlines()) <= 25
    assert engine.run("-n", "--quiet", "host").output.count("rule canary:") == 90
    engine.rows("a b c")
    engine.world(b="environment", c="environment")
    output = engine.run("sorted").output
    known = "All verdicts are known: 1 proceed, 2 stopped (docs/troubleshooting.md)"
    assert f"{known}\n  2 stopped, X: b, c\n" in output
    assert output.count("Job stats:") == 1
    assert not re.search("Finished jobid|steps .* done|Select jobs|rule sort", output)


@pytest.mark.parametrize("dry", ["-n", "-nc1", "--dry-run"])
def test_every_way_to_ask_for_a_dry_run(engine, dry):
    run = engine.run(dry)
    assert (run.status, run.order) == (0, [])
    assert "sort                6" in run.output


@pytest.mark.parametrize("lost", ["folder", *slow("touch", "metadata", "triggers")])
def test_records_that_disagree_are_said(batches, tmp_path, lost):
    """Snakemake's memory is lost or says otherwise: nothing would run, and nobody say so."""
    options = ["--drop-metadata"] if lost == "metadata" else []
    engine = Engine(tmp_path, IDS) if options else batches(tmp_path)
    if options:
        assert engine.run(*options).status == 0
    changed = {"sorter": {"params": {"nblocks": 3}}, "canary": {"force": ["c"]}}
    if lost == "folder":
        shutil.rmtree(engine.folder / ".snakemake")
    if lost == "touch":
        assert engine.run("--touch", **changed).status == 0
    options = ["--rerun-triggers", "mtime"] if lost == "triggers" else options
    if lost == "folder":
        sorts = engine.run("sorted", **changed)
        assert sorts.done() == "exit 0"
        assert "6 sorted with other settings or data (a, b, c and 3 more)" in sorts.output
        shutil.rmtree(engine.folder / ".snakemake")
    run = engine.run(*options, **changed)
    assert run.done() == "exit 1"
    assert "6 sorted with other settings or data (a, b, c and 3 more)" in run.output
    command = next(line for line in run.output.splitlines() if "--forcerun " in line)
    files = command.split("--forcerun ")[1].split()
    assert len(files) == 6
    mended = engine.run(*options, "--forcerun", *files, **changed)
    assert mended.done() == "canary: a b c d e f; sort: a b c d e f; exit 0"
    assert engine.run(*options, **changed).done() == "exit 0"


@LATER
def test_environment_stop_that_is_not_tested_again_is_said(engine):
    engine.world(b="environment")
    assert engine.run().status == 1
    shutil.rmtree(engine.folder / ".snakemake")
    engine.world()
    run = engine.run()
    assert run.done() == "exit 1"
    assert "1 not tested again (b)" in run.output
    assert engine.run("--forcerun", "results/b/canary.json").done() == "canary: b; sort: b; exit 0"
    assert engine.run().done() == "exit 0"


def test_a_sort_that_found_nothing_needs_attention(engine):
    engine.world(b="unsortable")
    run = engine.run()
    assert run.done() == "canary: a b c d e f; sort: a b c d e f; exit 1"
    assert "1 unsortable" in run.output
    assert "the full sort found no units, and its canary found" in run.output
    run = engine.run()
    assert run.done() == "exit 1"
    assert "1 recording needs attention" in run.output
    assert engine.run("results/a/sort.json").status == 0
    engine.rows("a c d e f")
    assert engine.run().status == 0


def test_status_is_of_this_runs_targets(engine):
    engine.world(b="environment")
    assert engine.run().status == 1
    assert engine.run("results/a/sort.json", "--forcerun", "sort").status == 0
    assert engine.run("results/b/canary.json").status == 1


def test_verdicts_come_first_on_two_cores(tmp_path):
    """The story shows it on one."""
    engine = Engine(tmp_path, "a b c d e f g h", gate={"wave_size": 2})
    run = engine.run(cores=2)
    # The job beside the last canary may begin before it.
    assert [rule for rule, _ in run.order[:8]] == ["node"] + ["canary"] * 7
    assert run.done() == "canary: a b c d e f g h; sort: a b c d e f g h; exit 0"


def test_keys_in_another_order_run_nothing(tmp_path):
    engine = Engine(tmp_path, "a b")
    sorter = {"name": "mountainsort5"}  # its parameters are checked without PyTorch
    first = {"sorter": sorter | {"params": {"scheme": "1", "detect_sign": 1}}}
    other = {"sorter": sorter | {"params": {"detect_sign": 1, "scheme": "1"}}}
    assert engine.run(**first).status == 0
    assert "Nothing to be done" in engine.run(**other).output


def test_force_does_not_touch_what_is_sorted(finished):
    forced = finished.run("-n", "--quiet", "host", canary={"force": ["a"]})
    assert set(Run(forced.status, forced.output).jobs()) == {"report"}  # which shows the config


def test_limits_sort_nothing_again(finished):
    limits = {
        "watchdogs": {"io_stall_s": 99},
        "retry": {"gpu_memory_times": 1},
        "sorter": {"keep_output": False},
    }
    assert finished.run(**limits).done() == "exit 0"


@pytest.mark.slow
def test_through_an_executor_whose_jobs_read_the_rules_again(engine):
    """As on a cluster: each job is a snakemake of its own, which reads config and table again."""
    remote = (
        "--executor",
        "cluster-generic",
        "--cluster-generic-submit-cmd",
        "bash",
        "--jobs",
        "1",
    )
    remote = (*remote, "--latency-wait", "1", "--max-status-checks-per-second", "100")
    engine.rows("a b c")
    engine.world(b="biological", c="environment")
    first = engine.run(*remote, "--quiet", "progress", job={"threads": 1, "gpu": 2})
    assert first.done() == "canary: a b c; sort: a; exit 1"
    assert "gpu=2" in first.output  # however many this machine has
    # Where jobs have a terminal of their own, the gate tells.
    assert re.search(r"\d of 3  a  proceed, passed", first.output)
    assert re.search(r"1 of 1  a  sorted, ", first.output)
    engine.world(b="biological")
    assert engine.run(*remote).done() == "canary: c; sort: c; exit 0"
    shutil.move(engine.folder / "a.raw", engine.folder / "archived")
    shutil.rmtree(engine.result("c/sorting"))
    longer = {"canary": {"window_s": 60}}
    assert engine.run(*remote, **longer).done() == "canary: b; sort: c; exit 0"
    assert "Nothing to be done" in engine.run(*remote, **longer).output
    shutil.move(engine.folder / "archived", engine.folder / "a.raw")
    engine.rows("a b c d e f g")  # many, but no trial of the machine that only hands jobs out
    gates = ("results/gates/2.tsv", "results/gates/3.tsv")
    assert engine.run(*gates, *remote, **longer).done("node", "canary") == "canary: d e f g; exit 0"


@LATER
def test_without_spikeinterface(engine, monkeypatch):
    """The process that reads the rules needs snakemake, pydantic and pandas alone."""
    site = engine.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(HIDDEN)
    monkeypatch.setenv("PYTHONPATH", str(site))
    engine.is_fresh = True
    engine.rows(IDS, sorter="quick - - - - -")
    assert engine.plan() == "6 canaries, 6 sorts"
    assert engine.run("--lint").status == 0
    run = engine.run()
    assert run.done() == "canary: a b c d e f; sort: a b c d e f; exit 0"
    monkeypatch.delenv("PYTHONPATH")
    # The same parameters where it is installed: nothing runs again.
    engine.rows(IDS, sorter="kilosort4 - - - - -")
    assert engine.run().done() == "canary: a; sort: a; exit 0"


#: Hides all that SpikeInterface and the sorters need from the processes of a run.
HIDDEN = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"spikeinterface", "kilosort", "neo", "probeinterface", "torch",
                                  "numba", "scipy", "filelock", "docker", "matplotlib",
                                  "pynvml"}:
            raise ModuleNotFoundError(f"hidden: {name}", name=name)

sys.meta_path.insert(0, Hide())
"""
