"""Sentinels appear whole, journals survive torn lines, unknown versions are said."""

import errno
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from spikecanary import sentinel, summary
from spikecanary.failures import RecordingUnreadableError
from spikecanary.sentinel import Failure, RecordError
from spikecanary.table.tsv import read_tsv
from workbench import make_record, stopped


def test_record_comes_back(tmp_path):
    failure = Failure.of(RecordingUnreadableError("gone", path="/data/x", reader="nwb"))
    record = make_record(failure=failure, verdict="stop", outcome="stopped")
    sentinel.write_record(tmp_path / "canary.json", record)
    assert sentinel.read_record(tmp_path / "canary.json") == record
    written = json.loads((tmp_path / "canary.json").read_text())
    assert written["schema_version"] == 1
    assert written["failure"] == {
        "class": "RecordingUnreadableError",
        "category": "environment",
        "message": "gone",
        "remedy": RecordingUnreadableError.remedy,
        "evidence": {"path": "/data/x", "reader": "nwb"},
    }
    assert written["started_at"][-6] in "+-"


def test_reader_of_the_same_version_ignores_fields_it_does_not_know(tmp_path):
    data = json.loads(make_record().model_dump_json(by_alias=True))
    (tmp_path / "canary.json").write_text(json.dumps(data | {"mood": "good"}))
    assert sentinel.read_record(tmp_path / "canary.json").recording == "one"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_version": 2}', "use the Spike Canary that wrote it"),
        ('{"schema_version": 1}', r"is not a Spike Canary record .*\(recording: Field required"),
        ('{"verdict": ', "is not a Spike Canary record"),
        ("[]", "is not a Spike Canary record"),
    ],
)
def test_bad_record(tmp_path, text, message):
    (tmp_path / "canary.json").write_text(text)
    with pytest.raises(RecordError, match=message):
        sentinel.read_record(tmp_path / "canary.json")


def test_write_is_never_seen_half_done(tmp_path):
    path = tmp_path / "canary.json"
    path.write_text("a" * 1_000_000)
    seen = set()
    done = threading.Event()

    def look():
        while not done.is_set():
            text = path.read_text()
            seen.add((text[:1], len(text)))

    watcher = threading.Thread(target=look)
    watcher.start()
    for letter in "bcdefgh":
        sentinel.write_atomic(path, letter * 1_000_000)
    done.set()
    watcher.join()
    assert {length for _, length in seen} == {1_000_000}
    assert [each.name for each in tmp_path.iterdir()] == ["canary.json"]


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "canary.json"
    path.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sentinel.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        sentinel.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["canary.json"]


def test_file_system_that_syncs_no_folder_costs_no_record(tmp_path, monkeypatch):
    real = os.fsync

    def fsync(opened):
        if stat.S_ISDIR(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(opened)

    monkeypatch.setattr(sentinel.os, "fsync", fsync)
    sentinel.write_record(tmp_path / "canary.json", make_record())
    assert sentinel.read_record(tmp_path / "canary.json").outcome == "passed"


def test_journal_counts_what_is_tested_again(tmp_path):
    path = tmp_path / "attempts.jsonl"
    assert sentinel.count_retestable(path) == 0
    for record in (stopped("environment"), stopped("biological"), stopped("resource")):
        sentinel.append_journal(path, "canary", record)
    sentinel.append_journal(path, "canary", make_record())
    sentinel.append_journal(path, "sort", stopped("environment"))
    assert sentinel.count_retestable(path) == 2
    assert len(sentinel.read_journal(path)) == 5


def test_journal_survives_a_torn_last_line(tmp_path):
    path = tmp_path / "attempts.jsonl"
    sentinel.append_journal(path, "canary", stopped("resource"))
    with path.open("a") as file:
        file.write('{"kind": "canary", "verd')
    assert sentinel.count_retestable(path) == 1
    sentinel.append_journal(path, "canary", stopped("environment"))
    assert sentinel.count_retestable(path) == 2


def test_texts_of_other_programs_are_made_printable_and_short(tmp_path):
    odd = "\ud800 \x1b[31m\u202e\0\t\n" + "x" * 131_073
    failure = Failure(class_name=odd, message=odd, remedy=odd, evidence={odd: [odd, {"x": odd}]})
    record = make_record(reason=odd, warnings=[odd], failure=failure, outcome="unexpected")
    sentinel.write_record(tmp_path / "a/canary.json", record)
    sentinel.append_journal(tmp_path / "a/attempts.jsonl", "canary", record)
    read = sentinel.read_record(tmp_path / "a/canary.json")
    assert read == record
    assert len(read.reason) == 500
    assert read.reason.startswith(r"\ud800 \x1b[31m\u202e\x00 xxx")
    for text in (read.reason, read.failure.message, *read.warnings, str(read.failure.evidence)):
        assert text.replace("\n", "").isprintable()
        assert len(text) < 15_000
    assert len(sentinel.read_journal(tmp_path / "a/attempts.jsonl")) == 1
    summary.write(tmp_path / "summary.tsv", summary.describe(tmp_path, {"a": {}}))
    (row,) = read_tsv(tmp_path / "summary.tsv")
    assert row["reason"] == read.reason


def test_record_without_later_fields_is_read(tmp_path):
    """As the first Spike Canary wrote them."""
    old = {
        "schema_version": 1,
        "recording": "a",
        "verdict": "proceed",
        "outcome": "passed",
        "reason": "8 units in 30 s",
        "sorter": {"name": "kilosort4", "params_digest": "0123"},
        "started_at": "2025-01-01T00:00:00+00:00",
        "finished_at": "2025-01-01T00:01:00+00:00",
    }
    (tmp_path / "canary.json").write_text(json.dumps(old))
    assert sentinel.read_record(tmp_path / "canary.json").n_units is None
    (tmp_path / "canary.json").write_text(json.dumps(old | {"schema_version": 0}))
    assert sentinel.read_record(tmp_path / "canary.json").recording == "a"


def test_move_that_is_interrupted_puts_back_what_stood(tmp_path, monkeypatch):
    source, target = tmp_path / "made", tmp_path / "kept"
    for folder in (source, target):
        folder.mkdir()
        (folder / "from").write_text(folder.name)
    rename = Path.rename

    def interrupted(path, to):
        if to == target and ".new." in path.name:
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sentinel.move(source, target)
    assert (target / "from").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_settings_that_are_infinite_come_back(tmp_path):
    settings = {"task": {"sorter": {"params": {"artifact_threshold": float("inf")}}}}
    sentinel.write_record(tmp_path / "sort.json", make_record(settings=settings))
    found = sentinel.read_if_any(sentinel.Essentials, tmp_path / "sort.json")
    assert found.settings == settings
