"""The full sort, in this process: what it obeys, repeats, refuses and leaves; quick sorter.

Those whose children matter are in `test_children.py`.
"""

import contextlib
import json
import os
import socket

import pytest
from spikeinterface.core import load

from spikecanary import canary, diagnosis, fullsort, sentinel, summary
from spikecanary.config import CanarySettings
from spikecanary.fullsort import SortFailedError, SortStoppedError
from spikecanary.recording import stamps
from spikecanary.summary import ending
from spikecanary.supervise.job import Job
from spikecanary.supervise.run import Ended
from spikecanary.table import Recording
from workbench import make_record, with_params, with_traces

pytestmark = pytest.mark.usefixtures("in_process")


def test_retry_repeats_only_what_wanted_a_resource_or_another_node(run, sort, task, tmp_path):
    run(task)
    with pytest.raises(SortFailedError, match="a bug that mentions CUDA"):
        sort(with_params(task, fail_in="full"))
    for attempt in (2, 3):
        with pytest.raises(SortFailedError, match="not tried again, it would fail again"):
            sort(task, attempt=attempt)
    journal = tmp_path / "x/attempts.jsonl"
    text = journal.read_text()
    for host, is_refused in ((socket.gethostname(), True), ("n2", False)):
        failure = {"class": "DependencyError", "category": "environment"}
        entry = {**json.loads(text.splitlines()[-1]), "failure": failure, "host": host}
        journal.write_text(f"{text}{json.dumps(entry)}\n")
        refuse = pytest.raises(SortFailedError, match="not tried again")
        with refuse if is_refused else contextlib.nullcontext():
            assert sort(task, attempt=2).outcome == "sorted"
    assert sort(task).outcome == "sorted"  # a new invocation tries again


def test_failure_of_an_earlier_run_refuses_no_retry(run, sort, task, monkeypatch):
    """Its first attempt was killed before it could say anything."""
    run(task)
    with pytest.raises(SortFailedError, match="a bug that mentions CUDA"):
        sort(with_params(task, fail_in="full"))
    monkeypatch.setenv(sentinel.RUN_BEGAN, "2126-01-01T00:00:00+00:00")
    assert sort(task, attempt=2).outcome == "sorted"


def test_full_sort_obeys(run, sort, task, quiet, tmp_path):
    run(with_params(quiet, fail_in="window", fail_how="silent"))
    with pytest.raises(SortStoppedError, match=r"canary: \{force: \[x\]\}"):
        sort(task)
    record = sort(task, forced=True)
    assert (record.outcome, record.forced, record.n_units) == ("sorted", True, 4)
    assert sentinel.read_record(tmp_path / "x/sort.json") == record


def test_sort_whose_files_are_kept_stands_whatever_a_later_canary_says(run, sort, task, tmp_path):
    """Its `sorting/` was removed."""
    run(task)
    assert sort(task).outcome == "sorted"
    stop = make_record(verdict="stop", outcome="stopped")
    sentinel.write_record(tmp_path / "x/canary.json", stop)
    assert "not sorted again" in sort(task).warnings[0]
    with pytest.raises(SortStoppedError, match="its canary says stop"):
        sort(task, keep_output=False)


def test_verdict_of_other_settings_or_data_lets_nothing_sort(tmp_path):
    path = tmp_path / "canary.json"
    tested = {"task": {"params": {"limit": float("inf"), "n": 5}}, "data": {"x": [1, 2]}}
    sentinel.write_record(path, make_record(settings={**tested, "settings": {}}))
    now = {"version": {"sort": 1}, "task": {"params": {"limit": float("inf"), "n": 5.0}}}
    assert fullsort.check_sentinel(path, {**now, "data": {"x": (1, 2)}}, forced=False)
    for other in ({"task": {}}, {"data": {"x": [1, 3]}}):
        with pytest.raises(SortStoppedError, match=rf"--forcerun {path}"):
            fullsort.check_sentinel(path, {**now, **other}, forced=False)
        assert fullsort.check_sentinel(path, {**now, **other}, forced=True)


@pytest.mark.parametrize("kind", ["task", "quiet"])
@pytest.mark.parametrize(
    "params", [{"fail_in": "always", "fail_how": "silent"}, {"threshold": 1000.0}]
)
def test_sort_that_finds_nothing_is_quiet_where_a_scan_sees_nothing_either(
    run, sort, request, kind, params
):
    """It raised, or returned no units; no canary has looked."""
    mute = with_params(request.getfixturevalue(kind), **params)
    run(mute, window_s=0)
    record = sort(mute)
    is_active = kind == "task"
    category = None if is_active else "biological"
    assert (record.outcome, record.failure.category) == ("unsortable", category)
    assert ("though a scan of the recording sees activity" in record.reason) is is_active
    results = request.getfixturevalue("tmp_path")
    assert load(results / "x/sorting").get_num_units() == record.n_units == 0
    (row,) = summary.describe(results, {"x": {}})
    assert ending.needs_attention(row) is is_active


def test_failed_sort_leaves_a_journal_line_and_no_output(run, sort, task, tmp_path):
    run(task)
    with pytest.raises(SortFailedError, match="x: the sort failed: ZeroDivisionError: a bug"):
        sort(with_params(task, fail_in="full"))
    assert not (tmp_path / "x/sorting").exists()
    assert not (tmp_path / "x/sort.json").exists()
    last = sentinel.read_journal(tmp_path / "x/attempts.jsonl")[-1]
    assert (last["kind"], last["outcome"]) == ("sort", "failed")


def test_full_sort_without_a_sentinel(sort, task):
    with pytest.raises(FileNotFoundError):
        sort(task)


def test_short_recording_that_is_declared_wrongly_fails_in_the_full_sort(task, traces, tmp_path):
    wrong = with_traces(task, traces, tmp_path / "x.raw", dtype="uint16")
    job = Job(log=tmp_path / "log.txt")
    canary.run(wrong, CanarySettings(min_recording_s=20), tmp_path / "x", job)
    with pytest.raises(SortFailedError, match="not what the table declares"):
        fullsort.run(wrong, tmp_path / "x", job)
    forced = fullsort.run(wrong, tmp_path / "x", job, forced=True)
    assert forced.outcome == "unsortable"  # as numbers of that type it has no spikes


@pytest.mark.parametrize(
    "after",
    [
        (
            120_000,
            960_000,
            "1,920,000 bytes before, 960,000 after (240,000 samples before, 120,000",
        ),
        (120_000, 1_920_000, "(240,000 samples before, 120,000 after)"),
        (240_000, 1_920_000, None),
        (None, 960_000, "960,000 after"),
    ],
)
def test_recording_cut_during_a_sort_that_ends_well_fails(task, monkeypatch, tmp_path, after):
    n_after, bytes_after, words = after
    facts = {"header": {"n_samples": 240_000}, "n_samples_after": n_after}
    ended = Ended(result={"n_units": 1, "n_spikes": 9}, facts=facts)
    sizes = iter([1_920_000, bytes_after])
    monkeypatch.setattr(diagnosis, "supervise", lambda *_, **__: ended)
    stamp = lambda *_: {"paths": [["x.raw", next(sizes), 0]]}  # noqa: E731
    monkeypatch.setattr(stamps, "of_recording", stamp)
    seen = diagnosis.sort(task, folder=tmp_path, supervision=None)
    assert (seen.failure is None) == (words is None) == (seen.result is not None)
    if words:
        assert "the recording shrank while it was sorted" in str(seen.failure)
        assert words in str(seen.failure)


def test_files_that_are_replaced_during_a_sort_are_a_warning(task, monkeypatch, tmp_path):
    def supervise(*_, **__):
        os.utime(task.row.paths[0], (1, 1))
        return Ended(result={"n_units": 1, "n_spikes": 9})

    monkeypatch.setattr(diagnosis, "supervise", supervise)
    seen = diagnosis.sort(task, folder=tmp_path, supervision=None)
    assert seen.result is not None
    assert "the recording changed while it was sorted" in seen.warnings[0]


def test_a_parameter_beyond_its_range_explains_an_unknown_failure(task, monkeypatch, tmp_path):
    header = {"duration_s": 8.0, "sampling_frequency_hz": 20_000.0}
    error = {"name": "IndexError", "message": "max()", "text": "IndexError: max()"}
    facts = {"stage": "sort", "header": header, "out_of_range": {"template_sizes": "1 to inf"}}
    beyond = with_params(task, template_sizes=0)
    monkeypatch.setattr(diagnosis, "call", lambda *_, **__: Ended())

    def told(message="max()", **more):
        ended = Ended(error=error | {"message": message}, facts=facts | more)
        monkeypatch.setattr(diagnosis, "supervise", lambda *_, **__: ended)
        return diagnosis.sort(beyond, folder=tmp_path, supervision=None).failure

    assert "template_sizes: 0 (1 to inf): IndexError: max()" in str(told())
    assert told().remedy.startswith("Give template_sizes a value of that range")
    assert told(out_of_range={}) is None
    assert told("CUDA error: unknown error") is None


def test_only_data_files_count_as_the_size_of_a_recording(tmp_path):
    (tmp_path / "a_t0.imec0.ap.bin").write_bytes(bytes(10))
    (tmp_path / "notes.txt").write_text("a note")
    row = Recording(id="x", paths=(str(tmp_path),), reader="spikeglx")
    assert stamps.size_bytes(stamps.of_recording(row, None)) == 10


def test_files_that_cannot_be_kept_cost_no_sort(run, sort, task, monkeypatch, caplog):
    def keep(*_):
        raise OSError(28, "No space left on device")

    run(task)
    monkeypatch.setattr(fullsort.sorteroutput, "keep", keep)
    assert sort(task).outcome == "sorted"
    assert "the sorter's own files are not kept" in caplog.text


def test_record_of_files_that_are_read_again_has_what_their_sort_took(run, sort, task, tmp_path):
    run(task)
    path, journal = tmp_path / "x/sort.json", tmp_path / "x/attempts.jsonl"
    took = sort(task).measured
    measured = {"wall_s": 5.0, "stages_s": {"sort": 5.0}}  # of other settings, which failed
    sentinel.append_line(journal, {"kind": "sort", "outcome": "failed", "measured": measured})
    record = sort(task)
    assert "not sorted again" in record.warnings[0]
    assert sentinel.read_record(path).measured == took
    assert record.measured != took
    assert sentinel.read_journal(journal)[-1]["measured"] == record.measured.model_dump()
    journal.unlink()
    sort(task)
    assert sentinel.read_record(path).measured is None
    (row,) = summary.describe(tmp_path, {"x": {}})
    assert (row["sort"], row["sort_wall_s"]) == ("sorted", None)
