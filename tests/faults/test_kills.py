"""Kills of snakemake and of its jobs, at any moment; two runs on one results folder.

``FAULT_KILLS=30`` kills at 30 random moments instead of a few.
"""

import os
import random
import signal
import subprocess
import time
from dataclasses import replace

import psutil
import pytest

from spikecanary.processes import is_alive
from spikecanary.sentinel import read_journal
from workbench import Project, snakemake_command

KILLS = int(os.environ.get("FAULT_KILLS", "2"))
COMPARED = ["verdict", "outcome", "category", "sort", "n_units", "reason"]
#: Real recordings are short here, so that Kilosort 4 takes seconds.
DURATION_S, WINDOW_S = 16.0, 8.0


def start(project, *arguments):
    """Start snakemake in a project, its output in a file."""
    with (project.folder / "output.txt").open("a") as file:
        return subprocess.Popen(
            snakemake_command(*project.arguments(*arguments)),
            cwd=project.folder,
            stdout=file,
            stderr=file,
        )


def leftovers(results):
    """Return what no finished run may leave: work folders, temporary files, locks, claims."""
    patterns = (".*-*", "*/.*-*", "*/.*.tmp", "*/.*.lock", ".runs/*")
    return [path for pattern in patterns for path in results.glob(pattern)]


@pytest.fixture(scope="session")
def real_recordings(tmp_path_factory):
    """Write three seeded recordings that Kilosort 4 sorts in seconds; one has no spikes."""
    from spikeinterface.generation import NoiseGeneratorRecording, generate_ground_truth_recording

    folder = tmp_path_factory.mktemp("real")
    for seed, name in enumerate(("one", "two")):
        recording, _ = generate_ground_truth_recording(
            durations=[DURATION_S],
            sampling_frequency=30_000.0,
            num_channels=16,
            num_units=6,
            noise_kwargs={"noise_levels": 5.0, "strategy": "on_the_fly"},
            seed=seed,
        )
        recording.save(folder=folder / name, dtype="int16")
    silent = NoiseGeneratorRecording(
        num_channels=16,
        sampling_frequency=30_000.0,
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
    """Make a batch of four recordings: two good ones, a silent and a missing one."""
    names = ("one", "two", "silent")
    if request.param == "quick":
        for name in names:
            project.add(name, kind="silent" if name == "silent" else "active")
    else:
        folder = request.getfixturevalue("real_recordings")
        for name in names:
            options = {"reader": "spikeinterface", "reader_options": ""}
            project.add(name, path=str(folder / name), **options)
        params = {"nblocks": 0}
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
    assert undisturbed.run().returncode == 0
    took_s = time.monotonic() - began
    expected = undisturbed.summary()[COMPARED]
    assert list(expected["sort"]) == ["sorted", "sorted", "stopped", "stopped"]
    moments = random.Random(os.environ.get("FAULT_SEED", "1"))
    for number in range(KILLS):
        project = sibling(batch, f"killed-{number}")
        moment_s = moments.uniform(0.0, took_s)
        with watcher(project.result()) as watch:
            run = start(project)
            time.sleep(moment_s)
            run.kill()
            run.wait()
            again = project.run(write=False)
        assert again.returncode == 0, again.output
        summary = project.summary()[COMPARED]
        wrong = [] if summary.equals(expected) else [summary]
        lost = [*watch.invalid, *leftovers(project.result())]
        name = project.config["sorter"]["name"]
        fault = f"{name}: snakemake killed after {moment_s:.1f} of {took_s:.1f} s"
        ledger.note(fault, f"same summary, {watch.n_read} times read whole", lost, wrong)


STAGES = [(rule, stage) for rule in ("canary", "sort") for stage in ("load", "preprocess", "sort")]


@pytest.mark.parametrize("batch", ["kilosort4"], indirect=True)
def test_sigterm_in_each_stage(batch, ledger):
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
                run.send_signal(signal.SIGTERM)
                break
            time.sleep(0.01)
        status = run.wait(timeout=60)
        standing = {path.name for path in batch.result("one").iterdir()}
        allowed = {"attempts.jsonl"} | ({"canary.json"} if rule == "sort" else set())
        journal = read_journal(batch.result("one/attempts.jsonl"))[lines:]
        alive = [each for each in tree if is_alive(each)]
        told = [line["outcome"] for line in journal if line["kind"] == rule]
        if stage == "save" and "sort.json" in standing:  # it was quicker: then it is whole
            allowed |= {"sort.json", "sorting"}
            told = ["interrupted"] if told == ["sorted"] else told
        wrong = [] if told == ["interrupted"] and status != 0 else [told, status]
        lost = [*(standing - allowed), *alive]
        ledger.note(
            f"kilosort4: SIGTERM in stage {stage} of {rule}", "nothing half done", lost, wrong
        )
    assert batch.run(write=False).returncode == 0
    assert batch.summary().loc["one", "sort"] == "sorted"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_job_is_told_to_end(project, ledger, signum):
    """As a cluster does it: the signal reaches the job, not snakemake."""
    project.add("x")
    project.config["sorter"]["params"] = {"sleep_s": 60.0, "grandchild": True}
    project.write()
    run = start(project)
    log = project.folder / "logs/canary/x.log"
    while run.poll() is None and not (log.exists() and "quick sorter" in log.read_text()):
        time.sleep(0.1)
    time.sleep(0.5)
    (script,) = psutil.Process(run.pid).children()
    tree = script.children(recursive=True)
    assert len(tree) == 2
    script.send_signal(signum)
    assert run.wait(timeout=30) == 1
    psutil.wait_procs(tree, timeout=5)
    alive = [each for each in tree if is_alive(each)]
    journal = read_journal(project.result("x/attempts.jsonl"))
    told = [(line["outcome"], line["exit_status"]) for line in journal]
    wrong = [told] * (told != ([] if signum == signal.SIGKILL else [("interrupted", 128 + signum)]))
    assert not project.result("x/canary.json").exists()
    project.config["sorter"]["params"] = {}
    assert project.run().returncode == 0
    lost = [*alive, *leftovers(project.result())]
    ledger.note(f"{signal.Signals(signum).name} to a job", "the next run sorts", lost, wrong)


@pytest.mark.parametrize("apart_s", [0.0, 6.0, 14.0])
@pytest.mark.parametrize("batch", ["quick"], indirect=True)
def test_two_runs_on_one_results_folder(batch, ledger, watcher, apart_s):
    results = batch.folder / "shared-results"
    batch.config["pathvars"] = {"results": str(results)}
    batch.config["sorter"]["params"] = {"sleep_s": 2.0}
    first, second = sibling(batch, "first"), sibling(batch, "second")
    with watcher(results) as watch:
        runs = [start(first)]
        time.sleep(apart_s)
        runs.append(start(second))
        statuses = [run.wait(timeout=120) for run in runs]
    outputs = [(each.folder / "output.txt").read_text() for each in (first, second)]
    assert sorted(statuses) == [0, 1], outputs
    told = outputs[statuses.index(1)]
    assert "ConcurrentSortError" in told or "has just begun to work on" in told
    assert "process " in told
    lines = [read_journal(results / name / "attempts.jsonl") for name in ("one", "two")]
    twice = [each for each in lines if [line["kind"] for line in each] != ["canary", "sort"]]
    lost = [*watch.invalid, *leftovers(results)]
    again = second.run(write=False)
    assert again.returncode == 0, again.output
    assert again.recordings("sort") == []
    ledger.note(f"two runs, {apart_s:g} s apart", "each recording sorted once", lost, twice)


@pytest.mark.parametrize("batch", ["quick"], indirect=True)
def test_second_run_does_what_the_first_one_leaves(batch, ledger):
    results = batch.folder / "shared-results"
    batch.config["pathvars"] = {"results": str(results)}
    batch.config["sorter"]["params"] = {"sleep_s": 4.0}
    second = sibling(batch, "second")
    first: Project = replace(sibling(batch, "first"), rows=batch.rows[:1])
    first.write()
    runs = [start(first)]
    time.sleep(5.0)
    runs.append(start(second))
    assert [run.wait(timeout=120) for run in runs] == [0, 1]
    told = (second.folder / "output.txt").read_text()
    assert "1 recordings are left to another run" in told
    assert f"one: process {runs[0].pid} on host" in told
    assert (results / "two/sort.json").exists()
    ledger.note("second run with one recording in common", "the others are sorted")


def test_lock_in_the_recordings_folder(project, ledger):
    """A sort whose snakemake is not known to the other run, as on another host."""
    project.add("x")
    project.add("y")
    assert project.run("results/x/canary.json").returncode == 0
    lock = project.result("x/.sort.lock")
    lock.write_text("4711\nother-node\n")
    run = project.run()
    assert run.returncode == 1
    assert "process 4711 on host other-node, since 20" in run.output
    last = read_journal(project.result("x/attempts.jsonl"))[-1]
    wrong = [last] * (last["failure"]["class"] != "ConcurrentSortError")
    assert project.summary().loc["y", "sort"] == "sorted"
    lock.unlink()
    assert project.run().returncode == 0
    ledger.note("lock held on another host", last["reason"][:60], wrong=wrong)
