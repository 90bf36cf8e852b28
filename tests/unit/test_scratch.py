"""A canary and a sort that work on local scratch."""

import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from spikeinterface.core import load

from spikecanary import canary, diagnosis, forecast, fullsort, sentinel
from spikecanary.config import CanarySettings
from spikecanary.fullsort import SortFailedError
from spikecanary.sorter import sorteroutput
from spikecanary.supervise import folders
from spikecanary.supervise.job import Job

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture
def scratch(monkeypatch):
    """Make a folder of another file system, named by a variable."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("no second file system")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        monkeypatch.setenv("SPIKE_SCRATCH", folder)
        yield Path(folder)


def test_work_in_scratch_and_results_moved_whole(task, tmp_path, scratch, monkeypatch):
    results, worked = tmp_path / "x", set()
    job = Job(log=tmp_path / "log.txt", scratch="$SPIKE_SCRATCH")
    elsewhere = folders.scratch_path(results, "$SPIKE_SCRATCH")
    dead = elsewhere / f".sort-{socket.gethostname()}-{2**22 + 1}"
    (dead / "left").mkdir(parents=True)
    original = diagnosis.supervise

    def supervise(*args, folder, supervision, **options):
        worked.update([elsewhere in folder.parents, *supervision.folders])
        assert list(results.glob(".[cs]*-*"))  # others see that it works
        return original(*args, folder=folder, supervision=supervision, **options)

    monkeypatch.setattr(diagnosis, "supervise", supervise)
    settings = CanarySettings(window_s=2, min_recording_s=4)
    assert canary.run(task, settings, results, job).outcome == "passed"
    (results / "sorting").mkdir(parents=True)  # not Snakemake's doing
    for _ in range(2):
        assert fullsort.run(task, results, job).outcome == "sorted"
        shutil.rmtree(results / "sorter_output")
    assert fullsort.run(task, results, job).n_units == 4
    assert worked == {True, results.absolute()}  # the space of both is watched
    assert load(results / "sorting").get_num_units() == 4
    assert sorteroutput.find(results, job.recorded_settings) == results / "sorter_output"
    assert not list(results.glob(".*"))
    assert not list(scratch.iterdir())


def test_scratch_that_is_not_there(task, tmp_path):
    job = Job(log=tmp_path / "log.txt", scratch="$NOT_SET_HERE/x")
    record = canary.run(task, CanarySettings(window_s=2), tmp_path / "x", job)
    assert (record.verdict, record.failure.category) == ("stop", "environment")
    assert "job.scratch" in record.reason
    assert "$NOT_SET_HERE/x cannot be written" in record.reason
    with pytest.raises(SortFailedError, match=r"cannot be written.* Make that folder, or set its"):
        fullsort.run(task, tmp_path / "x", job, forced=True)
    last = sentinel.read_journal(tmp_path / "x/attempts.jsonl")[-1]
    assert (last["outcome"], last["failure"]["class"]) == ("failed", "FolderNotWritableError")


@pytest.mark.usefixtures("scratch")
def test_results_that_have_no_room_for_what_scratch_holds(task, tmp_path, monkeypatch):
    job = Job(log=tmp_path / "log.txt", scratch="$SPIKE_SCRATCH")
    canary.run(task, CanarySettings(window_s=2, min_recording_s=4), tmp_path / "x", job)

    def full(source, target, **_):
        target.mkdir()
        raise shutil.Error([(source, target, "[Errno 28] No space left on device")])

    monkeypatch.setattr(sentinel.shutil, "copytree", full)
    with pytest.raises(SortFailedError, match=r"cannot be copied from .*No space left"):
        fullsort.run(task, tmp_path / "x", job)
    last = sentinel.read_journal(tmp_path / "x/attempts.jsonl")[-1]
    assert last["failure"]["class"] == "DiskExhaustionError"
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [
        *("attempts.jsonl", "canary.json")
    ]


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(
    ("free_mb", "verdict"), [(1e6, "proceed"), (0.001, "proceed"), (-1, "stop")]
)
def test_disk_is_forecast_against_scratch_and_results(
    task, tmp_path, monkeypatch, free_mb, verdict
):
    def available(folder, *_):
        return {"disk_mb": free_mb if folder == tmp_path / "x" else 1e6}

    monkeypatch.setattr(forecast, "available", available)
    job = Job(log=tmp_path / "log.txt", scratch="$SPIKE_SCRATCH")
    settings = CanarySettings(window_s=2, min_recording_s=4)
    record = canary.run(task, settings, tmp_path / "x", job)
    assert record.verdict == verdict
    said = [
        line for line in [*record.warnings, record.reason] if "disk space of the results" in line
    ]
    assert bool(said) is (free_mb < 1e6)
    assert set(record.forecast) == {"wall_s", "mem_mb", "disk_mb"}
