"""Fixtures: a task, canary and full sort of it; sortings of which outputs are made."""

import numpy as np
import pytest

from spikecanary import canary, fullsort, sentinel, sorter
from spikecanary.config import CanarySettings, Config, SorterSettings
from spikecanary.outputs import analysis, curation
from spikecanary.sentinel import Part
from spikecanary.supervise.job import Job
from spikecanary.table import Recording
from workbench import N_UNITS, ROOT, make_record, steps_in_process


@pytest.fixture
def task(write_binary, reader_options):
    row = Recording(
        id="x",
        paths=(str(write_binary("active", 8.0)),),
        reader="binary",
        reader_options=reader_options,
    )
    plugin = str(ROOT / "tests/quick_sorter.py")
    return sorter.make_task(row, Config(sorter=SorterSettings(name="quick", plugin=plugin)))


@pytest.fixture
def quiet(task, write_binary):
    """Return the task of a recording of noise alone."""
    row = task.row.model_copy(update={"paths": (str(write_binary("silent", 8.0)),)})
    return task.model_copy(update={"row": row})


@pytest.fixture
def in_process():
    """Do the steps of canaries and full sorts in this process, without children."""
    with steps_in_process():
        yield


@pytest.fixture
def run(tmp_path):
    def start(task, **settings):
        settings = {"window_s": 2, "min_recording_s": 4} | settings
        job = Job(log=tmp_path / "log.txt")
        record = canary.run(task, CanarySettings(**settings), tmp_path / "x", job, attempt=2)
        assert sentinel.read_record(tmp_path / "x/canary.json") == record
        journal = sentinel.read_journal(tmp_path / "x/attempts.jsonl")
        assert journal[-1]["outcome"] == record.outcome
        assert not list((tmp_path / "x").glob(".*"))
        return record

    return start


@pytest.fixture
def long_task(task, write_binary):
    return task.model_copy(
        update={"row": task.row.model_copy(update={"paths": (str(write_binary("active", 24.0)),)})}
    )


@pytest.fixture
def sort(tmp_path):
    def start(task, attempt=1, **options):
        job = Job(log=tmp_path / "log.txt", attempt=attempt)
        return fullsort.run(task, tmp_path / "x", job, **options)

    return start


@pytest.fixture
def traces(task):
    return np.fromfile(task.row.paths[0], "int16").reshape(-1, 4)


@pytest.fixture
def held(record_property, tmp_path, monkeypatch):
    """Return a function that notes a kind as held, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    record_property("bad input", "tried")
    return lambda: record_property("bad input", "held")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Analyze and curate seeded sortings; return their folder, the task, and a row for NWB."""
    from spikeinterface.generation import generate_ground_truth_recording

    folder, config = tmp_path_factory.mktemp("outputs"), Config()
    recording, sorting = generate_ground_truth_recording(
        durations=[20.0], num_channels=16, num_units=8, seed=7
    )
    recording.save(folder=folder / "recording", dtype="int16")
    metadata = {
        "session_start_time": "2026-01-02T03:04:05+00:00",
        "subject_id": "m1",
        "species": "Mus musculus",
        "sex": "F",
        "age": "P90D",
        "experimenter": "Doe, Jane",
        "cohort": "x",
    }
    row = Recording(
        id="x", paths=(str(folder / "recording"),), reader="spikeinterface", metadata=metadata
    )
    task = sorter.make_task(row, config).model_copy(update={"n_jobs": 1})
    for n in N_UNITS:
        place = folder / str(n)
        sorting.select_units(sorting.unit_ids[:n]).save(folder=place / "sorting")
        part = Part(file="x.raw", start_sample=0, n_samples=500_000, t_start_s=100.0)
        sentinel.write_record(place / "sort.json", make_record(parts=[part]))
        analysis.run(task, config.analysis, place)
        curation.run(config.curation, place)
    return folder, task, row
