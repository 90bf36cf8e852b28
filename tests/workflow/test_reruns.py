"""A changed setting runs again exactly what it should."""

import os
import shlex
import shutil

import pytest
from spikeinterface.core import read_binary

from workbench import new_project

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def template(tmp_path_factory, write_binary, reader_options):
    """Two recordings, one in a folder, one that was stopped, all done."""
    project = new_project(tmp_path_factory.mktemp("template"), write_binary, reader_options)
    raw = read_binary(project.write_binary(), **reader_options)
    raw.save(folder=project.folder / "saved")
    project.add("a", path="saved", reader="spikeinterface", reader_options="")
    project.add("quiet", kind="silent", sorter="silent_always")
    assert project.run().returncode == 0
    return project


@pytest.fixture
def finished(template, tmp_path):
    """Copy the finished project."""
    return template.copied(tmp_path / "project")


def test_another_window_and_other_sorter_parameters(finished):
    """The window is another of canaries that are not sorted; parameters are those of a sorter."""
    params = {"threshold": 6.0}
    finished.config["sorter"]["params"] = params
    plan = finished.run("-n")
    assert (plan.recordings("canary"), plan.recordings("sort")) == (["a"], ["a"])
    del finished.config["sorter"]["params"]
    finished.config["canary"]["window_s"] = 3
    plan = finished.run("-n")
    assert (plan.recordings("canary"), plan.recordings("sort")) == (["quiet"], ["quiet"])
    finished.config["sorter"]["params"] = params
    assert finished.run().returncode == 0
    assert finished.sentinel("quiet")["windows"][0]["end_s"] == 3.0
    assert finished.sort_record("a")["sorter"]["params"]["threshold"] == 6.0
    assert finished.run().nothing_to_do


@pytest.mark.slow
def test_sort_is_not_made_on_a_verdict_of_other_settings(finished):
    """Snakemake's memory is lost, and by the times of the files the sort alone is to run."""
    finished.config["pathvars"] = {"results": "my results"}
    finished.result().rename(finished.folder / "my results")
    assert finished.run("--forcerun", "my results/a/canary.json").returncode == 0
    shutil.rmtree(finished.folder / ".snakemake")
    finished.config["sorter"]["params"] = {"threshold": 6.0}
    run = finished.run()
    assert run.returncode == 1
    assert "a: its canary tested other settings or data" in run.output
    (command,) = {
        line.split("--forcerun ")[1] for line in run.output.splitlines() if "a: its canary" in line
    }
    again = finished.run("--forcerun", *shlex.split(command)[:1])
    assert again.recordings("canary") == ["a"]
    assert "a" in again.recordings("sort")


@pytest.mark.slow
def test_other_preprocessing_runs_everything_again(finished):
    finished.config["preprocessing"] = {"common_reference": {}}
    plan = finished.run("-n")
    assert plan.recordings("canary") == ["a", "quiet"]


@pytest.mark.slow
def test_another_row_and_another_part_of_a_recording_run_their_own_jobs_alone(finished):
    finished.add("c")
    run = finished.run()
    assert run.returncode == 0, run.output
    assert (run.recordings("canary"), run.recordings("sort")) == (["c"], ["c"])
    assert run.jobs()["gate"] == 1
    assert list(finished.summary().index) == ["a", "quiet", "c"]
    finished.rows[-1]["end_s"] = "6"
    run = finished.run()
    assert (run.recordings("canary"), run.recordings("sort")) == (["c"], ["c"])
    assert finished.sort_record("c")["duration_s"] == 6.0


@pytest.mark.slow
def test_recording_that_was_moved_away_is_left_alone(project):
    path = project.folder / "moved.raw"
    shutil.copy(project.write_binary("active", 8.0), path)
    project.add("a", path=str(path))
    assert project.run().returncode == 0
    path.unlink()
    assert project.run().nothing_to_do
    assert project.run("results/a/sort.json").nothing_to_do


def test_metadata_only_changes_the_summary(finished):
    for row in finished.rows:
        row["subject"] = "m1"
    run = finished.run()
    assert set(run.jobs()) == {"wave_summary", "summary", "report"}
    assert finished.summary()["subject"].to_list() == ["m1", "m1"]


@pytest.mark.slow
def test_canary_that_runs_again_leaves_the_sort_alone(finished):
    run = finished.run("-R", "canary", "--rerun-triggers", "mtime")
    assert run.recordings("canary") == ["a", "quiet"]
    assert run.recordings("sort") == []


@pytest.mark.slow
def test_record_of_an_unknown_version_is_an_error_that_says_so(finished):
    path = finished.result("a/canary.json")
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 7'))
    finished.add("c")
    run = finished.run()
    assert run.returncode == 1
    said = "canary.json has schema version 7, this Spike Canary reads up to version 1"
    assert said in run.output
    assert run.recordings("sort") == ["c"]  # it costs nobody else
    assert said in finished.run("plan").output
    path.unlink()
    assert finished.run().recordings("sort") == []
    assert finished.summary().loc["a", ["sort", "n_units"]].to_list() == ["sorted", "4"]
    assert finished.run().nothing_to_do


def sorts_of(project, recording):
    """Return how often the sorter itself ran on a whole recording, by the logs of all attempts."""
    logs = (project.folder / f"logs/sort/{recording}.logs").glob("sort.*.log")
    return sum("quick sorter: 8.0 s" in log.read_text() for log in logs)


@pytest.mark.slow
def test_sorting_that_cannot_be_read_does_not_cost_the_sort(project):
    project.add("a")
    assert project.run("results/a/canary.json").returncode == 0
    broken = project.folder / "reader_is_broken"
    broken.touch()
    for _ in range(2):
        run = project.run()
        assert run.returncode == 1
        assert "cannot read the sorter's own files" in run.output
        assert "The sorter itself ended well, and its files are in sorter_output/" in run.output
        assert project.result("a/sorter_output/sorting.npz").exists()
        assert not project.result("a/sort.json").exists()
    broken.unlink()
    assert project.run().returncode == 0
    assert sorts_of(project, "a") == 1
    record = project.sort_record("a")
    assert record["n_units"] == 4
    assert "not sorted again: read from" in record["warnings"][0]
    assert record["sorter"]["params"]["threshold"] == 5.0
    project.config["sorter"]["params"] = {"threshold": 6.0}
    assert project.run().returncode == 0
    assert sorts_of(project, "a") == 2
    assert project.run().nothing_to_do


@pytest.mark.slow
def test_sorters_own_files_can_be_left_out(project):
    project.add("a")
    project.config["sorter"]["keep_output"] = False
    assert project.run().returncode == 0
    assert not project.result("a/sorter_output").exists()
    shutil.rmtree(project.result("a/sorting"))
    project.config["sorter"]["keep_output"] = True
    assert project.run().recordings("sort") == ["a"]
    assert sorts_of(project, "a") == 2


def test_folder_in_which_a_program_leaves_a_file(finished):
    folder = finished.folder / "saved"
    (folder / "notes.txt").write_text("looks good")
    (folder / "phy").mkdir()
    (folder / "phy/params.py").touch()
    assert finished.run().nothing_to_do
    os.utime(folder / "traces_cached_seg0.raw", (1, 1))
    plan = finished.run("-n")
    assert (plan.recordings("canary"), plan.recordings("sort")) == (["a"], ["a"])
