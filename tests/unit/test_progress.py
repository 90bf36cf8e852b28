"""Progress of a batch, and the logger plugin that prints it."""

import logging

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_spikecanary import LogHandler
from snakemake_logger_plugin_spikecanary.progress import Progress
from spikecanary import sentinel
from workbench import make_record, stopped


@pytest.fixture
def batch(tmp_path):
    """Write sentinels of two recordings that proceed and one that does not."""
    for name in "ab":
        record = make_record(recording=name)
        sentinel.write_record(tmp_path / name / "canary.json", record)
    sentinel.write_record(tmp_path / "c" / "canary.json", stopped("biological"))
    return tmp_path


def test_counts(batch):
    progress = Progress()
    progress.plan(n_canaries=3, n_sorts=0)
    for job, name in enumerate("abc"):
        progress.begin(job, "canary", name, [str(batch / name / "canary.json")])
        assert progress.end(job)
    assert progress.line() == "canaries 3 of 3; 1 stopped; sorts 0 of at most 2"
    progress.begin(7, "sort", "a", [str(batch / "a/sorting"), str(batch / "a/sort.json")])
    assert progress.line().endswith("running: sort a")
    assert progress.end(7)
    progress.begin(8, "sort", "b", [])
    assert progress.end(8, failed=True)
    assert "sorts 1 of at most 2; 1 failed" in progress.line()
    progress.begin(9, "analyze", "a", [])
    progress.begin(11, "sort", "c", [])
    assert progress.line().endswith("running: sort c, analyze a")
    assert not progress.end(9)
    assert not progress.end(10)


def test_time_left_is_that_of_those_done(monkeypatch):
    clock = iter([0, 1, 2, 3, 100, 130])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress()
    progress.plan(n_canaries=3, n_sorts=0)
    for job, kind in enumerate(("canary", "canary", "sort")):
        progress.begin(job, kind, "a", [])
        progress.end(job)
    progress.begin(9, "sort", "b", [])
    line = "canaries 2 of 3 (about 50 s left); sorts 1 of at most 3 (about 4 min 16 s left)"
    assert progress.line() == f"{line}; running: sort b"


def test_many_running_jobs_are_not_all_named():
    progress = Progress()
    for job in range(5):
        progress.begin(job, "sc_canary", f"r{job}", [])
    assert "canary r0, canary r1, canary r2 and 2 more" in progress.line()


def event(kind, level=logging.INFO, **facts):
    record = logging.LogRecord("snakemake", level, "", 0, facts.pop("msg", ""), (), None)
    vars(record).update(facts, event=kind)
    return record


def test_plugin_prints_lines_for_people(batch, capsys):
    handler = LogHandler(None, None)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.emit(event(LogEvent.RUN_INFO, stats={"canary": 3, "all": 1, "total": 4}))
    handler.emit(
        event(
            LogEvent.JOB_INFO,
            jobid=1,
            rule_name="canary",
            wildcards={"recording": "a"},
            output=[str(batch / "a/canary.json")],
        )
    )
    handler.emit(event(None, msg="Select jobs to execute..."))
    assert capsys.readouterr().err == ""
    handler.emit(event(LogEvent.JOB_FINISHED, job_id=1))
    assert "canaries 1 of 3; sorts 0 of at most 3" in capsys.readouterr().err
    handler.emit(event(None, level=logging.WARNING, msg="mind this"))
    handler.emit(event(LogEvent.JOB_ERROR, level=logging.ERROR, jobid=2, msg="rule sort failed"))
    said = capsys.readouterr().err
    assert "mind this" in said
    assert "rule sort failed" in said
