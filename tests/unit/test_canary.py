"""The canary's steps and verdicts, with the quick sorter, in this process.

Those whose children matter, since they are killed, hang or are limited, are in `test_children.py`.
"""

import runpy
from types import SimpleNamespace

import pytest

from spikecanary import canary, diagnosis, sentinel
from spikecanary.config import CanarySettings, ForecastSettings, RetrySettings
from spikecanary.failures import CATEGORIES, DiskExhaustionError
from spikecanary.fullsort import SortFailedError
from spikecanary.sorter import learning, registry
from spikecanary.supervise import folders
from spikecanary.supervise.child import describe_error
from spikecanary.supervise.job import Job
from spikecanary.supervise.run import Ended
from spikecanary.texts import PlainError
from workbench import ROOT, with_params

pytestmark = pytest.mark.usefixtures("in_process")


def test_passed(run, task):
    record = run(task)
    assert (record.verdict, record.outcome, record.n_units) == ("proceed", "passed", 4)
    assert (record.duration_s, record.n_channels, record.attempt) == (8.0, 4, 2)
    assert record.windows[0].ended == "4 units"
    assert record.warnings == []


def test_settings_of_late_steps_stop_before_anything_is_sorted(task, tmp_path):
    job = Job(log=tmp_path / "log.txt")
    record = canary.run(task, CanarySettings(), tmp_path / "x", job, refused=["config: a", "b"])
    assert (record.verdict, record.reason, record.windows) == ("stop", "config: a; b", [])
    assert (record.failure.class_name, record.failure.category) == ("SettingsError", "environment")


def test_no_units_of_an_active_recording_is_unexpected_and_of_another_biological(run, task, quiet):
    record = run(with_params(task, threshold=1000.0))
    assert (record.outcome, record.failure.class_name) == ("unexpected", "NoUnits")
    assert (
        record.reason == "the sorter found no units, though a scan of the recording sees activity"
    )
    assert "threshold: 1000" in record.failure.remedy
    record = run(with_params(quiet, threshold=1000.0))
    assert (record.outcome, record.failure.category) == ("stopped", "biological")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"window_s": 0}, "canary.window_s is 0"),
        ({"window_s": 9}, "8.00 s are less than the canary's window, 9 s"),
        ({"min_recording_s": 8.5}, "8.00 s are less than canary.min_recording_s, 8.5 s"),
    ],
)
def test_skipped(run, task, settings, reason):
    record = run(task, **settings)
    assert (record.verdict, record.outcome) == ("proceed", "skipped")
    assert reason in record.reason


def test_recording_of_just_the_window_is_tested(run, task):
    assert run(task, window_s=8, min_recording_s=8).outcome == "passed"


def test_what_nobody_knows_proceeds(run, task):
    record = run(with_params(task, fail_in="window", fail_how="bug"))
    assert (record.verdict, record.outcome) == ("proceed", "unexpected")
    assert record.failure.category is None
    assert "proved nothing" in record.reason


def test_no_memory_in_a_canary_proceeds_with_a_warning(run, sort, task, tmp_path):
    record = run(with_params(task, fail_in="always", fail_how="memory"))
    assert (record.verdict, record.outcome) == ("proceed", "unexpected")
    assert record.failure.category is None
    assert record.warnings[0].startswith("HostMemoryWatchdogError: the host's memory")
    with pytest.raises(SortFailedError, match="the host's memory was not enough"):
        sort(with_params(task, fail_in="always", fail_how="memory"))
    last = sentinel.read_journal(tmp_path / "x/attempts.jsonl")[-1]
    assert last["failure"]["category"] == "resource"


def test_canary_retries_with_smaller_batches_as_the_full_sort_does(
    run, sort, task, tmp_path, monkeypatch
):
    """Text of a GPU that is full with large batches, by the quick sorter; no GPU is here."""
    monkeypatch.setitem(registry.MEMORY_KNOBS, "quick", ("unused", 64, 1, 4))
    full = with_params(task, fail_in="always", fail_how="gpu_memory", unused=64)
    said = ["{'unused': 32}", "{'unused': 16}"]
    record = run(full)
    assert (record.verdict, record.outcome, record.n_units) == ("proceed", "passed", 4)
    assert [line.split("sorted with ")[1] for line in record.warnings] == said
    record = sort(full)
    assert (record.outcome, record.sorter.params["unused"]) == ("sorted", 16)
    assert [line.split("sorted with ")[1] for line in record.warnings] == said
    *_, first, second, last = sentinel.read_journal(tmp_path / "x/attempts.jsonl")
    for failed in (first, second):
        assert (failed["outcome"], failed["failure"]["class"]) == ("failed", "GPUOutOfMemoryError")
    assert (last["outcome"], last["failure"]) == ("sorted", None)


def test_gpu_memory_that_no_batch_helps(run, sort, task, monkeypatch, tmp_path):
    monkeypatch.setitem(registry.MEMORY_KNOBS, "quick", ("unused", 64, 1, 4))
    full = with_params(task, fail_in="always", fail_how="gpu_memory", unused=1000)
    record = run(full)
    assert (record.verdict, record.failure.class_name) == ("stop", "GPUOutOfMemoryError")
    with pytest.raises(SortFailedError, match="GPU's memory was not enough"):
        sort(full, forced=True)
    journal = sentinel.read_journal(tmp_path / "x/attempts.jsonl")
    assert [line["outcome"] for line in journal] == ["stopped", "failed", "failed", "failed"]


def test_canary_makes_as_many_retries_as_the_config_says(task, tmp_path, monkeypatch):
    monkeypatch.setitem(registry.MEMORY_KNOBS, "quick", ("unused", 64, 1, 4))
    full = with_params(task, fail_in="window", fail_how="gpu_memory", unused=64)
    job = Job(log=tmp_path / "log.txt", retry=RetrySettings(gpu_memory_times=1))
    record = canary.run(full, CanarySettings(window_s=2, min_recording_s=4), tmp_path / "x", job)
    assert (record.verdict, record.failure.class_name) == ("stop", "GPUOutOfMemoryError")
    assert len(record.warnings) == 1


def test_error_of_the_gpu_that_comes_and_goes_is_tried_once_more(
    run, sort, task, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for part, start in (("window", run), ("full", sort)):
        record = start(with_params(task, fail_in=part, fail_how="launch", unused=1))
        assert record.outcome == {"window": "passed", "full": "sorted"}[part]
        assert "unspecified launch failure), and the same sort was tried" in record.warnings[0]
        assert len((tmp_path / "launches").read_text()) == 2
        (tmp_path / "launches").unlink()
    record = run(with_params(task, fail_in="window", fail_how="launch", unused=2))
    assert (record.verdict, record.outcome) == ("proceed", "unexpected")
    assert len((tmp_path / "launches").read_text()) == 2


@pytest.mark.parametrize(
    ("text", "comes_and_goes"),
    [
        ("RuntimeError: CUDA error: unknown error\nCUDA kernel errors might be", True),
        ("torch.AcceleratorError: CUDA error: unspecified launch failure", True),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", True),
        (
            "RuntimeError: CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasSgemm(",
            True,
        ),
        ("RuntimeError: CUDA error: device-side assert triggered", False),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", False),
        ("RuntimeError: CUDA error: no kernel image is available for execution", False),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_NOT_SUPPORTED", False),
        ("UserWarning: perhaps a CUDA error: unknown error", False),
    ],
)
def test_which_errors_of_a_gpu_come_and_go(text, comes_and_goes):
    text = f"Traceback (most recent call last):\n  ...\n{text}\n"
    assert bool(diagnosis.TRANSIENT.search(text)) == comes_and_goes


class Params(dict):
    """Snakemake's params and resources: by key and by name."""

    __getattr__ = dict.__getitem__


def test_work_folder_that_cannot_be_emptied_fails_the_job(run, task, tmp_path, monkeypatch):
    folders.work_path(tmp_path / "x", "canary").mkdir(parents=True)

    def busy(path, **_):
        raise OSError(16, "Device or resource busy", str(path))

    monkeypatch.setattr(folders.shutil, "rmtree", busy)
    with pytest.raises(folders.LeftoverError, match=r"x/\.canary-.* cannot be removed .*busy"):
        run(task)
    assert not (tmp_path / "x/canary.json").exists()
    # Its script: settings of a version without retries will do.
    batch = {"limits": {"scratch": None}, "late": {}}
    params = Params(task=task.as_set(), data={}, attempt=0, batch=batch)
    params["settings"] = {"canary": {}, "preflight": {}, "watchdogs": {}, "forecast": {}}
    job = SimpleNamespace(
        log=[tmp_path / "log.txt"],
        params=params,
        resources=Params(mem_mb=1000, runtime=10, attempt=1),
        output=SimpleNamespace(sentinel=tmp_path / "x/canary.json"),
        threads=1,
    )
    for of_process in ("processes.exit_on_signals", "log.new_log", "log.configure"):
        monkeypatch.setattr(f"spikecanary.supervise.{of_process}", lambda *_, **__: None)
    left = folders.work_path(tmp_path / "x", "canary")
    words = f"{left}, which an earlier job left, cannot be removed"
    with pytest.raises(folders.LeftoverError, match=words):
        runpy.run_path(str(ROOT / "scripts/canary.py"), {"snakemake": job}, "__main__")


def test_canary_that_was_killed_sorts_nothing(task, tmp_path):
    job = Job(log=tmp_path / "log.txt", attempt=2)
    record = canary.run(task, CanarySettings(window_s=2, min_recording_s=4), tmp_path / "x", job)
    assert (record.verdict, record.outcome, record.windows) == ("proceed", "unexpected", [])
    assert "the canary's job was killed" in record.reason


def test_second_opinion_is_a_second_window(run, task, monkeypatch):
    monkeypatch.setattr(canary, "SAME_WINDOW_S", -1.0)  # this recording is active from its start
    silent = with_params(task, fail_in="window", fail_how="silent")
    assert [window.why for window in run(silent).windows] == ["leading", "most active"]


@pytest.fixture
def counted(monkeypatch, counts, start_s):
    """Let the full sort learn from these batches."""
    found = learning.Learned(needed=6, counts=counts, start_s=start_s)
    monkeypatch.setattr(canary._Canary, "_count_clips", lambda _: found)


def test_active_recording_is_never_called_silent(run, task, quiet):
    record = run(with_params(task, fail_in="window", fail_how="silent"))
    assert (record.verdict, record.outcome) == ("proceed", "unexpected")
    assert record.failure.category is None
    assert "though a scan of the recording sees activity" in record.reason
    assert "(fail_in: window, fail_how: silent)" in record.failure.remedy
    record = run(with_params(quiet, fail_in="window", fail_how="silent"))
    assert (record.verdict, record.failure.category) == ("stop", "biological")


@pytest.mark.parametrize(
    "params", [{"fail_in": "window", "fail_how": "silent"}, {"threshold": 1000.0}]
)
def test_recording_that_cannot_be_scanned_is_not_called_silent(run, quiet, monkeypatch, params):
    real = canary.call

    def call(function, *arguments, **options):
        if function is canary.activity.scan:
            return canary.Ended(died_of=-9)
        return real(function, *arguments, **options)

    monkeypatch.setattr(canary, "call", call)
    record = run(with_params(quiet, **params))
    assert (record.verdict, record.outcome) == ("proceed", "unexpected")
    assert "and the scan for activity failed (" in record.reason


@pytest.mark.parametrize(
    ("kind", "counts", "start_s", "expected"),
    [
        ("quiet", {0.0: 3, 2.0: 1, 4.0: 2}, None, (1, "proceed", "passed")),
        ("task", {0.0: 3, 2.0: 1, 4.0: 2}, None, (1, "proceed", "passed")),
        ("task", {0.0: 0, 3.0: 9}, None, (2, "proceed", "SpikeSortingError")),
        ("task", {0.0: 0, 7.5: 9}, None, (1, "proceed", "passed")),  # no room for a window
        ("task", {0.0: 9}, None, (1, "proceed", "SpikeSortingError")),
        ("task", {0.0: 0, 4.0: 5}, 2.0, (1, "stop", "SorterParameterError")),
        ("task", {0.0: 0, 4.0: 5}, None, (1, "stop", "SorterParameterError")),
        ("quiet", {0.0: 0, 4.0: 5}, None, (1, "stop", "InsufficientActivityError")),
    ],
)
@pytest.mark.usefixtures("counted")
def test_what_the_full_sort_will_learn_from_decides(run, request, kind, start_s, expected):
    task = request.getfixturevalue(kind)
    record = run(with_params(task, fail_in="window", fail_how="silent"))
    said = record.failure.class_name if record.failure else record.outcome
    assert (len(record.windows), record.verdict, said) == expected
    assert record.outcome != "unexpected" or "fail_in: window" in record.failure.remedy
    if record.verdict == "stop":
        assert (
            "5 spikes, of 6 that it needs to learn templates, in the batches at 0, 4 s"
            in record.reason
        )
        assert ("Set start_s to 2 in" in record.failure.remedy) is (start_s is not None)


def test_categories_that_do_not_stop(run, task):
    record = run(with_params(task, fail_in="window", fail_how="cuda"), stop_on=["biological"])
    assert (record.verdict, record.outcome) == ("proceed", "unexpected")
    assert record.failure.class_name == "GPUUnavailableError"
    assert "canary.stop_on" in record.reason


def test_failed_preflight_stops_without_a_window(run, task):
    gone = task.model_copy(update={"sorter": task.sorter.model_copy(update={"name": "none"})})
    record = run(gone)
    assert record.failure.class_name == "SorterUnavailableError"
    assert record.windows == []


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (DiskExhaustionError("800 MB of disk are free"), "stopped"),
        (OSError(28, "No space left on device"), "unexpected"),
    ],
)
def test_full_disk_that_a_check_finds_stops_and_one_that_others_meet_does_not(raised, outcome):
    ended = Ended(error=describe_error(raised), failure=DiskExhaustionError("the disk is full"))
    assert canary.decide(canary.Evidence(failed=ended), CATEGORIES).outcome == outcome


def test_missing_recording_stops_without_a_window(run, task):
    gone = task.model_copy(update={"row": task.row.model_copy(update={"paths": ("/none",)})})
    record = run(gone)
    assert record.failure.class_name == "RecordingUnreadableError"
    assert record.windows == []


def test_bug_of_the_canary_itself_proceeds(run, task, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(canary._Canary, "collect", broken)
    record = run(task)
    assert (record.verdict, record.outcome) == ("proceed", "unexpected")
    assert record.reason == "the canary itself failed: ZeroDivisionError: ours"


def test_verdict_that_cannot_be_written_is_said_in_a_line(run, task, monkeypatch):
    def full(path, record):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(sentinel, "write_record", full)
    with pytest.raises(
        PlainError, match=r"x: its verdict cannot be written to .*No space left.*Free"
    ):
        run(task)


def test_what_cannot_fit_is_stopped(task, tmp_path):
    job = Job(log=tmp_path / "log.txt", forecast=ForecastSettings.model_construct(max_mem_mb=20))
    record = canary.run(task, CanarySettings(window_s=2, min_recording_s=4), tmp_path / "x", job)
    assert (record.verdict, record.failure.class_name) == ("stop", "CapacityForecastError")
    assert record.failure.category == "resource"
    assert record.failure.evidence["room"] == 20.0
    assert record.failure.remedy.startswith("To make it fit: raise forecast.max_mem_mb")
    assert record.n_units == 4
    assert sentinel.count_retestable(tmp_path / "x/attempts.jsonl") == 1


def test_interrupt_leaves_a_journal_line_only(task, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise canary.Interrupted(15)

    monkeypatch.setattr(canary._Canary, "collect", interrupted)
    with pytest.raises(SystemExit) as caught:
        canary.run(task, CanarySettings(), tmp_path / "x", Job(log=tmp_path / "log.txt"))
    assert caught.value.code == 143
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["attempts.jsonl"]
    (line,) = sentinel.read_journal(tmp_path / "x/attempts.jsonl")
    assert (line["kind"], line["outcome"], line["verdict"]) == ("canary", "interrupted", None)
    assert (line["reason"], line["exit_status"]) == ("interrupted by SIGTERM", 143)
    assert sentinel.count_retestable(tmp_path / "x/attempts.jsonl") == 0
