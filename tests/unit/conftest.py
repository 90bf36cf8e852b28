"""Fixtures of the tests of canary and full sort: a task, and either run of it."""

import numpy as np
import pytest

from spikecanary import canary, fullsort, sentinel, sorter
from spikecanary.config import CanarySettings, Config, SorterSettings
from spikecanary.supervise.job import Job
from spikecanary.table import Recording
from workbench import ROOT


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
