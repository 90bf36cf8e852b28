"""Canaries and full sorts by real child processes: measured, limited, ended, killed.

In `test_canary.py` and `test_fullsort.py` the steps are done in the test's own process.
"""

import pytest

from spikecanary import canary, forecast, fullsort, sentinel
from spikecanary.config import CanarySettings
from spikecanary.fullsort import SortFailedError
from spikecanary.supervise import watchdogs
from spikecanary.supervise.job import Job
from workbench import make_record, steps_in_process, with_params


@pytest.fixture
def tested(tmp_path):
    """Write the sentinel of a canary that passed."""
    sentinel.write_record(tmp_path / "x/canary.json", make_record(recording="x"))


def test_canary_that_passes_forecasts_its_sort_which_is_remembered(run, sort, long_task, tmp_path):
    tested = run(long_task, window_s=3)
    (window,) = tested.windows
    assert (window.start_s, window.end_s, window.why) == (0.0, 3.0, "leading")
    assert (tested.outcome, tested.n_units) == ("passed", 4)
    assert window.measured.peak_rss_mb > 50
    assert set(tested.forecast) == {"wall_s", "mem_mb", "disk_mb"}
    assert tested.forecast["wall_s"].low <= tested.forecast["wall_s"].high
    record = sort(long_task)
    assert record.forecast is not None
    (path,) = (tmp_path / "history").glob("*.jsonl")
    (entry,) = forecast.read_history(path)
    assert entry.actual["wall_s"] == record.measured.wall_s
    assert set(entry.window) == {"wall_s", "mem_mb", "disk_mb"}
    assert entry.window["wall_s"][0] == tested.measured.wall_s


def test_known_failure_stops(run, task):
    record = run(with_params(task, fail_in="window", fail_how="cuda"))
    assert (record.verdict, record.outcome) == ("stop", "stopped")
    assert record.failure.class_name == "GPUUnavailableError"
    assert record.failure.evidence == {"device": "cuda"}
    assert [window.ended for window in record.windows] == [
        "AssertionError: Torch not compiled with CUDA enabled"
    ]


def test_sorter_that_is_killed_stops_no_sort_which_is_repeated(run, sort, task):
    killed = with_params(task, fail_in="always", fail_how="kill")
    record = run(killed)
    assert (record.verdict, record.outcome) == ("proceed", "unexpected")
    assert record.failure.category is None
    assert "proved nothing" in record.reason
    with pytest.raises(SortFailedError, match="killed by SIGKILL"):
        sort(killed)
    with steps_in_process():
        assert sort(task, attempt=2).outcome == "sorted"


def test_hang_stops_and_a_limit_of_the_canarys_own_job_does_not(run, task, tmp_path, monkeypatch):
    hanging = with_params(task, fail_in="window", fail_how="hang")
    monkeypatch.setattr(watchdogs, "CANARY_INACTIVITY_S", (3.0, 3.0, 0.0))
    record = run(hanging)
    assert (record.verdict, record.failure.class_name) == ("stop", "SorterTimeoutError")
    assert "neither output nor CPU time nor I/O" in record.reason
    monkeypatch.undo()
    for limit, said in (({"runtime_min": 0.1}, "SorterTimeoutError"), ({"mem_mb": 60}, "Memory")):
        job = Job(log=tmp_path / "log.txt", **limit)
        settings = CanarySettings(window_s=2, min_recording_s=4)
        record = canary.run(hanging, settings, tmp_path / "x", job)
        assert (record.verdict, record.outcome) == ("proceed", "unexpected")
        assert said in record.warnings[0]
        assert record.warnings[0].find(record.failure.remedy) > 0


def test_hang_that_computes_stops_after_a_limit_of_the_real_window(run, task, monkeypatch):
    monkeypatch.setattr(watchdogs, "CANARY_INACTIVITY_S", (1.0, 9.0, 1.0))
    call = canary.call

    def lengthen(*arguments, **options):
        with steps_in_process():  # the sorter alone is a child
            found = call(*arguments, **options)
        found.result["window_s"] = 2.0
        return found

    monkeypatch.setattr(canary, "call", lengthen)
    record = run(with_params(task, fail_in="window", fail_how="spin"), window_s=1)
    assert (record.verdict, record.failure.class_name) == ("stop", "SorterTimeoutError")
    assert "it computes, but without" in record.reason
    assert record.failure.evidence["limit_s"] == 6.0


@pytest.mark.usefixtures("tested")
def test_full_sort_that_hangs_and_computes_is_ended(sort, task, monkeypatch):
    monkeypatch.setattr(watchdogs, "inactivity_limit_s", lambda *_: 2.0)
    with pytest.raises(SortFailedError, match="it computes, but without output, I/O, GPU or fresh"):
        sort(with_params(task, fail_in="full", fail_how="spin"))


@pytest.mark.usefixtures("tested")
def test_retry_that_may_have_no_more_than_before_is_refused(task, tmp_path):
    def sort(attempt, mem_mb):
        job = Job(log=tmp_path / "log.txt", attempt=attempt, mem_mb=mem_mb)
        return fullsort.run(task, tmp_path / "x", job)

    with pytest.raises(SortFailedError, match=r"of the job's 20 MB .* forecast\.max_mem_mb"):
        sort(1, 20)
    with pytest.raises(SortFailedError, match=r"no more than before \(forecast\.max_mem_mb\)"):
        sort(2, 20)
    with steps_in_process():
        assert sort(3, 2_000).outcome == "sorted"
