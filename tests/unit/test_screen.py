"""What a person reads in the terminal while a batch runs."""

import logging
import os
import re
import sys
from datetime import UTC, datetime, timedelta

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_spikecanary.quiet import quieten
from spikecanary import gate, screen, sentinel
from spikecanary.sentinel import Measured
from spikecanary.table.tsv import write_tsv
from spikecanary.texts import abridge, duration
from workbench import make_record, stopped


@pytest.fixture
def results(tmp_path):
    """Write the records of four recordings in two waves: sorted, stopped, unexpected, stopped."""
    healthy = make_record(recording="a", n_units=8)
    odd = make_record(recording="c", outcome="unexpected", reason="no such thing", log="c.log")
    records = [healthy, stopped("environment"), odd, stopped("environment")]
    for name, record in zip("abcd", records, strict=True):
        of_name = record.model_copy(update={"recording": name})
        sentinel.write_record(tmp_path / name / "canary.json", of_name)
    measured = Measured(wall_s=130.0)
    sort = make_record(recording="a", outcome="sorted", n_units=1, measured=measured)
    sentinel.write_record(tmp_path / "a" / "sort.json", sort)
    for wave, names in (("1", "ab"), ("2", "cd")):
        rows = gate.read_wave(tmp_path / name / "canary.json" for name in names)
        write_tsv(tmp_path / "gates" / f"{wave}.tsv", gate.COLUMNS, rows)
    return tmp_path


def shown(*names: str) -> dict:
    rows = {name: {"table_row": str("abcd".index(name))} for name in names}
    return {"rows": rows, "names": list("abcdefghijkl"), "waves": ["1", "2"], "force": []}


def test_a_line_a_verdict(results, capsys):
    screen.print_lines("canary", results, shown("a", "b", "c"))
    assert capsys.readouterr().out.splitlines() == [  # of the four that have ended, the last
        " 2 of 12  a  proceed, 8 units in 30 s",
        " 3 of 12  b  stop, 8 units in 30 s",
        " 4 of 12  c  unexpected, no such thing",
    ]


def test_record_that_cannot_be_read_costs_no_job(results, capsys):
    (results / "a" / "sort.json").write_text("{")
    screen.print_lines("canary", results, shown("a", "b"))
    screen.print_gate(results / "gates/2.tsv", shown() | {"names": list("abcd")})
    told = capsys.readouterr().out
    assert re.search("  a  pending, /.*/a/sort.json is not a Spike Canary record", told)
    # Nothing is sorted that has a record which cannot be read.
    assert "2 stopped, 1 without a verdict (docs/troubleshooting.md)\n" in told


def test_a_line_a_sort(results, capsys):
    screen.print_lines("sort", results, shown("a", "b"))  # b is not sorted
    assert capsys.readouterr().out == " 1 of 10  a  sorted, 1 unit after 2 min 10 s\n"


def test_forced_sorts_count_before_they_end(results, capsys):
    batch = shown("a") | {"names": list("abd"), "force": ["d"]}  # b and d are stopped
    screen.print_lines("sort", results, batch)
    assert capsys.readouterr().out.startswith("1 of 2  a")


def test_sort_of_which_nobody_knows_how_long_it_took(results, capsys):
    sort = make_record(recording="a", outcome="sorted", n_units=1)
    sentinel.write_record(results / "a/sort.json", sort)
    screen.print_lines("sort", results, shown("a"))
    assert capsys.readouterr().out == " 1 of 10  a  sorted, 1 unit\n"


def test_colours_are_for_terminals_that_want_them(results, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen.print_lines("canary", results, shown("b"))
    assert "\033[31mstop\033[0m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    screen.print_lines("canary", results, shown("b"))
    assert "\033" not in capsys.readouterr().out


def test_results_of_other_tables_do_not_count(results, capsys):
    screen.print_lines("canary", results, shown("d") | {"names": ["c", "d"]})
    assert capsys.readouterr().out.startswith("2 of 2  d  stop")
    (results / "gates/torn.tsv").write_text("verdict")  # costs no sort that has just ended
    screen.print_lines("sort", results, shown("a") | {"names": ["a", "b"]})  # b is stopped
    assert capsys.readouterr().out.startswith("1 of 1  a  sorted")


def test_gates_that_are_read_again_in_this_run_are_not_known_yet(results, capsys, monkeypatch):
    began = datetime.now(UTC) + timedelta(seconds=10)
    monkeypatch.setenv(sentinel.RUN_BEGAN, began.isoformat())
    later = began.timestamp() + 10
    for wave, text in (("2", "Verdicts of wave 2 are"), ("1", "All verdicts are")):
        os.utime(results / f"gates/{wave}.tsv", (later, later))
        screen.print_gate(results / f"gates/{wave}.tsv", shown("a") | {"names": list("abcd")})
        assert capsys.readouterr().out.startswith(text)


def test_last_gate_tells_the_failures_of_all(results, capsys):
    second = (results / "gates" / "2.tsv").rename(results / "later.tsv")
    screen.print_gate(results / "gates" / "1.tsv", shown("a", "b"))
    out = capsys.readouterr().out
    assert out == "Verdicts of wave 1 are known: 1 proceed, 1 stopped\n"
    second.rename(results / "gates" / "2.tsv")
    screen.print_gate(results / "gates" / "2.tsv", shown() | {"names": list("abcd")})
    out = capsys.readouterr().out
    assert out.startswith("All verdicts are known: 2 proceed (1 unexpected), 2 stopped (docs/tr")
    assert "2 stopped, X: b, d" in out
    everything = shown() | {"names": list("abcd"), "force": ["d"]}
    screen.print_gate(results / "gates" / "2.tsv", everything)
    forced = capsys.readouterr().out
    assert forced.startswith("All verdicts are known: 2 proceed (1 unexpected), 1 stopped, 1 fo")
    assert "1 stopped, X: b\n" in forced
    sentinel.write_record(results / "d/sort.json", make_record(recording="d", outcome="sorted"))
    screen.print_gate(results / "gates/2.tsv", everything | {"force": []})
    counted = "2 proceed (1 unexpected), 1 stopped, 1 stopped by now, but sorted before (docs/tr"
    assert counted in capsys.readouterr().out
    assert "1 unexpected: c\n    no such thing.\n    log: c.log" in out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.45, "0.5 s"), (59.6, "1 min 0 s"), (3600, "1 h 0 min"), (36, "36 s")],
)
def test_times(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("is_local", [False, True])
def test_snakemake_is_quiet_about_single_jobs(is_local, capsys):
    seen = []
    handler = logging.Handler()
    handler.name = "DefaultStreamHandler"
    handler.emit = lambda record: seen.append(record.getMessage())
    logger = logging.getLogger(f"test_screen.{is_local}")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    quieten(logger, is_local=lambda: is_local)
    for message in ("table", "table again"):
        logger.info(message, extra={"event": LogEvent.RUN_INFO})
    logger.info("1 of 4 steps", extra={"event": LogEvent.PROGRESS})
    for message in ("Select jobs to execute...", "a warning of somebody"):
        logger.warning(message)
    logger.info("Complete log(s): x.log")
    assert seen == ["table", "a warning of somebody"]
    died = {"rule_name": "canary", "log": ["logs/canary/r1.log"], "aux": {"external_jobid": "17"}}
    logger.error("Error in rule canary", extra={"event": LogEvent.JOB_ERROR, **died})
    line = "Job 17 of rule canary failed; log: logs/canary/r1.log\n"
    assert capsys.readouterr().err == ("" if is_local else line)
    for message in ("Elapsed time: 0:01", "Complete log(s): x.log"):
        logger.info(message)
    assert seen[2:] == ["Error in rule canary", "Complete log(s): x.log"]


def test_of_a_long_path_both_ends_are_told():
    path = f"/data/{'long/' * 40}session1.raw"
    told = abridge(f"{path} does not exist", 100)
    assert len(told) <= 100
    assert told.startswith("/data/long/long/")
    assert told.endswith("session1.raw does not exist")
    assert abridge("short\n text", 100) == "short text"


def test_terminal_that_was_closed_costs_no_job(results, monkeypatch):
    class Closed:
        isatty = staticmethod(lambda: False)

        def write(self, _):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    screen.print_lines("canary", results, shown("a", "b"))
    screen.print_gate(results / "gates/2.tsv", shown("a"))
    sys.stdout.flush()  # as at the end of the process


def test_verdicts_are_not_all_known_while_new_recordings_wait(results, capsys):
    everything = shown("a") | {"names": list("abcde")}  # e was added, and is not tested yet
    screen.print_gate(results / "gates/2.tsv", everything)
    assert capsys.readouterr().out == "Verdicts of wave 2 are known: 1 proceed\n"


def test_sort_on_another_host_may_run(results, capsys):
    (results / "c/.sort-n2.lab-17").mkdir()
    screen.print_gate(results / "gates/2.tsv", shown("a") | {"names": list("abcd")})
    assert "killed" not in capsys.readouterr().out
