"""A machine that cannot run a sorter costs one trial, and no canary."""

import csv
import shutil

import pytest

from engine import Engine
from workbench import ROOT

EIGHT = "a b c d e f g h"
ALTERNATING = "- simple " * 4


@pytest.fixture
def engine(tmp_path):
    """Make eight recordings, every second of which is sorted by ``simple``."""
    batch = Engine(tmp_path, EIGHT)
    batch.rows(EIGHT, sorter=ALTERNATING)
    return batch


def summary(engine):
    with engine.result("summary.tsv").open() as file:
        return {row["recording"]: row for row in csv.DictReader(file, delimiter="\t")}


@pytest.mark.parametrize("target", ["all", "sorted"])
def test_only_the_broken_kind_waits(engine, target):
    engine.world(kilosort4="environment")
    assert engine.plan() == "8 canaries, 8 sorts"
    first = engine.run(target)
    assert first.done("node") == "node: kilosort4 simple; exit 1"
    assert first.done() == "canary: b d f h; sort: b d f h; exit 1"
    assert [row["sort"] for row in summary(engine).values()] == ["pending", "sorted"] * 4
    # Again until it passes; what passed is not tried again.
    assert engine.run().done("node", "canary") == "node: kilosort4; exit 1"
    engine.world()
    healed = engine.run()
    assert healed.done("node") == "node: kilosort4; exit 0"
    assert healed.done() == "canary: a c e g; sort: a c e g; exit 0"
    assert engine.run().done("node", "canary", "sort") == "exit 0"


@pytest.mark.medium
@pytest.mark.parametrize("target", ["all", "sorted"])
def test_verdicts_of_all_sorters_come_before_any_sort(tmp_path, target):
    names = "a b c d e f g h i j k l"
    engine = Engine(tmp_path, names)
    engine.rows(names, sorter="- - - - simple simple simple simple " + "mountainsort5 " * 4)
    run = engine.run(target, "--scheduler", "greedy")
    rules = [rule for rule, _ in run.order]
    assert rules.index("sort") == rules.count("node") + rules.count("canary") == 15


@pytest.mark.slow
def test_when_a_trial_is_made_again(engine):
    assert engine.run().status == 0
    engine.result(".nodes/kilosort4.json").unlink()
    assert engine.run().done("node", "canary", "sort") == "exit 0"  # nothing is to be tested
    more = "i j k l m"
    engine.rows(f"{EIGHT} {more}", sorter=ALTERNATING + "simple " * 5)
    assert engine.run().done("node", "canary") == "canary: i j k l m; exit 0"
    params = {"sorter": {"params": {"nblocks": 0}}}
    changed = engine.run(**params)
    assert changed.done("node", "canary") == "node: kilosort4; canary: a c e g; exit 0"
    # Three are not worth it.
    engine.rows(f"{EIGHT} {more} n o p", sorter=ALTERNATING + "simple " * 5 + "- - -")
    engine.result(".nodes/kilosort4.json").unlink()
    assert engine.run(**params).done("node", "canary") == "canary: n o p; exit 0"


@pytest.mark.parametrize("wave_size", [4, 50])
def test_what_waits_for_no_machine(engine, wave_size):
    """What is made of finished sorts, and recordings that are sorted whatever a canary says."""
    engine.world(kilosort4="environment", a="environment")
    engine.rows(EIGHT)
    forced = engine.run(canary={"force": EIGHT.split()}, gate={"wave_size": 50})
    assert forced.done("node", "sort") == "sort: a b c d e f g h; exit 0"
    engine.rows(f"{EIGHT} i j k l")
    more = engine.run(outputs=["units"], gate={"wave_size": wave_size})
    assert more.done("node", "canary", "curate") == (
        "node: kilosort4; curate: a b c d e f g h; exit 1"
    )


@pytest.mark.medium
def test_broken_kind_holds_back_no_removed_file_of_another(engine):
    engine.rows("a b c", sorter="simple simple -")
    assert engine.run().status == 0
    engine.rows("a b c d e f g", sorter="simple simple - - - - -")
    engine.world(kilosort4="environment")
    shutil.rmtree(engine.result("a/sorting"))
    assert engine.run().done("node", "sort") == "node: kilosort4; sort: a; exit 1"


def test_sorted_waits_for_the_machine_behind_a_gate_that_stands(engine):
    engine.rows("a b")
    assert engine.run("sorted", gate={"wave_size": 50}).status == 0
    engine.rows(EIGHT)
    engine.world(kilosort4="environment")
    broken = engine.run("sorted", gate={"wave_size": 50})
    assert broken.done("node", "canary", "sort") == "node: kilosort4; exit 1"
    engine.world()
    mended = engine.run("sorted", gate={"wave_size": 50})
    assert mended.done() == "canary: c d e f g h; sort: c d e f g h; exit 0"


def test_machine_without_cuda(engine):
    """The real trial: every second recording wants a GPU that is not there."""
    shutil.copy(ROOT / "scripts/node.py", engine.folder / "scripts/node.py")
    engine.rows(EIGHT)
    run = engine.run(sorter={"device": "cuda"})
    assert run.done("canary") == "exit 1"
    assert "  8 recordings wait for it. Run on a node with a working GPU" in run.output
    row = summary(engine)["a"]
    assert (row["category"], row["failure"]) == ("environment", "GPUUnavailableError")
    assert row["reason"].startswith("kilosort4 cannot run on this machine: CUDA was asked for")
    assert "8 pending, GPUUnavailableError: a, b, c, d, e and 3 more" in run.output
    assert "GPUUnavailableError" in engine.result("report.html").read_text()
