"""A batch of recordings through the workflow, with a sorter that takes a second."""

import json

import pytest
from spikeinterface.core import load

from workbench import Project, new_project

pytestmark = pytest.mark.medium


def fill(project: Project) -> None:
    """Add recordings with each kind of end."""
    project.add("good")
    project.add("silent", kind="silent", sorter="silent_always")
    project.add("missing", path="no/such/file.raw")
    project.add("brief", duration_s=3.0)
    project.add("odd", sorter="bug_window")
    project.add("killed", sorter="kill_window")


@pytest.fixture(scope="module")
def ended(tmp_path_factory, write_binary, reader_options):
    """Return the batch and its run."""
    project = new_project(tmp_path_factory.mktemp("batch"), write_binary, reader_options)
    fill(project)
    return project, project.run()


def test_dry_run_plans_every_canary_and_sort(project):
    fill(project)
    plan = project.run("-n")
    assert plan.returncode == 0, plan.output
    assert plan.jobs() == {
        "canary": 6,
        "gate": 4,
        "sort": 6,
        "wave_summary": 4,
        "summary": 1,
        "report": 1,
    }
    assert not project.result().exists()


def test_batch_from_table_to_summary(ended):
    project, run = ended
    assert run.returncode == 1, run.output
    last = run.output.splitlines()[-4:]
    assert last[0] == "1 recording needs attention (docs/troubleshooting.md):"
    assert last[1] == "  1 stopped, RecordingUnreadableError: missing"
    assert "no/such/file.raw does not exist (recording missing). Check path, reader" in last[2]
    assert last[3] == "    log: logs/canary/missing.log"
    assert run.recordings("canary") == ["brief", "good", "killed", "missing", "odd", "silent"]
    assert run.recordings("sort") == ["brief", "good", "killed", "odd"]

    ends = {name: project.sentinel(name) for name in run.recordings("canary")}
    assert {name: (s["verdict"], s["outcome"]) for name, s in ends.items()} == {
        "good": ("proceed", "passed"),
        "silent": ("stop", "stopped"),
        "missing": ("stop", "stopped"),
        "brief": ("proceed", "skipped"),
        "odd": ("proceed", "unexpected"),
        "killed": ("proceed", "unexpected"),
    }
    assert ends["silent"]["failure"]["class"] == "InsufficientActivityError"
    assert ends["missing"]["failure"]["category"] == "environment"
    assert "no/such/file.raw" in ends["missing"]["failure"]["message"]
    assert ends["odd"]["failure"]["class"] == "SpikeSortingError"
    assert ends["odd"]["failure"]["category"] is None
    assert "SIGKILL" in ends["killed"]["reason"]
    assert ends["good"]["n_units"] == 4
    (window,) = ends["good"]["windows"]
    assert (window["start_s"], window["end_s"], window["why"]) == (0.0, 2.0, "leading")
    assert window["n_spikes"] > 50
    assert window["measured"] == ends["good"]["measured"]
    assert set(ends["good"]["measured"]["stages_s"]) >= {"load", "preprocess", "sort"}
    assert ends["good"]["measured"]["peak_rss_mb"] > 50
    assert ends["good"]["sorter"]["version"] == "1.0"

    assert len(load(project.result("good/sorting")).unit_ids) == 4
    assert project.sort_record("good")["outcome"] == "sorted"
    assert not project.result("silent/sorting").exists()
    log = (project.folder / ends["good"]["log"]).read_text()
    assert "quick sorter: 2.0 s" in log

    summary = project.summary()
    assert list(summary.index) == [row["recording"] for row in project.rows]
    assert summary["sort"].to_dict() == {
        "good": "sorted",
        "silent": "stopped",
        "missing": "stopped",
        "brief": "sorted",
        "odd": "sorted",
        "killed": "sorted",
    }
    assert "4 sorted, 2 stopped" in run.output
    assert "2 unexpected canaries proved nothing" in run.output
    assert "odd  unexpected, " in run.output
    assert list(project.result().glob("*/.*")) == []


def test_second_run_tests_only_the_environment_verdict_again(ended, tmp_path):
    project = ended[0].copied(tmp_path / "project")
    planned = project.run("-n")
    assert planned.recordings("canary") == ["missing"]
    assert planned.recordings("sort") == ["missing"]
    again = project.run()
    assert again.returncode == 1, again.output
    assert again.jobs() == {
        "canary": 1,
        "gate": 1,
        "wave_summary": 1,
        "summary": 1,
        "report": 1,
        "check_records": 1,  # its canary waited for a test
    }
    assert project.sentinel("missing")["attempt"] == 1
    lines = project.result("missing/attempts.jsonl").read_text().splitlines()
    attempts = [json.loads(line) for line in lines]
    assert [attempt["attempt"] for attempt in attempts] == [0, 1]
    logs = [project.folder / attempt["log"] for attempt in attempts]
    assert [log.name for log in logs] == ["canary.1.log", "canary.2.log"]
    assert all("does not exist" in log.read_text() for log in logs)
    newest = project.folder / project.sentinel("missing")["log"]
    assert (newest.name, newest.resolve()) == ("missing.log", logs[1].resolve())


@pytest.mark.slow
def test_repaired_recording_is_sorted_once_and_then_left_alone(project):
    project.add("one")
    project.add("late", path=str(project.folder / "late.raw"))
    assert project.run().returncode == 1
    source = project.write_binary("active", 8.0)
    (project.folder / "late.raw").write_bytes(source.read_bytes())
    repaired = project.run()
    assert repaired.recordings("canary") == ["late"]
    assert repaired.recordings("sort") == ["late"]
    assert project.run().nothing_to_do


@pytest.mark.slow
def test_asked_for_sort_obeys_until_it_is_forced(project):
    project.add("silent", kind="silent", sorter="silent_window")
    assert project.run().returncode == 0
    refused = project.run("results/silent/sorting")
    assert refused.returncode == 1
    assert "silent: its canary says stop (biological): the sorter detected no spikes" in (
        refused.output
    )
    assert "canary: {force: [silent]}" in refused.output
    assert not project.result("silent/sorting").exists()

    project.config["canary"]["force"] = ["silent"]
    forced = project.run("results/silent/sorting")
    assert forced.returncode == 0, forced.output
    assert project.sort_record("silent")["forced"] is True
    assert project.run().returncode == 0
    assert project.summary().loc["silent", ["verdict", "sort"]].to_list() == ["stop", "unsortable"]

    project.config["canary"]["force"] = []
    assert project.run("results/silent/sorting").nothing_to_do
    assert project.result("silent/sorting").exists()


@pytest.mark.slow
def test_failing_sorts_cost_nobody_and_are_tried_again(project):
    project.add("good")
    project.add("breaks", sorter="bug_full")
    project.add("dies", sorter="exit_full")
    project.add("quiet", sorter="silent_full")
    project.add("gpu", sorter="cuda_full")
    run = project.run()
    assert run.returncode == 1
    # A classified failure names its remedy.
    assert "CUDA was asked for, but this PyTorch is built without it" in run.output
    assert "ERROR breaks: the sort failed: ZeroDivisionError: a bug that mentions" in run.output
    assert "ERROR dies: the sort failed: the process ended with exit status 3" in run.output
    assert project.sort_record("good")["outcome"] == "sorted"
    quiet = project.sort_record("quiet")
    assert (quiet["outcome"], quiet["n_units"]) == ("unsortable", 0)
    assert quiet["failure"]["evidence"] == {"active": True}
    empty = load(project.result("quiet/sorting"))
    assert (len(empty.unit_ids), empty.sampling_frequency) == (0, 30_000.0)
    summary = project.summary()
    assert summary["sort"].to_dict() == {
        "good": "sorted",
        "breaks": "failed",
        "dies": "failed",
        "quiet": "unsortable",
        "gpu": "failed",
    }
    assert "ZeroDivisionError" in summary.loc["breaks", "reason"]
    log = (project.folder / "logs/sort/breaks.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "raise ZeroDivisionError(msg)" in log

    again = project.run("-n")
    assert again.recordings("sort") == ["breaks", "dies", "gpu"]
    assert again.recordings("canary") == []


@pytest.mark.slow
def test_category_that_does_not_stop(project):
    project.add("silent", kind="silent", sorter="silent_window")
    project.config["canary"]["stop_on"] = ["environment"]
    run = project.run()
    assert run.returncode == 0
    assert project.sentinel("silent")["verdict"] == "proceed"
    assert project.sentinel("silent")["outcome"] == "unexpected"
    assert project.sentinel("silent")["failure"]["category"] == "biological"
    assert project.summary().loc["silent", "sort"] == "unsortable"


@pytest.mark.slow
def test_no_window_means_no_canary(project):
    project.add("good")
    project.config["canary"]["window_s"] = float("nan")
    assert project.run().returncode == 0
    assert project.sentinel("good")["outcome"] == "skipped"
    assert project.sentinel("good")["duration_s"] is None
