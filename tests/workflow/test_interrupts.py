"""Signals to snakemake during a canary: Snakemake's own ways, and nothing half done is left."""

import contextlib
import os
import signal
import subprocess
import time

import psutil
import pytest

from engine import Engine
from spikecanary.sentinel import read_journal
from spikecanary.supervise.processes import is_alive
from workbench import snakemake_command

pytestmark = pytest.mark.medium
SLOW = pytest.mark.slow


def wait_for(condition, timeout_s=60.0):
    """Wait until a condition holds; return its value."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    pytest.fail("it did not happen in time")


@pytest.fixture
def sorting(project):
    """Return a function that starts snakemake, and waits until a sorter and its child run."""

    def start(sleep_s):
        project.add("slow")
        project.config["sorter"]["params"] = {"sleep_s": sleep_s, "grandchild": True}
        project.write()
        output = project.folder / "output.txt"
        with output.open("w") as file:
            snakemake = subprocess.Popen(
                snakemake_command(*project.arguments()),
                cwd=project.folder,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        log = project.folder / "logs/canary/slow.log"
        wait_for(lambda: log.exists() and "quick sorter" in log.read_text())
        process = psutil.Process(snakemake.pid)
        wait_for(lambda: any(each.name() == "sleep" for each in process.children(recursive=True)))
        tree = process.children(recursive=True)
        assert len(tree) >= 3
        assert list(project.result("slow").glob(".canary-*"))
        return snakemake, tree

    return start


@SLOW
def test_sigterm_while_jobs_are_selected(tmp_path):
    """From hundreds: Snakemake's other scheduler holds a lock for most of that time."""
    engine = Engine(tmp_path, " ".join(f"r{number}" for number in range(400)))
    engine.config["gate"] = {"wave_size": 400}
    with (tmp_path / "output.txt").open("w") as file:
        run = subprocess.Popen(
            engine.command(cores=2), cwd=tmp_path, stdout=file, stderr=file, start_new_session=True
        )
    order = tmp_path / "order.log"
    wait_for(lambda: order.exists() and len(order.read_text().splitlines()) > 10, timeout_s=120)
    time.sleep(0.5)
    run.terminate()
    try:
        assert run.wait(timeout=60) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)


def check_nothing_is_left(project, tree):
    wait_for(lambda: not any(is_alive(each) for each in tree), timeout_s=45)
    assert list(project.result().rglob("canary.json")) == []
    assert list(project.result().rglob("*canary-*")) == []
    (line,) = read_journal(project.result("slow/attempts.jsonl"))
    assert (line["kind"], line["outcome"]) == ("canary", "interrupted")
    project.config["sorter"]["params"] = {}
    assert project.run().returncode == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW)])
def test_signal_to_the_whole_group_ends_the_jobs(project, sorting, signum):
    """Ctrl-C in a terminal; a batch system that ends the job in which snakemake runs."""
    snakemake, tree = sorting(120.0)
    os.killpg(snakemake.pid, signum)
    assert snakemake.wait(timeout=90) == 1
    assert list(project.summary()["sort"]) == ["pending"]
    check_nothing_is_left(project, tree)


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGHUP, marks=SLOW), signal.SIGKILL])
def test_jobs_of_a_snakemake_that_died_end_themselves(project, sorting, signum):
    snakemake, tree = sorting(120.0)
    os.kill(snakemake.pid, signum)
    assert snakemake.wait(timeout=10) == -signum
    wait_for(lambda: not any(is_alive(each) for each in tree), timeout_s=45)
    locked = project.run()
    assert locked.returncode == 1
    assert "Directory cannot be locked" in locked.output
    assert "--unlock" in locked.output
    assert project.run("--unlock").returncode == 0
    check_nothing_is_left(project, tree)


@SLOW
def test_sigterm_to_snakemake_lets_running_jobs_finish(project, sorting):
    snakemake, tree = sorting(5.0)
    snakemake.send_signal(signal.SIGTERM)
    assert snakemake.wait(timeout=60) == 1
    assert project.sentinel("slow")["outcome"] == "passed"
    assert not project.result("slow/sort.json").exists()
    assert not any(is_alive(each) for each in tree)
