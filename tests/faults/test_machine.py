"""The machine under a sort: a full disk, a clock that jumps, folders that go away."""

import os
import shutil
import subprocess
import time

import psutil
import pytest

from spikecanary import sentinel
from spikecanary.sentinel import read_journal
from workbench import snakemake_command

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path):
    """Mount 1300 MB of memory as a disk; where that is not allowed, None."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1300m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("part", ["window", "full"])
def test_disk_fills(project, small_disk, ledger, part):
    project.config["watchdogs"] = {"min_free_disk_mb": 1200}
    what = "a tmpfs with 100 MB more than the limit"
    results = small_disk
    if small_disk is None:  # a stand-in: the limit comes near instead of the disk's end
        what = "stand-in: a limit 70 MB below the free space, no mount allowed"
        results = project.result()
        free_mb = psutil.disk_usage(str(project.folder)).free / 1e6
        project.config["watchdogs"] = {"min_free_disk_mb": free_mb - 70}
    project.config["pathvars"] = {"results": str(results)}
    project.add("healthy")
    project.add("filler", sorter=f"fill_{part}")
    run = project.run("--cores", "1")
    assert run.returncode == 1
    last = read_journal(results / "filler/attempts.jsonl")[-1]
    failure = last["failure"]
    wrong = [last] * (failure["class"] != "DiskExhaustionError")
    if small_disk is not None:
        assert 1000 < failure["evidence"]["free_mb"] < 1200
    assert "temp_wh.dat: " in failure["evidence"]["largest"][0]
    assert any("MB free for" in warning for warning in last["warnings"])
    lost = [] if (results / "healthy/sort.json").exists() else ["healthy"]
    ledger.note(f"disk filled in the {part} ({what})", last["reason"], lost, wrong)
    assert not list((results / "filler").glob(".*-*"))


#: Loaded by every Python process of a run: its wall clock goes by a file's number of days.
CLOCK = """
import pathlib, time

wall, clock = time.time, pathlib.Path({clock!r})
time.time = lambda: wall() + 86400 * float(clock.read_text() or 0)
"""


def test_clock_jumps(project, ledger):
    """A year forward in the canary, two years back in the sort.

    A stand-in for the machine's clock, which a test must not set (and libfaketime breaks
    sleeping, too): the clocks of all Python processes of the run.
    """
    project.add("x")
    project.config["sorter"]["params"] = {"sleep_s": 3.0}
    project.write()
    clock = project.folder / "clock"
    clock.write_text("0")
    site = project.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(CLOCK.format(clock=str(clock)))
    environment = os.environ | {"PYTHONPATH": str(site)}
    output = project.folder / "output.txt"
    with output.open("w") as file:
        run = subprocess.Popen(
            snakemake_command(*project.arguments("--latency-wait", "1")),
            cwd=project.folder,
            stdout=file,
            stderr=file,
            env=environment,
        )
    for rule, jump in (("canary", "365"), ("sort", "-730")):
        log = project.folder / f"logs/{rule}/x.log"
        while run.poll() is None and not (log.exists() and "quick sorter" in log.read_text()):
            time.sleep(0.1)
        clock.write_text(jump)
    run.wait(timeout=60)
    verdict, record = project.sentinel("x"), project.sort_record("x")
    assert verdict["finished_at"][:4] > verdict["started_at"][:4]
    assert record["finished_at"][:4] < record["started_at"][:4]
    assert 3 < record["measured"]["stages_s"]["sort"] < 30
    wrong = [verdict] * (verdict["outcome"] != "passed") + [record] * (
        record["outcome"] != "sorted"
    )
    ledger.note("clock jumps by a year, and back by two (stand-in)", record["reason"], wrong=wrong)


@pytest.mark.parametrize("rule", ["canary", "sort"])
def test_results_folder_removed(project, ledger, rule):
    project.add("x")
    project.add("y")
    part = "window" if rule == "canary" else "full"
    project.rows[0]["sorter"] = f"hang_{part}"
    project.write()
    with (project.folder / "output.txt").open("w") as file:
        run = subprocess.Popen(
            snakemake_command(*project.arguments()), cwd=project.folder, stdout=file, stderr=file
        )
    log = project.folder / f"logs/{rule}/x.log"
    while run.poll() is None and not (log.exists() and "quick sorter" in log.read_text()):
        time.sleep(0.1)
    while run.poll() is None and not project.result("y/sort.json").exists() and rule == "sort":
        time.sleep(0.1)
    shutil.rmtree(project.result(), ignore_errors=True)
    run.wait(timeout=60)
    assert "was removed while the sort ran" in (project.folder / "output.txt").read_text()
    project.rows[0]["sorter"] = "quick"
    again = project.run()
    assert again.returncode == 0
    table = project.summary()
    assert list(table["sort"]) == ["sorted", "sorted"]
    for path in project.result().glob("*/canary.json"):
        sentinel.read_record(path)
    ledger.note(f"results folder removed during a {rule}", "the next run makes it all again")
