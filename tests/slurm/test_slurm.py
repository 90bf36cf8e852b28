"""The workflow on a real Slurm cluster of three nodes, through profiles/slurm."""

import os
import re
import signal
import subprocess

import pytest

from cluster import NODES, Cluster, wait_until, why_not
from spikecanary.sentinel import read_journal
from workbench import ROOT

pytestmark = pytest.mark.slow
PROFILE = ["--profile", str(ROOT / "profiles/slurm"), "--slurm-no-account"]
#: Nothing here is far away, so nobody has to wait for it.
QUICK = ["--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "2"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start a cluster; skip where that is not possible, but not in CI."""
    reason = why_not()
    if reason is not None:
        if os.environ.get("SPIKECANARY_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm", numbered=False)) as running:
        yield running


@pytest.fixture
def batch(project):
    """Make a project whose jobs fit on a small node."""
    project.config["job"] = {"threads": 1, "mem_mb": 3000, "canary_runtime_min": 7}
    return project


def start(project, cluster, *arguments):
    """Start snakemake through the profile, its output in a file."""
    project.write()
    command = ["snakemake", *project.arguments(*PROFILE, *QUICK, *arguments)]
    with (project.folder / "output.txt").open("w") as file:
        return subprocess.Popen(
            command, cwd=project.folder, env=cluster.environment, stdout=file, stderr=file
        )


def jobs(cluster, since=0):
    """Return every job that the cluster knows, as what ``scontrol show job`` prints of it."""
    lines = cluster.run("scontrol", "--oneliner", "show", "job").splitlines()
    found = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
    return [job for job in found if int(job.get("JobId", 0)) > since]


def newest(cluster):
    """Return the highest number of a job so far."""
    return max((int(job["JobId"]) for job in jobs(cluster) if "JobId" in job), default=0)


def log_has(project, rule, name, text):
    log = project.folder / f"logs/{rule}/{name}.log"
    return log.exists() and text in log.read_text(errors="replace")


def test_batch_to_its_outputs(batch, cluster, tetrode):
    """Each kind of end, and Kilosort 4."""
    batch.config["sorter"] |= {"name": "kilosort4", "device": "cpu", "params": {"nblocks": 0}}
    batch.config["canary"] = {"window_s": 4, "min_recording_s": 6}
    batch.config["job"]["output_mem_mb"] = 2000
    batch.config["outputs"] = ["npz"]
    batch.add("healthy", probe=str(tetrode))
    batch.add("silent", kind="silent", sorter="silent_always")
    batch.add("missing", path="/no/such/file.raw", sorter="quick")
    batch.add("short", duration_s=3.0, sorter="quick")
    batch.add("crashing", sorter="bug_window")
    since = newest(cluster)
    run = start(batch, cluster)
    assert run.wait(timeout=800) == 1, (batch.folder / "output.txt").read_text()  # of `missing`
    summary = batch.summary()
    assert summary["sort"].to_dict() == {
        "healthy": "sorted",
        "silent": "stopped",
        "missing": "stopped",
        "short": "sorted",
        "crashing": "sorted",
    }, summary["reason"].to_dict()
    for name in ("healthy", "short", "crashing"):
        assert batch.result(name, "spikes.npz").exists()
    assert batch.result("report.html").exists()
    ran = jobs(cluster, since)
    assert not [job for job in ran if "ArrayTaskId" in job]  # whose tasks wait for the first
    canaries = [job for job in ran if "rule_canary/" in job["StdOut"]]
    assert len(canaries) == len(summary)
    assert {job["TimeLimit"] for job in canaries} == {"00:07:00"}
    sorts = {
        name: [job for job in ran if f"rule_sort/{name}/" in job["StdOut"]]
        for name in summary.index
    }
    assert {name: len(submitted) for name, submitted in sorts.items()} == {
        "healthy": 1,
        "silent": 0,
        "missing": 0,
        "short": 1,
        "crashing": 1,
    }
    (job,) = sorts["healthy"]
    assert job["TimeLimit"] == "00:10:00"  # the least: this sort takes less than a minute
    asked_mb = float(re.match(r"(\d+)M", job["MinMemoryNode"])[1])
    expected_mb = max(4000, 1.5 * batch.sentinel("healthy")["forecast"]["mem_mb"]["high"])
    assert asked_mb == pytest.approx(expected_mb / 1.048576, rel=0.15)


def test_scancel(batch, cluster):
    batch.add("x")
    batch.config["sorter"]["params"] = {"sleep_s": 90.0, "grandchild": True}
    since = newest(cluster)
    run = start(batch, cluster, "--retries", "0")
    wait_until(lambda: log_has(batch, "canary", "x", "quick sorter"), 120)
    cluster.run("scancel", *{job["JobId"] for job in jobs(cluster, since)})
    wait_until(lambda: batch.result("x/canary.json").exists(), 200)
    line = read_journal(batch.result("x/attempts.jsonl"))[0]
    assert (line["kind"], line["outcome"], line["exit_status"]) == ("canary", "interrupted", 143)
    assert batch.sentinel("x")["outcome"] == "unexpected"  # it was not sorted again
    assert "the canary's job was killed" in batch.sentinel("x")["reason"]
    run.send_signal(signal.SIGINT)
    run.wait(timeout=200)
    cluster.run("scancel", "--user=root")
    assert list(batch.result("x").glob(".canary-*")) == []


def test_scancel_of_a_sort(batch, cluster):
    batch.add("x", sorter="hang_full")
    run = start(batch, cluster, "--retries", "0")
    wait_until(lambda: log_has(batch, "sort", "x", "quick sorter"), 200)
    cluster.run("scancel", "--user=root")
    assert run.wait(timeout=200) == 1
    last = read_journal(batch.result("x/attempts.jsonl"))[-1]
    assert (last["kind"], last["outcome"], last["exit_status"]) == ("sort", "interrupted", 143)
    assert {path.name for path in batch.result("x").iterdir()} == {"canary.json", "attempts.jsonl"}
    assert batch.summary().loc["x", "sort"] in ("failed", "pending")


def test_memory_limit_is_raised_by_a_retry(batch, cluster):
    """The first sort takes more memory than its job has; the second job gets as much again."""
    batch.add("x", sorter="block_full")
    since = newest(cluster)
    run = start(batch, cluster, "--retries", "1")
    assert run.wait(timeout=400) == 0, (batch.folder / "output.txt").read_text()
    sorts = [job for job in jobs(cluster, since) if "rule_sort" in job["Comment"] + job["StdOut"]]
    asked = [float(re.match(r"(\d+)M", job["MinMemoryNode"])[1]) for job in sorts]
    assert len(asked) == 2
    assert asked[1] == pytest.approx(2 * asked[0], rel=0.05)
    assert batch.summary().loc["x", "sort"] == "sorted"
    assert batch.sort_record("x")["attempt"] == 2


def test_what_no_retry_helps_is_not_sorted_again(batch, cluster):
    batch.add("x", sorter="bug_full")
    run = start(batch, cluster, "--retries", "1")
    assert run.wait(timeout=400) == 1
    sorts = [
        line for line in read_journal(batch.result("x/attempts.jsonl")) if line["kind"] == "sort"
    ]
    assert len(sorts) == 1
    assert log_has(batch, "sort", "x", "not tried again, it would fail again: ZeroDivisionError")


def sorts_running(cluster, since):
    """Return the running sorts' jobs, by recording."""
    found = [job for job in jobs(cluster, since) if job["JobState"] == "RUNNING"]
    named = [(re.search(r"rule_sort/(\w+)/", job["StdOut"]), job) for job in found]
    return {name[1]: job for name, job in named if name}


def test_nodes_that_die_and_jobs_that_are_put_back_cost_nothing(batch, cluster):
    """One node loses power, one is set down, on the third a job is preempted; one is requeued."""
    names = ["a", "b", "c", "d"]
    for name in names:
        batch.add(name, sorter="wait_full")
    hold = batch.folder / "hold"
    hold.touch()
    since = newest(cluster)
    run = start(batch, cluster)
    try:
        wait_until(lambda: len(sorts_running(cluster, since)) == len(NODES), 200)
        running = sorts_running(cluster, since)
        wait_until(lambda: all(log_has(batch, "sort", name, "quick sorter") for name in running))
        dead, down, preempted = running
        cluster.cut_power(running[dead]["NodeList"])
        cluster.run(
            *("scontrol", "update", f"nodename={running[down]['NodeList']}", "state=down"),
            "reason=test",
        )
        node = running[preempted]["NodeList"]
        urgent = ["--partition=urgent", f"--nodelist={node}", "--mem=100", "--output=/dev/null"]
        cluster.run("sbatch", *urgent, "--wrap", "true")
        wait_until(lambda: cluster.state(running[dead]["NodeList"]).startswith("down"))
        wait_until(lambda: {*sorts_running(cluster, since)} - {dead, down, preempted}, 100)
        (requeued, job), *_ = sorts_running(cluster, since).items()
        wait_until(lambda: log_has(batch, "sort", requeued, "quick sorter"))
        cluster.run("scontrol", "requeue", job["JobId"])
    finally:
        hold.unlink()
        cluster.boot(running[dead]["NodeList"])
        cluster.run("scontrol", "update", f"nodename={running[down]['NodeList']}", "state=resume")
    assert run.wait(timeout=400) == 0, (batch.folder / "output.txt").read_text()
    summary = batch.summary()
    assert set(summary["sort"]) == {"sorted"}
    assert set(summary["outcome"]) == {"passed"}
    journals = {name: read_journal(batch.result(name, "attempts.jsonl")) for name in names}
    sorts = {
        name: [line["outcome"] for line in lines if line["kind"] == "sort"]
        for name, lines in journals.items()
    }
    assert all(outcomes.count("sorted") == 1 for outcomes in sorts.values()), sorts
    assert {outcome for outcomes in sorts.values() for outcome in outcomes} == {
        *("interrupted", "sorted")
    }, sorts
    assert sorts[dead] == ["sorted"]  # it could say nothing
    assert "interrupted" in sorts[down]
    assert "interrupted" in sorts[preempted]


def test_host_that_fails_as_others_do_not(batch, cluster):
    """On one node the folder for scratch is missing: its canaries stop, and the node is named."""
    for number in range(6):
        batch.add(f"r{number}")
    scratch = batch.folder / "scratch"
    for node in NODES[1:]:
        (scratch / node).mkdir(parents=True)
    batch.config["job"]["scratch"] = f"{scratch}/$SLURMD_NODENAME"
    run = start(batch, cluster, "results/gates/1.tsv")
    assert run.wait(timeout=200) == 1
    found = [batch.sentinel(f"r{number}") for number in range(6)]
    stopped = {each["host"]: each["failure"] for each in found if each["verdict"] == "stop"}
    assert [each["class"] for each in stopped.values()] == ["FolderNotWritableError"]
    assert {*stopped} == {"n1"}
    output = (batch.folder / "output.txt").read_text()
    assert "Host n1 fails as others do not: FolderNotWritableError" in output
    assert "--exclude=n1" in output
    assert {*scratch.rglob("*")} == {scratch / node for node in NODES[1:]}
