"""The report: what it collects; :mod:`test_page` opens the page in a browser."""

import re

from reports import draw, failed, fill, sorted_record, write_recording, write_report
from spikecanary import report, sentinel, summary
from spikecanary.config import Config
from spikecanary.summary import ending
from workbench import ROOT, make_record, stopped


def test_totals_and_reasons(tmp_path):
    results = tmp_path / "results"
    page = write_report(results, fill(results)).read_text()
    rows = report.read_rows(results / "summary.tsv")
    totals = report.count(rows)
    assert totals["states"] == {"sorted": 3, "stopped": 2, "failed": 1, "pending": 2}
    assert (totals["n_units"], totals["n_good"], totals["n_needing"]) == (3 + 8 + 0, 2, 4)
    assert (totals["canaries_s"], totals["sorts_s"]) == (36.0, 3 * 7200.0)
    grouped = ending.group(filter(report.has_trouble, rows))
    groups = [[row["recording"] for row in group] for group in grouped]
    # Those that need a person come first; a failure without a class is among them.
    assert groups == [["big"], ["broken"], ["empty"], ["torn"], ["quiet"], ["odd"]]
    assert "<script>alert(1)" not in page
    assert not re.search(r"(src=|@import|<link)[^>]*https?://", page)


def test_a_warning_that_looks_like_two_is_one(tmp_path):
    results = tmp_path / "results"
    canary = make_record(n_channels=1, warnings=["twice", "flat; from 3 s on"])
    write_recording(results, "a", canary, sorted_record("a", warnings=["twice"]))
    broken = failed("b", "no such thing").model_copy(update={"warnings": ["slow; very"]})
    write_recording(results, "b", make_record())
    sentinel.append_journal(results / "b/attempts.jsonl", "sort", broken)
    page = write_report(results, ["a", "b"]).read_text()
    found = re.findall(r"Warning:</b> <bdi>(.+?)</bdi>", page)
    assert found == ["twice", "flat; from 3 s on", "slow; very"]
    assert re.findall(r"\((\d warnings?)\)", page) == ["2 warnings", "1 warning"]
    assert re.search(r", 1 channel\W", page)


def test_times_say_their_zone_where_no_script_shows_them(tmp_path):
    page = write_report(tmp_path, []).read_text()
    day, minute, zone = re.search(r'"([-\d]+)T([\d:]+):\d\d(\S+)">\1 ', page).groups()
    assert f">{day} {minute} UTC{zone}</time>" in page


def test_one_group_a_reason(tmp_path):
    names = [f"mouse_{a}{b}" for a in "abcdefg" for b in "hijklmn"]
    for number, name in enumerate(names):
        reason = f"KeyError: {number}: no stream of '{name}.dat' in /data/{name}/of {name}"
        write_recording(tmp_path, name, make_record(outcome="unexpected", reason=reason))
    write_report(tmp_path, names)
    (group,) = ending.group(report.read_rows(tmp_path / "summary.tsv"))
    assert [row["recording"] for row in group] == names


def test_what_is_of_another_sort_is_not_shown(tmp_path):
    results = tmp_path / "results"
    write_recording(results, "stopped", stopped("biological"), n_figures=1)
    write_recording(results, "sorted", make_record(), sorted_record("sorted"))
    write_recording(results, "pending", make_record(), n_figures=1)
    for name in ("stopped", "sorted"):
        draw(results / name / "canary.png")
    forced = stopped("biological").model_copy(update={"reason": "too quiet"})
    write_recording(results, "forced", forced, sorted_record("forced", forced=True))
    page = write_report(results, ["stopped", "sorted", "pending", "forced"]).read_text()
    rows = report.read_rows(results / "summary.tsv")
    found = {x["row"]["recording"]: x["figures"] for x in report.describe(rows, results)}
    assert {name: [each["name"] for each in some] for name, some in found.items()} == {
        "stopped": ["canary"],
        "sorted": [],
        "pending": [],
        "forced": [],
    }
    assert "1 without units" not in page
    assert "1 sorted" in page


def test_full_disk_hides_no_reason(tmp_path, monkeypatch, caplog):
    def write(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(summary, "write", write)
    report.write_after_errors(tmp_path, {}, Config())
    assert "summary and report could not be written: [Errno 28]" in caplog.text
    assert (tmp_path / ".errors").exists()  # so that the next run makes them


def test_host_that_fails_as_others_do_not_is_named(tmp_path):
    for number in range(4):
        on = {"host": f"n{number % 2}"}
        canary = make_record() if number % 2 else stopped("environment")
        sort = make_record(outcome="sorted", **on) if number % 2 else None
        write_recording(tmp_path, f"r{number}", canary.model_copy(update=on), sort)
    write_report(tmp_path, [f"r{number}" for number in range(4)])
    page = (tmp_path / "report.html").read_text()
    assert "Host n0 fails as others do not: X, 2 of 2 sorts and canaries, and 0 of 2" in page


def test_captions_are_those_of_snakemakes_report(tmp_path):
    assert "captions.rst" in (ROOT / "rules/outputs.smk").read_text()
    write_recording(tmp_path, "one", make_record(), sorted_record("one"))
    for name in ("probe", "drift", "templates"):
        draw(tmp_path / f"one/figures/{name}.png")
    page = write_report(tmp_path, ["one"]).read_text()
    for text in ("Steps and slopes are drift.", "The contacts of the probe"):
        assert text in report.CAPTIONS.read_text()
        assert text in page
