"""Waves, the gate's table, the summary, what the screen shows."""

import json
import os
import re
import socket
from pathlib import Path

import pandas as pd
import pytest

from spikecanary import forecast, gate, sentinel, summary
from spikecanary.outputs import analysis, curation
from spikecanary.sentinel import BadPeriod, Failure
from spikecanary.summary import ending, hosts
from spikecanary.table import RESERVED_IDS, Recording
from spikecanary.table.tsv import read_tsv, write_tsv
from workbench import ROOT, make_record, stopped


def rows_of(*sorters):
    """Return rows whose sorters are these; None: the config's."""
    return [
        Recording(id=f"r{n}", paths=("x",), reader="binary", sorter=sorter, metadata={"at": str(n)})
        for n, sorter in enumerate(sorters)
    ]


def test_waves_are_blocks_of_rows():
    rows = rows_of(*[None] * 7)
    waves = gate.make_waves(rows, 3, "quick")
    assert waves == {"1": ["r0", "r1", "r2"], "2": ["r3", "r4", "r5"], "3": ["r6"]}
    more = gate.make_waves([*rows, *rows_of(*[None] * 9)[7:]], 3, "quick")
    assert list(more) == ["1", "2", "3"]
    assert (more["1"], more["2"], len(more["3"])) == (waves["1"], waves["2"], 3)
    assert gate.make_waves([], 3, "quick") == {}


def test_waves_are_of_one_sorter():
    waves = gate.make_waves(rows_of(None, "ks2", "quick", "ks2", "ks2"), 4, "quick")
    assert waves == {"1": ["r0", "r2"], "1-ks2": ["r1", "r3"], "2-ks2": ["r4"]}
    assert gate.number(rows_of(None, "ks2")) == {
        "r0": {"table_row": "0", "at": "0"},
        "r1": {"table_row": "1", "at": "1"},
    }


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
    (missing,) = gate.read_wave([tmp_path / "c/canary.json"])
    assert missing == {"recording": "c", "verdict": "", "category": ""}
    path = tmp_path / "1.tsv"
    write_tsv(path, gate.COLUMNS, rows)
    assert read_tsv(path) == rows
    sentinels = [tmp_path / name / "canary.json" for name in records]
    assert gate.split(path, []) == ({"a"}, {"b"})
    path.write_bytes(b"recording\xff")
    assert gate.split(path, sentinels) == ({"a"}, {"b"})
    stale = gate.find_stale(tmp_path, {"1.tsv": ["a", "b"]})
    assert stale == {"1.tsv": ["a", "b"]}


def test_summary_of_each_state(tmp_path):
    def write(name, canary=None, sort=None):
        for file, record in (("canary", canary), ("sort", sort)):
            if record is not None:
                named = record.model_copy(update={"recording": name})
                sentinel.write_record(tmp_path / name / f"{file}.json", named)

    odd = {"outcome": "sorted", "n_units": 9, "warnings": ["one", "two"]}
    write("done", make_record(warnings=["one"]), make_record(**odd))
    write("odd", make_record(outcome="unexpected"), make_record(outcome="sorted", n_units=1))
    empty = Failure(class_name="InsufficientActivityError", category="biological", message="none")
    write("empty", make_record(), make_record(outcome="unsortable", n_units=0, failure=empty))
    write("stopped", stopped("resource"))
    write("waiting", make_record())
    write("broken", make_record())
    failed = make_record(recording="broken", outcome="failed", reason="it broke")
    sentinel.append_journal(tmp_path / "broken/attempts.jsonl", "sort", failed)
    names = ["done", "odd", "empty", "stopped", "waiting", "broken", "new"]
    further = {name: {} for name in names} | {"done": {"subject": "m1"}}
    rows = summary.describe(tmp_path, further)
    table = pd.DataFrame(rows).set_index("recording")
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
    assert table.loc["done", "warnings"] == "one; two"
    assert table.loc["empty", ["n_units", "failure"]].to_list() == [0, "InsufficientActivityError"]
    assert table.loc["broken", "reason"] == "it broke"
    assert table.loc["stopped", "category"] == "resource"
    assert ending.describe_counts(rows) == (
        "7 recordings: 2 sorted, 2 pending, 1 unsortable, 1 stopped, 1 failed, "
        "stopped for: 1 resource; 1 unexpected canary proved nothing; "
        "1 recording has warnings, see the summary"
    )


def test_summary_survives_a_record_that_it_cannot_read(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/canary.json").write_text("{")
    (row,) = summary.describe(tmp_path, {"a": {}})
    assert "is not a Spike Canary record" in row["reason"]


def test_failure_of_an_older_sort_is_not_told_after_a_newer_canary(tmp_path):
    old = make_record(outcome="failed", finished_at="2026-01-01T00:00:00+00:00")
    sentinel.append_journal(tmp_path / "a/attempts.jsonl", "sort", old)
    sentinel.write_record(tmp_path / "a/canary.json", make_record())
    assert summary.describe(tmp_path, {"a": {}})[0]["sort"] == "pending"


def test_failure_is_told_whatever_the_time_zones_of_canary_and_sort(tmp_path):
    failed = make_record(outcome="failed", finished_at="2026-01-01T02:10:00+01:00")
    sentinel.append_journal(tmp_path / "a/attempts.jsonl", "sort", failed)
    canary = make_record(finished_at="2026-01-01T02:50:00+02:00")
    sentinel.write_record(tmp_path / "a/canary.json", canary)
    assert summary.describe(tmp_path, {"a": {}})[0]["sort"] == "failed"


@pytest.mark.parametrize("outcome", ["passed", "unexpected"])
def test_log_is_of_the_record_that_has_the_reason(tmp_path, outcome):
    canary = make_record(outcome=outcome, reason="odd", log="canary.log")
    sentinel.write_record(tmp_path / "a/canary.json", canary)
    for state in ("sorted", "unsortable"):
        sort = make_record(outcome=state, reason="no spikes", log="sort.log")
        sentinel.write_record(tmp_path / "a/sort.json", sort)
        (row,) = summary.describe(tmp_path, {"a": {}})
        of_canary = (state, outcome) == ("sorted", "unexpected")
        assert row["log"] == ("canary.log" if of_canary else "sort.log")


def test_screen_shows_trouble_first_and_says_what_it_leaves_out(tmp_path):
    for number in range(5):
        record = make_record(recording=f"r{number}", outcome="sorted")
        sentinel.write_record(tmp_path / f"r{number}/canary.json", make_record())
        sentinel.write_record(tmp_path / f"r{number}/sort.json", record)
    sentinel.write_record(tmp_path / "bad/canary.json", stopped("biological"))
    names = [*(f"r{n}" for n in range(5)), "bad"]
    rows = summary.describe(tmp_path, {name: {} for name in names})
    shown = ending.describe_recordings(rows, most=2).splitlines()
    assert shown[1].split()[0] == "bad"
    assert shown[-1] == "... and 4 more"


def test_waves_are_put_together_in_the_order_of_the_table(tmp_path):
    for name, rows in {"1": {"c": "2", "a": "0"}, "1-ks2": {"b": "1"}}.items():
        described = summary.describe(tmp_path, {k: {"table_row": v} for k, v in rows.items()})
        summary.write(tmp_path / f"{name}.tsv", described)
    merged = summary.merge([tmp_path / "1.tsv", tmp_path / "1-ks2.tsv"])
    assert [row["recording"] for row in merged] == ["a", "b", "c"]
    assert "table_row" not in merged[0]


def test_who_needs_attention(tmp_path):
    def row(**fields):
        return {"recording": "x", "category": "", "failure": "", "reason": "it broke"} | fields

    assert not ending.needs_attention(row(sort="sorted"))
    assert not ending.needs_attention(row(sort="stopped", category="biological"))
    nothing = row(sort="unsortable", category="biological", canary_units=None)
    assert not ending.needs_attention(nothing)
    assert ending.needs_attention(nothing | {"category": ""})  # its canary saw activity
    assert not ending.needs_attention(row(sort="pending", verdict="proceed"))
    needy = [
        row(
            sort="stopped", category="environment", failure="DependencyError", remedy="Install it."
        ),
        row(sort="stopped", category="resource", failure="DiskExhaustionError"),
        row(sort="failed"),
        row(sort="unsortable", category="biological", canary_units=4),
        row(sort="sorted", n_sorted=0, canary_units=7, reason="7 units in 10 s"),
        row(sort="pending", reason="not a record"),
    ]
    assert all(map(ending.needs_attention, needy))
    lines = ending.describe_needs([*needy, *[needy[0]] * 6]).splitlines()
    assert lines[0] == "12 recordings need attention (docs/troubleshooting.md):"
    assert lines[1] == "  7 stopped, DependencyError: x, x, x, x, x and 2 more"
    assert lines[2] == "    x: it broke. Install it."
    found = "the full sort found no units, and its canary found"
    assert f"    it broke: {found} 4." in lines
    assert f"    {found} 7." in lines
    assert ending.describe_needs([row(sort="sorted")]) == ""


def on(host, n, failure="", name="r", **fields):
    """Return rows of recordings that ended on a host."""
    sort, category = ("stopped", "environment") if failure else ("sorted", "")
    row = {"sort": sort, "category": category, "failure": failure, "host": host, "sorter": "ks"}
    row["outcome"] = "stopped" if failure else "passed"
    return [row | {"recording": f"{name}-{host}-{number}"} | fields for number in range(n)]


GPU, AWAY = "GPUUnavailableError", "RecordingUnreadableError"
TWO = [*on("n1", 3), *on("n2", 3, GPU)]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([*on("n1", 3), *on("n2", 3, GPU), *on("n3", 4)], "n2"),
        ([*on("n1", 3), *on("n2", 3, GPU), *on("n2", 2)], "n2"),
        ([*on("n1", 40), *on("n1", 2, GPU), *on("n2", 9, GPU)], "n2"),  # two bad files elsewhere
        ([*on("n1", 3), *on("n2", 3, GPU), *on("n2", 4)], ""),
        ([*on("n1", 3), *on("n2", 1, GPU)], ""),  # as a file that is missing
        ([*on("n1", 3, GPU), *on("n2", 3, GPU), *on("n3", 3)], ""),
        ([*on("n1", 3, sorter="other"), *on("n2", 3, GPU)], ""),  # nobody has shown that it can
        ([*on("n2", 3, GPU), *on("n2", 2)], ""),
        ([*on("n1", 3), *on("n2", 3, GPU, sort="sorted")], ""),  # forced, and sorted
        ([*on("n2", 3, GPU), *on("n1", 1, sort="pending", outcome="passed")], "n2"),
        ([*on("n2", 3, GPU), *on("n1", 1, sort="pending", outcome="skipped")], ""),
        ([*on("n1", 3), *on("n2", 3, "X", category="resource")], ""),
        ([*on("n1", 3), *on("n2", 3, "RecordingLayoutError")], ""),  # of how it is declared
        ([*on("n1", 9), *on("n2", 2, AWAY)], ""),  # files that may be away for all
        ([*on("n1", 9), *on("n2", 6, AWAY)], "n2"),  # a drive that is not there
        ([*on("n1", 9), *on("n2", 6, AWAY), *on("n2", 1)], ""),
        ([*TWO, *(row | {"sorter": "b"} for row in TWO)], "n2"),  # one line, of two sorters
        ([], ""),
    ],
)
def test_host_that_fails_as_others_do_not_is_named(tmp_path, rows, named):
    lines = hosts.describe(tmp_path, rows)
    assert [line.split()[1] for line in lines] == named.split()
    if named:
        assert f"slurm_extra: \"'--exclude={named}'\"" in lines[0]


def test_host_that_kills_is_named_by_what_its_jobs_left(tmp_path, monkeypatch):
    rows = on("n1", 4)
    for number, folder in enumerate((".sort-n2.lab-17", ".canary-n2.lab-18", ".analyze-n3-19")):
        (tmp_path / rows[number]["recording"] / folder).mkdir(parents=True)
    (line,) = hosts.describe(tmp_path, rows)
    assert line.startswith("Host n2.lab fails as others do not: killed, 2 of 2 sorts and canaries,")
    assert line.endswith("'--exclude=n2'\"")
    monkeypatch.setenv(sentinel.RUN_BEGAN, "2126-01-01T00:00:00+00:00")
    assert hosts.describe(tmp_path, rows) == []  # they are of an earlier run


def test_sort_whose_job_was_killed_needs_somebody(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKECANARY_RUN_BEGAN", "2020-01-01T00:00:00+00:00")
    sentinel.write_record(tmp_path / "r/canary.json", make_record(recording="r"))
    (tmp_path / f"r/.sort-{socket.gethostname()}-{os.getpid()}").mkdir()
    (row,) = summary.describe(tmp_path, {"r": {}})
    assert row["sort"] == "pending"  # it runs
    (tmp_path / f"r/.sort-{socket.gethostname()}-{os.getpid()}").rmdir()
    (tmp_path / "r/.sort-by-me").mkdir()  # a person's
    (row,) = summary.describe(tmp_path, {"r": {}})
    assert row["sort"] == "pending"
    (tmp_path / "r/.sort-n2.lab-17").mkdir()
    (row,) = summary.describe(tmp_path, {"r": {}})
    assert (row["sort"], row["failure"]) == ("failed", "killed")
    (row,) = summary.describe(tmp_path, {"r": {}}, running=True)
    assert row["sort"] == "pending"  # it may run on another host
    (row,) = summary.describe(tmp_path, {"r": {}})
    text = ending.describe_needs([row])
    assert "1 failed, killed: r\n    the job of the sort was killed on n2.lab. Did the" in text
    assert ending.describe_unknown([row]) == ""


def test_failed_sort_whose_sentinel_is_away_says_why(tmp_path):
    failed = make_record(recording="r", outcome="failed", reason="no such kernel", log="x.log")
    sentinel.append_journal(tmp_path / "r/attempts.jsonl", "sort", failed)
    (row,) = summary.describe(tmp_path, {"r": {}})
    assert (row["sort"], row["reason"], row["log"]) == ("failed", "no such kernel", "x.log")


def test_stop_for_the_data_says_how_to_sort_all_the_same(tmp_path):
    sentinel.write_record(tmp_path / "r/canary.json", stopped("biological"))
    lines = ending.describe_groups(summary.describe(tmp_path, {"r": {}}))
    assert lines[-1] == "    to sort it all the same: canary: {force: [r]} in the config"


def test_what_waits_for_a_machine_is_told_in_the_run_that_tried_it(tmp_path, monkeypatch):
    failure = {"class": "GPUUnavailableError", "category": "environment", "message": "m"}
    found = {"failure": failure, "reason": "no GPU", "host": "n1", "log": "x", "at": sentinel.now()}
    (tmp_path / ".nodes").mkdir()
    path = tmp_path / ".nodes/kilosort4.failed.json"
    path.write_text(json.dumps(found | {"recordings": ["one", "old"]}))
    of_other_settings = make_record(outcome="sorted")
    sentinel.write_record(tmp_path / "old/sort.json", of_other_settings)
    rows = summary.describe(tmp_path, {"one": {}, "two": {}, "old": {}})
    assert [row["failure"] for row in rows] == ["GPUUnavailableError", "", "GPUUnavailableError"]
    assert [row["sort"] for row in rows] == ["pending"] * 3
    (tmp_path / "old/sort.json").write_text("{")  # what to remove is said first
    assert summary.describe(tmp_path, {"old": {}})[0]["failure"] == "RecordError"
    monkeypatch.setenv(sentinel.RUN_BEGAN, "2126-01-01T00:00:00+00:00")
    assert summary.read_waiting(tmp_path) == {}  # the sorter may be another now


def test_what_is_not_recognised_is_grouped():
    def odd(number, **fields):
        reason = f"IndexError: index {number} is out of bounds"
        row = {"recording": f"r{number}", "sort": "sorted", "outcome": "unexpected"}
        return row | {"reason": reason, "log": "x"} | fields

    rows = [odd(3), odd(40), odd(1, sort="failed", outcome="passed", category="", reason="other")]
    text = ending.describe_unknown([*rows, odd(1, outcome="passed")])
    assert text.splitlines()[:7] == [
        "Not recognised (docs/verdicts.md):",
        *("  1 failed: r1", "    other.", "    log: x"),
        *("  2 sorted: r3, r40", "    r3: IndexError: index 3 is out of bounds.", "    log: x"),
    ]
    assert "classify LOG... --draft" in text
    text = ending.describe_unknown([odd(3, reason="24 MB", remedy="Raise job.mem_mb.")])
    assert text.splitlines()[0] == "Known, but no reason to stop:"
    assert "24 MB. Raise job.mem_mb." in text
    assert "--draft" not in text
    assert ending.describe_unknown([{"sort": "pending"}]) == ""


def test_missing_outputs_are_said(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/units.tsv").touch()
    rows = [{"recording": "a", "sort": "sorted"}, {"recording": "b", "sort": "stopped"}]
    text = ending.describe_missing(tmp_path, rows, ["units.tsv", "figures"])
    assert text.splitlines() == [
        "1 sorted recording lacks outputs; the run ended before they were made. Run again:",
        "  a: figures",
    ]
    assert ending.describe_missing(tmp_path, rows, ["units.tsv"]) == ""
    rows[0]["log"] = str(tmp_path / "logs/sort/a.log")
    for rule, text in {
        "analyze": "INFO done",
        "figures": "2026 ERROR x.raw does not exist. Put it back.",
        "export_phy": "CRITICAL KeyError: 3\n2026 INFO raised here\nTraceback ...:\n",
    }.items():
        log = tmp_path / f"logs/{rule}/a.log"
        log.parent.mkdir(parents=True)
        log.write_text(f"2026 {text}\n")
    assert ending.describe_missing(tmp_path, rows, ["figures"]).splitlines() == [
        "1 sorted recording lacks outputs:",
        "  a: figures",
        *("    KeyError: 3", f"    log: {tmp_path}/logs/export_phy/a.log"),
        *("    x.raw does not exist. Put it back.", f"    log: {tmp_path}/logs/figures/a.log"),
        f"  {ending.MEND_SETTINGS}",
    ]


def test_own_columns_cannot_be_overwritten(tmp_path):
    sentinel.write_record(tmp_path / "a/canary.json", stopped("environment"))
    (row,) = summary.describe(tmp_path, {"a": {"category": "mine", "sort": "x", "subject": "m"}})
    assert (row["category"], row["sort"], row["subject"]) == ("environment", "stopped", "m")
    named = Recording(id="a", paths=("x",), reader="binary", metadata={"table_row": "mine"})
    assert gate.number([named])["a"]["table_row"] == "0"


def test_sort_with_other_settings_is_not_told_where_the_recording_is_stopped_by_now(tmp_path):
    old = make_record(outcome="sorted", n_units=9, settings={"task": 1, "data": 1})
    sentinel.write_record(tmp_path / "a/sort.json", old)
    for settings, state in (
        ({"task": 1, "data": 1}, "sorted"),
        ({"task": 2, "data": 1}, "stopped"),
    ):
        canary = stopped("environment").model_copy(update={"settings": settings})
        sentinel.write_record(tmp_path / "a/canary.json", canary)
        assert summary.describe(tmp_path, {"a": {}})[0]["sort"] == state


def test_bad_periods_are_in_the_summary(tmp_path):
    bad = [BadPeriod(start_s=1.0, end_s=8.0, what="flat")]
    sentinel.write_record(tmp_path / "a/canary.json", make_record(bad_periods=bad))
    (row,) = summary.describe(tmp_path, {"a": {}})
    assert row["bad_periods"] == "1.00-8.00 s flat"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd", "'+cmd"),
        ("-cmd", "'-cmd"),
        (" =1", "' =1"),
        ("'=1", "''=1"),
        ("\uff1d1", "'\uff1d1"),
        ("-1.5e3", "-1.5e3"),
        ("+5", "+5"),
        ("-", "-"),
        ("'quoted'", "'quoted'"),
        ("NA", "NA"),
        ("001", "001"),
        ("1e5", "1e5"),
        ("True", "True"),
    ],
)
def test_texts_are_no_formulas_and_read_back_as_they_were(tmp_path, text, cell):
    path = tmp_path / "x.tsv"
    write_tsv(path, ["a"], [{"a": text}])
    assert path.read_text() == f"a\n{cell}\n"
    assert read_tsv(path) == [{"a": text}]
    units = pd.DataFrame({"label": [text], "snr": [-5.5]}, index=pd.Index([text], name="unit"))
    path.write_text(analysis.write_units(units))
    assert path.read_text() == f"unit\tlabel\tsnr\n{cell}\t{cell}\t-5.5\n"
    read = curation.read_units(path)
    assert read.index.to_list() == [text]
    assert read["snr"].to_list() == [-5.5]


def test_what_acts_on_terminals_is_not_in_tables(tmp_path):
    write_tsv(tmp_path / "x.tsv", ["a"], [{"a": "x\x1b[31m\u202e\ty" + "z" * 200_000}])
    (row,) = read_tsv(tmp_path / "x.tsv")
    assert row["a"].startswith(r"x\x1b[31m\u202e yzz")
    assert len(row["a"]) < 32_100


def test_reserved_ids_are_the_layout_of_the_results_folder():
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    named = set(re.findall(r"<results>/([a-z][\w.]*)", rules))
    named |= {forecast.history_path(Path("results"), "0").parts[1]}
    named |= set(re.findall(r'results / "(\w+\.\w+)"', (ROOT / "scripts/plan.py").read_text()))
    assert named | {"logs", "benchmarks"} == set(RESERVED_IDS)
