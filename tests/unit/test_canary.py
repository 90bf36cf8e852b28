"""The canary's steps and verdicts, with the quick sorter in real child processes."""

import os
import runpy
import shutil
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from spikeinterface.core import load

from spikecanary import (
    canary,
    diagnosis,
    forecast,
    fullsort,
    learning,
    sentinel,
    sorter,
    sorteroutput,
    stamps,
)
from spikecanary.config import (
    CanarySettings,
    Config,
    ForecastSettings,
    RetrySettings,
    SorterSettings,
)
from spikecanary.fullsort import SortFailedError, SortStoppedError
from spikecanary.supervise import folders, watchdogs
from spikecanary.supervise.job import Job
from spikecanary.supervise.run import Ended
from spikecanary.table import Recording
from workbench import ROOT


@pytest.fixture
def task(write_binary, reader_options):
    row = Recording(
        id="x",
        paths=(str(write_binary("active", 8.0)),),
        reader="binary",
        reader_options=reader_options,
    )
    plugin = str(ROOT / "tests/quick_sorter.py")
    return sorter.make_task(row, Config(sorter=SorterSettings(name="quick", plugin=plugin)))


@pytest.fixture
def quiet(task, write_binary):
    """Return the task of a recording of noise alone."""
    row = task.row.model_copy(update={"paths": (str(write_binary("silent", 8.0)),)})
    return task.model_copy(update={"row": row})


def with_params(task, **params):
    return task.model_copy(update={"sorter": task.sorter.model_copy(update={"params": params})})


@pytest.fixture
def run(tmp_path):
    def start(task, **settings):
        settings = {"window_s": 2, "min_recording_s": 4} | settings
        job = Job(log=tmp_path / "log.txt")
        record = canary.run(task, CanarySettings(**settings), tmp_path / "x", job, attempt=2)
        assert sentinel.read_record(tmp_path / "x/canary.json") == record
        journal = sentinel.read_journal(tmp_path / "x/attempts.jsonl")
        assert journal[-1]["outcome"] == record.outcome
        assert not list((tmp_path / "x").glob(".*"))
        return record

    return start


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


def test_no_units_is_a_warning(run, task):
    record = run(with_params(task, threshold=1000.0))
    assert (record.outcome, record.n_units) == ("passed", 0)
    assert "found no units" in record.warnings[0]


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


@pytest.mark.parametrize("how", ["bug", "kill", "exit"])
def test_what_nobody_knows_proceeds(run, task, how):
    record = run(with_params(task, fail_in="window", fail_how=how))
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


def test_canary_retries_with_smaller_batches_as_the_full_sort_does(run, sort, task, monkeypatch):
    """Text of a GPU that is full with large batches, by the quick sorter; no GPU is here."""
    monkeypatch.setitem(sorter.MEMORY_KNOBS, "quick", ("unused", 64, 1, 4))
    full = with_params(task, fail_in="always", fail_how="gpu_memory", unused=64)
    said = ["{'unused': 32}", "{'unused': 16}"]
    record = run(full)
    assert (record.verdict, record.outcome, record.n_units) == ("proceed", "passed", 4)
    assert [line.split("sorted with ")[1] for line in record.warnings] == said
    record = sort(full)
    assert (record.outcome, record.sorter.params["unused"]) == ("sorted", 16)
    assert [line.split("sorted with ")[1] for line in record.warnings] == said
    record = run(with_params(task, fail_in="window", fail_how="gpu_memory", unused=1000))
    assert (record.verdict, record.failure.class_name) == ("stop", "GPUOutOfMemoryError")


def test_canary_makes_as_many_retries_as_the_config_says(task, tmp_path, monkeypatch):
    monkeypatch.setitem(sorter.MEMORY_KNOBS, "quick", ("unused", 64, 1, 4))
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


def test_hang_that_computes_stops_after_a_limit_of_the_real_window(run, task, monkeypatch):
    monkeypatch.setattr(watchdogs, "CANARY_INACTIVITY_S", (1.5, 9.0, 1.5))
    inspect = diagnosis.inspect

    def lengthen(*arguments, **options):
        found = inspect(*arguments, **options)
        found.ended.result["window_s"] = 2.0
        return found

    monkeypatch.setattr(diagnosis, "inspect", lengthen)
    record = run(with_params(task, fail_in="window", fail_how="spin"), window_s=1)
    assert (record.verdict, record.failure.class_name) == ("stop", "SorterTimeoutError")
    assert "it computes, but without" in record.reason
    assert record.failure.evidence["limit_s"] == 9.0


class Params(dict):
    """Snakemake's params and resources: by key and by name."""

    __getattr__ = dict.__getitem__


def test_work_folder_that_cannot_be_emptied_fails_the_job(run, task, tmp_path, monkeypatch, caplog):
    folders.work_path(tmp_path / "x", "canary").mkdir(parents=True)

    def busy(path, **_):
        raise OSError(16, "Device or resource busy", str(path))

    monkeypatch.setattr(folders.shutil, "rmtree", busy)
    with pytest.raises(folders.LeftoverError, match=r"x/\.canary-.* cannot be removed .*busy"):
        run(task)
    assert not (tmp_path / "x/canary.json").exists()
    # Its script: settings of a version without retries will do.
    params = Params(task=task.as_set(), data={}, attempt=0)
    params["settings"] = {"canary": {}, "preflight": {}, "watchdogs": {}, "forecast": {}}
    job = SimpleNamespace(
        log=[tmp_path / "log.txt"],
        params=params,
        resources=Params(mem_mb=1000, runtime=10, attempt=1),
        output=SimpleNamespace(sentinel=tmp_path / "x/canary.json"),
        threads=1,
    )
    main = runpy.run_path(str(ROOT / "scripts/canary.py"), run_name="script")["main"]
    for name in ("exit_on_signals", "new_log", "configure"):  # of this process
        monkeypatch.setitem(main.__globals__, name, lambda *_, **__: None)
    assert main(job) == 1
    left = folders.work_path(tmp_path / "x", "canary")
    assert caplog.messages[-1].startswith(f"{left}, which an earlier job left, cannot be removed")


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
    record = run(with_params(quiet, fail_in="window", fail_how="silent"))
    assert (record.verdict, record.failure.category) == ("stop", "biological")


@pytest.mark.parametrize(
    ("kind", "counts", "start_s", "expected"),
    [
        ("quiet", {0.0: 3, 2.0: 1, 4.0: 2}, None, (1, "proceed", "passed")),
        ("task", {0.0: 0, 3.0: 9}, None, (2, "proceed", "SpikeSortingError")),
        ("task", {0.0: 0, 7.5: 9}, None, (1, "proceed", "passed")),  # no room for a window
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
    if record.verdict == "stop":
        assert "5 clips, of 6 needed, in the batches at 0, 4 s" in record.reason
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


def test_classified_failure_stops(run, task):
    record = run(with_params(task, fail_in="window", fail_how="cuda"))
    assert (record.verdict, record.outcome) == ("stop", "stopped")
    assert record.failure.class_name == "GPUUnavailableError"
    assert record.failure.evidence == {"device": "cuda"}
    assert [window.ended for window in record.windows] == [
        "AssertionError: Torch not compiled with CUDA enabled"
    ]


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


@pytest.fixture
def long_task(task, write_binary):
    return task.model_copy(
        update={"row": task.row.model_copy(update={"paths": (str(write_binary("active", 24.0)),)})}
    )


def test_long_recording_is_forecast_from_one_window(run, long_task):
    record = run(long_task, window_s=3)
    (window,) = record.windows
    assert (window.start_s, window.end_s, window.why) == (0.0, 3.0, "leading")
    assert record.n_units == 4
    assert window.measured.peak_rss_mb > 50
    assert set(record.forecast) == {"wall_s", "mem_mb", "disk_mb"}
    assert record.forecast["wall_s"].low <= record.forecast["wall_s"].high


def test_what_cannot_fit_is_stopped(task, tmp_path):
    job = Job(log=tmp_path / "log.txt", forecast=ForecastSettings(max_mem_mb=20))
    record = canary.run(task, CanarySettings(window_s=2, min_recording_s=4), tmp_path / "x", job)
    assert (record.verdict, record.failure.class_name) == ("stop", "CapacityForecastError")
    assert record.failure.category == "resource"
    assert record.failure.evidence["room"] == 20.0
    assert "To make it fit: raise forecast.max_mem_mb" in record.reason
    assert record.n_units == 4
    assert sentinel.count_retestable(tmp_path / "x/attempts.jsonl") == 1


@pytest.fixture
def scratch(monkeypatch):
    """Make a folder of another file system, named by a variable."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("no second file system")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        monkeypatch.setenv("SPIKE_SCRATCH", folder)
        yield Path(folder)


def test_work_in_scratch_and_results_moved_whole(task, tmp_path, scratch, monkeypatch):
    results, worked = tmp_path / "x", set()
    job = Job(log=tmp_path / "log.txt", scratch="$SPIKE_SCRATCH")
    elsewhere = folders.scratch_path(results, "$SPIKE_SCRATCH")
    dead = elsewhere / f".sort-{socket.gethostname()}-{2**22 + 1}"
    (dead / "left").mkdir(parents=True)
    original = diagnosis.supervise

    def supervise(*args, folder, supervision, **options):
        worked.update([elsewhere in folder.parents, *supervision.folders])
        assert list(results.glob(".[cs]*-*"))  # others see that it works
        return original(*args, folder=folder, supervision=supervision, **options)

    monkeypatch.setattr(diagnosis, "supervise", supervise)
    settings = CanarySettings(window_s=2, min_recording_s=4)
    assert canary.run(task, settings, results, job).outcome == "passed"
    (results / "sorting").mkdir(parents=True)  # not Snakemake's doing
    for _ in range(2):
        assert fullsort.run(task, results, job).outcome == "sorted"
        shutil.rmtree(results / "sorter_output")
    assert fullsort.run(task, results, job).n_units == 4
    assert worked == {True, results.absolute()}  # the space of both is watched
    assert load(results / "sorting").get_num_units() == 4
    assert sorteroutput.find(results, job.recorded_settings) == results / "sorter_output"
    assert not list(results.glob(".*"))
    assert not list(scratch.iterdir())


def test_scratch_that_is_not_there(task, tmp_path):
    job = Job(log=tmp_path / "log.txt", scratch="$NOT_SET_HERE/x")
    record = canary.run(task, CanarySettings(window_s=2), tmp_path / "x", job)
    assert (record.verdict, record.failure.category) == ("stop", "environment")
    assert "job.scratch" in record.reason
    assert "$NOT_SET_HERE/x cannot be written" in record.reason
    with pytest.raises(SortFailedError, match=r"cannot be written.* Make that folder on every"):
        fullsort.run(task, tmp_path / "x", job, forced=True)
    last = sentinel.read_journal(tmp_path / "x/attempts.jsonl")[-1]
    assert (last["outcome"], last["failure"]["class"]) == ("failed", "FolderNotWritableError")


@pytest.mark.usefixtures("scratch")
def test_results_that_have_no_room_for_what_scratch_holds(task, tmp_path, monkeypatch):
    job = Job(log=tmp_path / "log.txt", scratch="$SPIKE_SCRATCH")
    canary.run(task, CanarySettings(window_s=2, min_recording_s=4), tmp_path / "x", job)

    def full(source, target, **_):
        target.mkdir()
        raise shutil.Error([(source, target, "[Errno 28] No space left on device")])

    monkeypatch.setattr(sentinel.shutil, "copytree", full)
    with pytest.raises(SortFailedError, match=r"cannot be copied from .*No space left"):
        fullsort.run(task, tmp_path / "x", job)
    last = sentinel.read_journal(tmp_path / "x/attempts.jsonl")[-1]
    assert last["failure"]["class"] == "DiskExhaustionError"
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [
        *("attempts.jsonl", "canary.json")
    ]


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(
    ("free_mb", "verdict"), [(1e6, "proceed"), (0.001, "proceed"), (-1, "stop")]
)
def test_disk_is_forecast_against_scratch_and_results(
    task, tmp_path, monkeypatch, free_mb, verdict
):
    def available(folder, *_):
        return {"disk_mb": free_mb if folder == tmp_path / "x" else 1e6}

    monkeypatch.setattr(forecast, "available", available)
    job = Job(log=tmp_path / "log.txt", scratch="$SPIKE_SCRATCH")
    settings = CanarySettings(window_s=2, min_recording_s=4)
    record = canary.run(task, settings, tmp_path / "x", job)
    assert record.verdict == verdict
    said = [
        line for line in [*record.warnings, record.reason] if "disk space of the results" in line
    ]
    assert bool(said) is (free_mb < 1e6)
    assert set(record.forecast) == {"wall_s", "mem_mb", "disk_mb"}


def test_finished_sort_is_remembered(run, sort, long_task, tmp_path):
    run(long_task, window_s=3)
    record = sort(long_task)
    assert record.forecast is not None
    (path,) = (tmp_path / "history").glob("*.jsonl")
    (entry,) = forecast.read_history(path)
    assert entry.actual["wall_s"] == record.measured.wall_s
    assert set(entry.expected) == {"wall_s", "mem_mb", "disk_mb"}


def test_retry_repeats_only_what_wanted_a_resource(run, sort, task):
    run(task)
    with pytest.raises(SortFailedError, match="a bug that mentions CUDA"):
        sort(with_params(task, fail_in="full"))
    for attempt in (2, 3):
        with pytest.raises(SortFailedError, match="not tried again, it would fail again"):
            sort(task, attempt=attempt)
    assert sort(task).outcome == "sorted"  # a new invocation tries again


def test_failure_of_an_earlier_run_refuses_no_retry(run, sort, task, monkeypatch):
    """Its first attempt was killed before it could say anything."""
    run(task)
    with pytest.raises(SortFailedError, match="a bug that mentions CUDA"):
        sort(with_params(task, fail_in="full"))
    monkeypatch.setenv(sentinel.RUN_BEGAN, "2126-01-01T00:00:00+00:00")
    assert sort(task, attempt=2).outcome == "sorted"


def test_sort_that_was_killed_alone_is_repeated(run, sort, task):
    run(task)
    with pytest.raises(SortFailedError, match="killed by SIGKILL"):
        sort(with_params(task, fail_in="full", fail_how="kill"))
    assert sort(task, attempt=2).outcome == "sorted"


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


@pytest.fixture
def sort(tmp_path):
    def start(task, attempt=1, **options):
        job = Job(log=tmp_path / "log.txt", attempt=attempt)
        return fullsort.run(task, tmp_path / "x", job, **options)

    return start


def test_full_sort_obeys(run, sort, task, quiet, tmp_path):
    run(with_params(quiet, fail_in="window", fail_how="silent"))
    with pytest.raises(SortStoppedError, match=r"canary: \{force: \[x\]\}"):
        sort(task)
    record = sort(task, forced=True)
    assert (record.outcome, record.forced, record.n_units) == ("sorted", True, 4)
    assert sentinel.read_record(tmp_path / "x/sort.json") == record


def test_full_sort_that_hangs_and_computes_is_ended(run, sort, task, monkeypatch):
    run(task)
    monkeypatch.setattr(watchdogs, "inactivity_limit_s", lambda *_: 2.0)
    with pytest.raises(SortFailedError, match="it computes, but without output, I/O, GPU or fresh"):
        sort(with_params(task, fail_in="full", fail_how="spin"))


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


def with_traces(task, traces, path, steps=None, **options):
    """Return the task for a file of these traces."""
    traces.tofile(path)
    options = task.row.reader_options | {"dtype": str(traces.dtype)} | options
    row = task.row.model_copy(update={"paths": (str(path),), "reader_options": options})
    return task.model_copy(update={"row": row, "preprocessing": steps or {}})


@pytest.fixture
def traces(task):
    return np.fromfile(task.row.paths[0], "int16").reshape(-1, 4)


@pytest.mark.parametrize(
    "case",
    [
        (lambda x: x, {"bandpass_filter": {"freq_max": 20_000}}, "step 'bandpass_filter' cannot"),
        (lambda x: x, {"phase_shift": {}}, "step 'phase_shift' cannot"),
        (lambda x: (x.astype(int) + 32768).astype("uint16"), {"common_reference": {}}, "Unsigned"),
        (lambda x: x * np.array([1, 1, 0, 1], "int16"), {"zscore": {}}, "makes samples that are"),
    ],
)
def test_preprocessing_that_cannot_be_or_spoils_stops_by_its_step(run, task, traces, case):
    spoil, steps, words = case
    path = Path(task.row.paths[0]).with_name("spoilt.raw")
    record = run(with_traces(task, spoil(traces), path, steps))
    assert (record.outcome, record.failure.class_name) == ("stopped", "PreprocessingError")
    assert record.failure.category == "environment"
    assert words in record.reason
    assert record.failure.evidence["step"] == next(iter(steps))
    if "zscore" in steps:
        assert record.failure.evidence["channels"] == ["2"]
        assert "bad_channels" in record.failure.remedy
    if words == "Unsigned":
        assert "unsigned_to_signed" in record.failure.remedy


def test_file_declared_wrongly_is_misread_and_not_silent(run, task, traces, tmp_path):
    record = run(with_traces(task, traces, tmp_path / "x.raw", dtype="uint16"))
    assert (record.outcome, record.failure.class_name) == ("stopped", "RecordingLayoutError")
    assert record.failure.category == "environment"
    assert "dtype 'int16' (not 'uint16')" in record.reason
    assert "Set dtype 'int16'" in record.failure.remedy


@pytest.fixture
def unplugged(task, traces, tmp_path):
    """Return the task of a recording that is unplugged after 5 of its 8 s."""
    spoilt = traces.copy()
    spoilt[150_000:] = 32767
    return with_traces(task, spoilt, tmp_path / "x.raw")


def test_bad_periods_are_named_or_stop(run, unplugged):
    record = run(unplugged)
    assert record.outcome == "passed"
    (period,) = record.bad_periods
    assert (period.start_s, period.end_s) == pytest.approx((5.0, 8.0), abs=0.02)
    assert any("to 8.00 s (railed)" in warning for warning in record.warnings)
    assert record.signal_map[-1].railed == 4
    record = run(unplugged, bad_periods="stop")
    assert (record.outcome, record.failure.class_name) == ("stopped", "SaturatedSignalError")
    assert "canary.bad_periods" in record.failure.remedy


def test_bad_periods_are_silenced_for_the_sort(unplugged, tmp_path):
    (tmp_path / "work").mkdir()
    silent = unplugged.model_copy(update={"silence_bad_periods": True, "window_s": (4.0, 8.0)})
    assert silent.as_set()["silence_bad_periods"] is True
    assert "silence_bad_periods" not in unplugged.as_set()
    sorter.sort(
        silent.model_dump(mode="json"), str(tmp_path / "work"), lambda _: None, lambda **_: None
    )
    work = tmp_path / "work/sorter"
    handed = load(work / "spikeinterface_recording.pickle", base_folder=work).get_traces()
    assert handed[:29_000].any()
    assert not handed[31_000:].any()


def test_canary_says_what_has_changed_since_the_sort(task, traces, tmp_path):
    def job(row):
        data = stamps.of_recording(row, None)
        return Job(log=tmp_path / "log.txt", recorded_settings={"data": data})

    settings = CanarySettings(window_s=2, min_recording_s=4)
    half = with_traces(task, traces[:150_000], tmp_path / "x.raw")
    canary.run(half, settings, tmp_path / "x", job(half.row))
    fullsort.run(half, tmp_path / "x", job(half.row))
    whole = with_traces(task, traces, tmp_path / "x.raw")
    os.utime(tmp_path / "x.raw", (1, 1))  # as rsync -a does
    record = canary.run(whole, settings, tmp_path / "x", job(whole.row))
    assert "the recording has changed since its sort of" in record.warnings[0]
    assert "x.raw: 1,200,000 bytes then, 1,920,000 now" in record.warnings[0]


def test_short_recording_that_is_declared_wrongly_fails_in_the_full_sort(task, traces, tmp_path):
    wrong = with_traces(task, traces, tmp_path / "x.raw", dtype="uint16")
    job = Job(log=tmp_path / "log.txt")
    canary.run(wrong, CanarySettings(min_recording_s=20), tmp_path / "x", job)
    with pytest.raises(SortFailedError, match="not what the table declares"):
        fullsort.run(wrong, tmp_path / "x", job)
    forced = fullsort.run(wrong, tmp_path / "x", job, forced=True)
    assert forced.outcome == "sorted"


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
    monkeypatch.setattr(diagnosis, "size_bytes", lambda _: next(sizes))
    seen = diagnosis.sort(task, folder=tmp_path, supervision=None)
    assert (seen.failure is None) == (words is None) == (seen.result is not None)
    if words:
        assert "the recording shrank while it was sorted" in str(seen.failure)
        assert words in str(seen.failure)


def test_samples_in_volts_are_no_silence(run, task, traces, tmp_path):
    volts = with_traces(task, (traces * 1e-6).astype("float32"), tmp_path / "x.raw", gain_to_uV=1e6)
    record = run(with_params(volts, fail_in="always", fail_how="silent"))
    assert record.windows[0].why == "leading"
    assert (record.outcome, record.failure.class_name) == ("stopped", "RecordingLayoutError")
    assert "are the samples in volts?" in record.reason
    assert record.failure.evidence["gain"] == 1e6
