"""Kills of snakemake and of its jobs, at any moment; two runs on one results folder.

``FAULT_KILLS=30`` kills at 30 random moments instead of a few.
"""

import os
import random
import signal
import socket
import subprocess
import time
from dataclasses import replace

import psutil
import pytest

from spikecanary.sentinel import read_journal
from spikecanary.supervise.processes import is_alive
from workbench import environment, snakemake_command

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("FAULT_KILLS", "2"))
COMPARED = ["verdict", "outcome", "category", "sort", "n_units", "reason"]
#: Real recordings are short here, so that Kilosort 4 takes seconds.
DURATION_S, WINDOW_S, RATE_HZ = 8.0, 4.0, 20_000.0


def start(project, *arguments):
    """Start snakemake in a project, its output in a file."""
    with (project.folder / "output.txt").open("a") as file:
        return subprocess.Popen(
            snakemake_command(*project.arguments(*arguments)),
            cwd=project.folder,
            env=environment(),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def leftovers(results):
    """Return what no finished run may leave: work folders, temporary files, locks."""
    patterns = (".*-*", "*/.*-*", "*/.*.tmp", "*/.*.lock")
    return [path for pattern in patterns for path in results.glob(pattern)]


@pytest.fixture(scope="session")
def real_recordings(tmp_path_factory):
    """Write two seeded recordings that Kilosort 4 sorts in seconds; one has no spikes."""
    from spikeinterface.generation import NoiseGeneratorRecording, generate_ground_truth_recording

    folder = tmp_path_factory.mktemp("real")
    recording, _ = generate_ground_truth_recording(
        durations=[DURATION_S],
        sampling_frequency=RATE_HZ,
        num_channels=8,
        num_units=6,
        noise_kwargs={"noise_levels": 5.0, "strategy": "on_the_fly"},
        seed=0,
    )
    recording.save(folder=folder / "one", dtype="int16")
    silent = NoiseGeneratorRecording(
        num_channels=8,
        sampling_frequency=RATE_HZ,
        durations=[DURATION_S],
        noise_levels=5.0,
        seed=10,
        strategy="on_the_fly",
    )
    silent.set_probegroup(recording.get_probegroup())
    silent.save(folder=folder / "silent", dtype="int16")
    return folder


@pytest.fixture(params=["quick", "kilosort4"])
def batch(request, project):
    """Make a batch of recordings: two good ones (of Kilosort one), a silent and a missing one."""
    if request.param == "quick":
        for name in ("one", "two", "silent"):
            project.add(name, kind="silent" if name == "silent" else "active")
    else:
        request.getfixturevalue("compiled")
        folder = request.getfixturevalue("real_recordings")
        for name in ("one", "silent"):
            options = {"reader": "spikeinterface", "reader_options": ""}
            project.add(name, path=str(folder / name), **options)
        params = {"nblocks": 0, "batch_size": int(RATE_HZ)}
        project.config["sorter"] = {"name": "kilosort4", "device": "cpu", "params": params}
        project.config["canary"] = {"window_s": WINDOW_S, "min_recording_s": WINDOW_S}
    project.add("missing", path="/no/such/file.raw")
    project.write()
    return project


def sibling(project, name):
    """Return the same project in an empty folder of its own beside."""
    folder = project.folder / name
    folder.mkdir()
    beside = replace(project, folder=folder)
    beside.write()
    return beside


def test_snakemake_killed_at_random_moments(batch, ledger, watcher):
    undisturbed = sibling(batch, "undisturbed")
    began = time.monotonic()
    assert undisturbed.run().returncode == 1  # `missing` needs attention
    took_s = time.monotonic() - began
    expected = undisturbed.summary()[COMPARED]
    assert list(expected.loc[["silent", "missing"], "sort"]) == ["stopped", "stopped"]
    assert {*expected["sort"].drop(["silent", "missing"])} == {"sorted"}
    moments = random.Random(os.environ.get("FAULT_SEED", "1"))
    sorter = batch.config["sorter"]["name"]
    for number in range(KILLS if sorter == "quick" else (KILLS + 1) // 2):
        project = sibling(batch, f"killed-{number}")
        moment_s = moments.uniform(0.0, took_s)
        with watcher(project.result()) as watch:
            run = start(project)
            time.sleep(moment_s)
            run.kill()
            run.wait()
            project.run("--unlock", write=False)
            again = project.run(write=False)
        assert again.returncode == 1, again.output
        summary = project.summary()[COMPARED]
        wrong = [] if summary.equals(expected) else [summary]
        lost = [*watch.invalid, *leftovers(project.result())]
        fault = f"{sorter}: snakemake killed after {moment_s:.1f} of {took_s:.1f} s"
        ledger.note(fault, f"same summary, {watch.n_read} times read whole", lost, wrong)


STAGES = [(rule, stage) for rule in ("canary", "sort") for stage in ("load", "sort")]


@pytest.mark.parametrize("batch", ["kilosort4"], indirect=True)
def test_sigterm_in_each_stage(batch, ledger):
    """To the whole process group, as a batch system that ends the job of snakemake does it."""
    batch.rows = batch.rows[:1]
    batch.write()
    for rule, stage in [*STAGES, ("sort", "save")]:
        log = batch.folder / f"logs/{rule}/one.log"
        log.unlink(missing_ok=True)
        lines = len(read_journal(batch.result("one/attempts.jsonl")))
        run = start(batch)
        tree = []
        while run.poll() is None:
            text = log.read_text(errors="replace") if log.exists() else ""
            # The look before a sort has no stages: the first "load" is the sort's.
            if f"spikecanary: stage {stage}\n" in text:
                tree = psutil.Process(run.pid).children(recursive=True)
                os.killpg(run.pid, signal.SIGTERM)
                break
            time.sleep(0.01)
        status = run.wait(timeout=60)
        standing = {path.name for path in batch.result("one").iterdir()}
        allowed = {"attempts.jsonl"} | ({"canary.json"} if rule == "sort" else set())
        journal = read_journal(batch.result("one/attempts.jsonl"))[lines:]
        alive = [each for each in tree if is_alive(each)]
        told = [line["outcome"] for line in journal if line["kind"] == rule]
        if stage == "save" and "sort.json" in standing:  # it was quicker: then it is whole
            allowed |= {"sort.json", "sorting", "sorter_output"}
            told = ["interrupted"] if told == ["sorted"] else told
        wrong = [] if told == ["interrupted"] and status != 0 else [told, status]
        lost = [*(standing - allowed), *alive]
        ledger.note(
            f"kilosort4: SIGTERM in stage {stage} of {rule}", "nothing half done", lost, wrong
        )
    assert batch.run(write=False).returncode == 0
    assert batch.summary().loc["one", "sort"] == "sorted"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_canary_job_is_told_to_end(project, ledger, signum):
    """As a cluster does it: the signal reaches the job, not snakemake. Its wave goes on."""
    project.add("x")
    project.add("y")
    project.config["sorter"]["params"] = {"sleep_s": 5.0, "grandchild": True}
    project.write()
    run = start(project, "--cores", "1")
    log = project.folder / "logs/canary/x.log"
    while run.poll() is None and not (log.exists() and "quick sorter" in log.read_text()):
        time.sleep(0.1)
    time.sleep(0.5)
    (script,) = psutil.Process(run.pid).children()
    tree = script.children(recursive=True)
    assert len(tree) == 2
    script.send_signal(signum)
    assert run.wait(timeout=120) == 0
    psutil.wait_procs(tree, timeout=5)
    alive = [each for each in tree if is_alive(each)]
    verdict, journal = project.sentinel("x"), read_journal(project.result("x/attempts.jsonl"))
    told = [(line["outcome"], line.get("exit_status")) for line in journal[:-2]]
    wrong = [told] * (told != ([] if signum == signal.SIGKILL else [("interrupted", 128 + signum)]))
    wrong += [verdict] * ((verdict["verdict"], verdict["outcome"]) != ("proceed", "unexpected"))
    assert "the canary's job was killed" in verdict["reason"]
    assert list(project.summary()["sort"]) == ["sorted", "sorted"]
    lost = [*alive, *leftovers(project.result())]
    ledger.note(f"{signal.Signals(signum).name} to a canary's job", "its wave goes on", lost, wrong)


@pytest.mark.parametrize("batch", ["quick"], indirect=True)
def test_two_runs_on_one_results_folder(batch, ledger, watcher):
    """From two working directories, which Snakemake's own lock does not keep apart."""
    results = batch.folder / "shared-results"
    batch.config["pathvars"] = {"results": str(results)}
    batch.config["sorter"]["params"] = {"fail_in": "full", "fail_how": "wait"}
    batch.rows = batch.rows[:1]
    first, second = sibling(batch, "first"), sibling(batch, "second")
    hold = first.folder / "hold"
    hold.touch()
    with watcher(results) as watch:
        run = start(first)
        log = first.folder / "logs/sort/one.log"
        while run.poll() is None and not (log.exists() and "quick sorter" in log.read_text()):
            time.sleep(0.05)
        assert start(second).wait(timeout=200) == 1
        hold.unlink()
        assert run.wait(timeout=120) == 0
        again = second.run(write=False)
    assert again.returncode == 0, again.output
    told = (second.folder / "output.txt").read_text()
    assert f"on host {socket.gethostname()}, last seen 20" in told
    assert "sorts this recording. If that process has ended" in told
    sorts = [
        line for line in read_journal(results / "one/attempts.jsonl") if line["kind"] == "sort"
    ]
    outcomes = [(line["outcome"], (line["failure"] or {}).get("class")) for line in sorts]
    wrong = [outcomes] * (("failed", "ConcurrentSortError") not in outcomes)
    wrong += [outcomes] * (outcomes[-1] != ("sorted", None))
    lost = [*watch.invalid, *leftovers(results)]
    ledger.note("two runs with one results folder", "the second one says who sorts", lost, wrong)


def test_lock_in_the_recordings_folder(project, ledger):
    """The lock of an earlier version: no process renews it, and none is known to hold it."""
    project.add("x")
    project.add("y")
    assert project.run("results/x/canary.json").returncode == 0
    lock = project.result("x/.sort.lock")
    lock.write_text("4711\nother-node\n")
    run = project.run()
    assert run.returncode == 1
    assert "another process, last seen 20" in run.output
    assert f"remove {lock.relative_to(project.folder)}" in run.output
    last = read_journal(project.result("x/attempts.jsonl"))[-1]
    wrong = [last] * (last["failure"]["class"] != "ConcurrentSortError")
    assert project.summary().loc["y", "sort"] == "sorted"
    lock.unlink()
    assert project.run().returncode == 0
    ledger.note("lock of an earlier version", last["reason"][:60], wrong=wrong)
