"""SIGTERM and SIGINT to snakemake during a canary leave nothing behind."""

import os
import signal
import subprocess
import time

import psutil
import pytest

from spikecanary.processes import is_alive
from spikecanary.sentinel import read_journal
from workbench import snakemake_command


def wait_for(condition, timeout_s=60.0):
    """Wait until a condition holds; return its value."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    pytest.fail("it did not happen in time")


@pytest.mark.parametrize("whole_group", [False, True], ids=["snakemake", "group"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interrupted_canary_leaves_nothing(project, signum, whole_group):
    project.add("slow")
    project.config["sorter"]["params"] = {"sleep_s": 120.0, "grandchild": True}
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
    tree = wait_for(
        lambda: [
            each
            for each in psutil.Process(snakemake.pid).children(recursive=True)
            if each.name() == "sleep"
        ]
    )
    tree = psutil.Process(snakemake.pid).children(recursive=True)
    assert len(tree) >= 3
    assert list(project.result("slow").glob(".canary-*"))
    if whole_group:
        os.killpg(snakemake.pid, signum)
    else:
        os.kill(snakemake.pid, signum)
    assert snakemake.wait(timeout=30) == 128 + signum
    assert [each for each in tree if is_alive(each)] == []
    assert list(project.result().rglob("canary.json")) == []
    assert list(project.result().rglob("*canary-*")) == []
    (line,) = read_journal(project.result("slow/attempts.jsonl"))
    assert (line["kind"], line["outcome"]) == ("canary", "interrupted")
    assert list(project.summary()["sort"]) == ["pending"]
    project.config["sorter"]["params"] = {}
    assert project.run().returncode == 0
