"""Waves, the gate's table, the summary, what the screen shows."""

import os

import pytest

from spikecanary import gate, sentinel, summary, tables
from spikecanary.sentinel import Failure
from workbench import make_record, stopped


@pytest.mark.parametrize(
    ("n", "waves", "sizes"),
    [
        (3, 20, [1, 1, 1]),
        (20, 20, [1] * 20),
        (21, 20, [2] * 10 + [1]),
        (5, 1, [5]),
        (1000, 20, [50] * 20),
    ],
)
def test_waves_are_consecutive_and_no_more_than_asked(n, waves, sizes):
    ids = [f"r{i}" for i in range(n)]
    made = gate.make_waves(ids, waves)
    assert [len(members) for members in made.values()] == sizes
    assert [each for members in made.values() for each in members] == ids
    assert list(made) == sorted(made)


def test_gate_reads_verdicts(tmp_path):
    records = {
        "a": make_record(recording="a"),
        "b": stopped("biological").model_copy(update={"recording": "b"}),
    }
    for name, record in records.items():
        sentinel.write_record(tmp_path / name / "canary.json", record)
    rows = gate.read_wave(tmp_path / name / "canary.json" for name in records)
    assert rows == [
        {"recording": "a", "verdict": "proceed", "category": ""},
        {"recording": "b", "verdict": "stop", "category": "biological"},
    ]
    path = tmp_path / "1.tsv"
    tables.write(path, gate.COLUMNS, rows)
    assert tables.read(path) == rows
    assert gate.proceeding(path) == {"a"}
    assert gate.stopped_for_biology(path) == {"b"}


def test_summary_of_each_state(tmp_path):
    def write(name, canary=None, sort=None):
        for file, record in (("canary", canary), ("sort", sort)):
            if record is not None:
                named = record.model_copy(update={"recording": name})
                sentinel.write_record(tmp_path / name / f"{file}.json", named)

    write("done", make_record(), make_record(outcome="sorted", n_units=9))
    write("odd", make_record(outcome="unexpected"), make_record(outcome="sorted", n_units=1))
    empty = Failure(class_name="InsufficientActivityError", category="biological", message="none")
    write("empty", make_record(), make_record(outcome="unsortable", n_units=0, failure=empty))
    write("stopped", stopped("resource"))
    write("waiting", make_record())
    write("broken", make_record())
    failed = make_record(recording="broken", outcome="failed", reason="it broke")
    sentinel.append_journal(tmp_path / "broken/attempts.jsonl", "sort", failed)
    names = ["done", "odd", "empty", "stopped", "waiting", "broken", "new"]
    table = summary.to_frame(
        summary.describe(tmp_path, names, {"done": {"subject": "m1"}})
    ).set_index("recording")
    assert table["sort"].to_list() == [
        "sorted",
        "sorted",
        "unsortable",
        "stopped",
        "pending",
        "failed",
        "pending",
    ]
    assert table.loc["done", "subject"] == "m1"
    assert table.loc["empty", ["n_units", "failure"]].to_list() == [0, "InsufficientActivityError"]
    assert table.loc["broken", "reason"] == "it broke"
    assert table.loc["stopped", "category"] == "resource"
    counted = summary.describe_counts(table.reset_index())
    assert counted == (
        "7 recordings: 2 sorted, 2 pending, 1 unsortable, 1 stopped, 1 failed, "
        "stopped for: 1 resource; 1 unexpected canaries proved nothing"
    )


def test_summary_survives_a_record_that_it_cannot_read(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/canary.json").write_text("{")
    table = summary.to_frame(summary.describe(tmp_path, ["a"]))
    assert "is not a Spike Canary record" in table.loc[0, "reason"]


def test_failure_of_an_older_sort_is_not_told_after_a_newer_canary(tmp_path):
    old = make_record(outcome="failed", finished_at="2026-01-01T00:00:00+00:00")
    sentinel.append_journal(tmp_path / "a/attempts.jsonl", "sort", old)
    sentinel.write_record(tmp_path / "a/canary.json", make_record())
    assert summary.to_frame(summary.describe(tmp_path, ["a"])).loc[0, "sort"] == "pending"


def test_screen_shows_trouble_first_and_says_what_it_leaves_out(tmp_path):
    for number in range(5):
        record = make_record(recording=f"r{number}", outcome="sorted")
        sentinel.write_record(tmp_path / f"r{number}/canary.json", make_record())
        sentinel.write_record(tmp_path / f"r{number}/sort.json", record)
    sentinel.write_record(tmp_path / "bad/canary.json", stopped("biological"))
    table = summary.to_frame(summary.describe(tmp_path, [*(f"r{n}" for n in range(5)), "bad"]))
    shown = summary.describe_recordings(table, most=2).splitlines()
    assert shown[1].split()[0] == "bad"
    assert shown[-1] == "... and 4 more"


def test_summary_stands_while_its_records_are_older_and_of_the_table(tmp_path):
    path = tmp_path / "summary.tsv"
    assert not summary.stands(path, {"007": {}})
    sentinel.write_record(tmp_path / "007/canary.json", make_record())
    of_table = {"007": {"subject": "m1"}}
    summary.write(path, summary.describe(tmp_path, ["007"], of_table))
    assert summary.stands(path, of_table)
    assert not summary.stands(path, {"007": {}})
    assert not summary.stands(path, {"007": {"subject": "m2"}})
    assert not summary.stands(path, {**of_table, "008": {}})
    later = path.stat().st_mtime + 5
    os.utime(tmp_path / "007/canary.json", (later, later))
    assert not summary.stands(path, of_table)
    assert summary.changed_since(path.stat().st_mtime, tmp_path, ["007", "008"]) == [
        tmp_path / "007/canary.json"
    ]
