"""A laboratory's own table of failures: drafted, checked, and handed to the jobs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from spikecanary.config import Config
from spikecanary.failures import DependencyError, classify
from spikecanary.failures.signatures import load_signatures
from spikecanary.inputcheck import check_files
from spikecanary.reruns import limits_of
from spikecanary.supervise.job import Job


def test_draft_of_an_unexpected_log_makes_it_known(tmp_path, capsys):
    log, table = tmp_path / "log", tmp_path / "lab.yaml"
    log.write_text(
        "x\nTraceback (most recent call last):\nValueError: gain 2.5 of '/a/b' is (not) 7\n"
    )
    assert classify.main([str(log), "--draft"]) == 1
    drafted = capsys.readouterr().out
    table.write_text(drafted)
    with pytest.raises(ValueError, match="entry 1: class: "):
        load_signatures(table)
    other = tmp_path / "other.yaml"
    other.write_text(drafted.replace("class: ''", "class: RecordingLayoutError"))
    log.write_text("ValueError: gain 12.5 of '/c/d' is (not) 8\n")
    assert classify.main([str(log), "--signatures", str(other)]) == 0
    assert "class: RecordingLayoutError" in capsys.readouterr().out
    assert classify.by_text(log.read_text()) is None
    # The table is checked before any job.
    config = Config(signatures=str(other))
    assert list(check_files(config)) == []
    bad = tmp_path / "bad.yaml"
    bad.write_text(other.read_text().replace("pattern: gain", "pattern: loss"))
    (problem,) = check_files(Config(signatures=str(bad)))
    assert "bad.yaml, entry 1: pattern: does not match the entry's own example" in problem
    assert "none.yaml" in next(iter(check_files(Config(signatures="none.yaml"))))


def test_nothing_is_drafted_of_an_empty_log_or_of_our_own_verdict(tmp_path, capsys):
    log = tmp_path / "log"
    ours = "2026-01-01 00:00:00,000 INFO a: proceed (unexpected): the sorter found no units\n"
    for text in ("\n", ours):
        log.write_text(text)
        assert classify.main([str(log), "--draft"]) == 1
        assert capsys.readouterr().out == f"# {log}: there is nothing to draft an entry of\n"
    log.write_text(f"FATAL frobnicator: overflow of buffer 7\n{ours}")
    assert classify.main([str(log), "--draft"]) == 1
    assert "overflow of buffer" in capsys.readouterr().out


def test_own_table_reaches_the_job(tmp_path):
    config = Config(signatures="lab.yaml")
    assert limits_of(config)["signatures"] == "lab.yaml"
    assert "signatures" not in limits_of(Config())
    task = SimpleNamespace(n_jobs=1, sorter=SimpleNamespace(container=None))
    job = Job(log=tmp_path / "log", signatures="lab.yaml")
    assert job.supervision(task, tmp_path, None).signatures == Path("lab.yaml")


def test_evidence_of_an_entry_is_its_classs(tmp_path):
    table = tmp_path / "lab.yaml"
    entry = {"class": "DependencyError", "reason": "r", "pattern": "(?P<x>e)"}
    table.write_text(json.dumps([{**entry, "example": "e", "source": "s"}]))
    with pytest.raises(ValueError, match=r"entry 1: .*DependencyError has no evidence x"):
        load_signatures(table)


@pytest.mark.parametrize("pattern", ["", r"\d*", ["a", ".*"], ".+"])
def test_an_entry_that_every_failure_would_match_is_refused(tmp_path, pattern):
    table = tmp_path / "lab.yaml"
    entry = {"class": "DependencyError", "reason": "r", "pattern": pattern, "source": "s"}
    table.write_text(json.dumps([entry | {"example": "a"}]))
    with pytest.raises(ValueError, match=r"entry 1: .*matches any text"):
        load_signatures(table)
    table.write_text(json.dumps([entry | {"example": "a", "errors": ["LabFault"]}]))
    assert load_signatures(table)


def test_wrong_entry_is_named(tmp_path):
    table = tmp_path / "lab.yaml"
    entry = {"class": "X", "reason": "r", "pattern": "(", "example": "e", "source": "s"}
    table.write_text(json.dumps([entry]))
    with pytest.raises(
        ValueError, match=r"lab.yaml, entry 1: class: .*no failure class is called X"
    ):
        load_signatures(table)


def test_remedy_of_an_entry_is_the_failures(tmp_path):
    table = tmp_path / "lab.yaml"
    entry = {"class": "DependencyError", "reason": "r", "pattern": ["a", "b"], "remedy": "Do it."}
    table.write_text(json.dumps([entry | {"example": "b", "source": "s"}]))
    (row,) = load_signatures(table)
    assert row.match("b c", [])
    assert row.failure("r", remedy=row.remedy).remedy == "Do it."
    assert DependencyError("r").remedy != "Do it."


@pytest.mark.parametrize("pattern", [5, ["a", 5]])
def test_pattern_that_yaml_reads_as_a_number_is_one_of_its_digits(tmp_path, pattern):
    table = tmp_path / "lab.yaml"
    entry = {"class": "DependencyError", "reason": "r", "pattern": pattern, "source": "s"}
    table.write_text(json.dumps([entry | {"example": "5"}]))
    (row,) = load_signatures(table)
    assert row.match("5", [])
