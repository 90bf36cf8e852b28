"""The forecast and the capacity check, on measured windows made up here."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import psutil
import pytest

from spikecanary import forecast, sorter
from spikecanary.config import Config, ForecastSettings, SorterSettings, WatchdogSettings
from spikecanary.forecast import FinishedSort
from spikecanary.sentinel import Interval, Measured, Window, append_line, now, write_record
from spikecanary.table import Recording
from workbench import make_record

#: One MB of samples a second as float32: 25 channels at 10 kHz.
HEADER = {"n_channels": 25, "sampling_frequency_hz": 10_000.0}


def canary(duration_s=600.0, length_s=30.0, wall_s=35.0, startup_s=5.0, **window):
    stages = {"start": startup_s, "sort": wall_s - startup_s}
    measured = Measured(wall_s=wall_s, stages_s=stages, peak_rss_mb=1000.0, disk_mb=30.0)
    given = {"n_units": 3, "n_spikes": 100, "why": "leading", "ended": "3 units"} | window
    found = Window(start_s=0.0, end_s=length_s, measured=measured, **given)
    return make_record(recording="x", windows=[found], duration_s=duration_s, **HEADER)


def test_time_is_a_fixed_share_and_a_rate():
    found = forecast.forecast_sort(canary())["wall_s"]
    # 5 s whatever the length, and of 1 s a second 10, 70 or 100 % beyond the window's 30 s.
    assert found.likely == pytest.approx(35 + 0.7 * 30 * 19)
    assert found.low == pytest.approx(0.6 * (35 + 0.1 * 30 * 19))
    assert found.high == pytest.approx(1.4 * (35 + 30 * 19))


def test_disk_grows_in_proportion():
    found = forecast.forecast_sort(canary())["disk_mb"]
    assert found.high == pytest.approx(1.4 * 600)
    assert found.low < found.likely < found.high


def test_memory_of_a_window_is_a_floor_and_grows_at_most_as_the_samples_do():
    found = forecast.forecast_sort(canary())["mem_mb"]
    assert found.low == pytest.approx(850.0)
    assert found.likely == pytest.approx(1000 + 0.35 * 570)
    assert found.high == pytest.approx(1.4 * (1000 + 570))


def test_failed_windows_say_nothing():
    assert forecast.forecast_sort(canary(n_units=None)) == {}
    assert forecast.forecast_sort(make_record(duration_s=60.0)) == {}


def finished(share, duration_s=600.0):
    """Return a sort whose time and memory grew by a share of what the window's rate would add."""
    window = forecast.measure_growth(canary(duration_s))
    costs = ("wall_s", "mem_mb")
    actual = {name: window[name][0] + share * window[name][1] for name in costs}
    return FinishedSort(recording="y", duration_s=duration_s, actual=actual, window=window)


@pytest.mark.parametrize("duration_s", [60.0, 600.0, 6000.0])
def test_finished_sorts_of_any_length_correct_the_next_forecast(duration_s):
    before = forecast.forecast_sort(canary())
    after = forecast.forecast_sort(canary(), [finished(0.5, duration_s)])
    assert after["wall_s"].likely == pytest.approx(35 + 0.5 * 30 * 19)
    assert after["mem_mb"].likely == pytest.approx(1000 + 0.5 * 570)
    for name in ("wall_s", "mem_mb"):
        assert after[name].low < after[name].likely < after[name].high
        assert before[name].low <= after[name].low
        assert after[name].high <= before[name].high
    assert after["disk_mb"] == before["disk_mb"]


def test_short_sort_says_less_of_a_long_one_than_one_of_its_length():
    short, same = (
        forecast.forecast_sort(canary(), [finished(0.5, duration_s)])["wall_s"]
        for duration_s in (60.0, 600.0)
    )
    assert same.high == pytest.approx(1.4 * same.likely)
    assert short.high > 2 * short.likely


def test_sort_beyond_what_a_guess_allows_is_believed():
    after = forecast.forecast_sort(canary(), [finished(3.0)])["wall_s"]
    assert after.likely == pytest.approx(35 + 3 * 30 * 19)
    spread = (0.6 * after.likely, 1.4 * after.likely)
    assert (after.low, after.high) == pytest.approx(spread, abs=0.1)


def test_corrections_are_medians_within_limits():
    likely = {
        name: forecast.learn_shares([finished(x) for x in shares])["wall_s"][1]
        for name, shares in {"median": (1.0, 2.0, 1.5), "most": (100.0,), "least": (-0.01,)}.items()
    }
    assert likely == {"median": pytest.approx(1.5), "most": 5.0, "least": 0.0}
    assert forecast.learn_shares([]) == {}
    # Of an earlier version, and of a recording that is no longer than its window.
    bare = finished(1.0).model_copy(update={"window": {}})
    assert forecast.learn_shares([bare, finished(1.0, 30.0)]) == {}


def test_canary_takes_what_those_of_finished_sorts_took():
    assert forecast.forecast_canary_s(30.0) == 60 + 30
    assert forecast.forecast_canary_s(30.0, [finished(1.0), finished(2.0)]) == 35.0


TASK = sorter.make_task(
    Recording(id="x", paths=("x",), reader="binary"), Config(sorter=SorterSettings())
)


def test_history_is_kept_and_read(tmp_path):
    tested = canary().model_copy(
        update={"sorter": make_record().sorter.model_copy(update={"params_digest": TASK.digest()})}
    )
    measured = Measured(wall_s=200.0, peak_rss_mb=900.0, disk_mb=50.0)
    sort = tested.model_copy(update={"outcome": "sorted", "measured": measured})
    forecast.remember(tmp_path, tested, sort)
    path = forecast.history_path(tmp_path, TASK.digest())
    with path.open("a") as file:
        file.write('{"recording": "torn')
    (entry,) = forecast.read_history(path)
    assert entry.actual == {"wall_s": 200.0, "mem_mb": 900.0, "disk_mb": 50.0}
    write_record(tmp_path / "x/canary.json", tested)
    expected, known = forecast.forecast_recording(tmp_path, TASK)
    assert expected["wall_s"].likely == pytest.approx(200.0, abs=0.1)
    assert "mem_mb" in known
    other = TASK.model_copy(update={"row": TASK.row.model_copy(update={"id": "none"})})
    assert forecast.forecast_recording(tmp_path, other) == ({}, set())


def test_job_is_held_to_no_less_than_it_was_submitted_with(tmp_path):
    """Sorts that end while it waits may have taken less; what was known before counts."""
    write_record(tmp_path / "x/canary.json", make_record(outcome="skipped", duration_s=3600.0))
    path, began = forecast.history_path(tmp_path, TASK.digest()), datetime.now(UTC)
    minutes, ended = [], ((9.0, -1), (90.0, -1), (7.0, 1))
    for rate, hours in ended:
        took = {"duration_s": 3600.0, "actual": {"wall_s": 60 * rate}}
        entry = FinishedSort(recording="y", **took, at=began + timedelta(hours=hours))
        append_line(path, entry.model_dump(mode="json"))
        asked = [
            forecast.sort_request(Config(), tmp_path, TASK, 1, began=when)["runtime"]
            for when in (None, began, began - timedelta(hours=2))
        ]
        minutes.append(asked)
    assert minutes == [[19, 19, 1440], [104, 104, 1440], [19, 104, 1440]]


def test_skipped_canary_is_forecast_by_rates(tmp_path):
    write_record(tmp_path / "x/canary.json", make_record(outcome="skipped", duration_s=90.0))
    expected, known = forecast.forecast_recording(tmp_path, TASK)
    assert expected["wall_s"].likely == pytest.approx(60 + 1.5 * 60)
    assert known == set()
    learned = forecast.forecast_by_rates(90.0, 0.0, [finished(0.5)])
    assert learned["wall_s"].likely == pytest.approx(48.0)  # 320 s of 600 s


def test_sort_that_nothing_forecasts_requests_what_the_config_says(tmp_path):
    write_record(tmp_path / "x/canary.json", make_record(outcome="unexpected", duration_s=3600.0))
    config = Config(job={"mem_mb": 26_000, "sort_runtime_min": 900})
    asked = forecast.sort_request(config, tmp_path, TASK, 1)
    assert (asked["runtime"], asked["mem_mb"]) == (900, 26_000)
    path = forecast.history_path(tmp_path, TASK.digest())
    append_line(path, finished(0.5).model_dump(mode="json"))
    asked = forecast.sort_request(config, tmp_path, TASK, 1)
    assert asked["runtime"] < 100  # by the time of the finished sort
    assert asked["mem_mb"] == 26_000


@pytest.mark.parametrize(
    ("high", "asked"),
    [
        ((60.0, 100.0), (10, 4_000)),
        ((6_000.0, 8_000.0), (150, 12_000)),
        ((1e6, 1e6), (2_880, 28_000)),
    ],
)
def test_request(high, asked):
    expected = {
        name: Interval(low=0.0, likely=0.0, high=value)
        for name, value in zip(("wall_s", "mem_mb"), high, strict=True)
    }
    found = forecast.request(ForecastSettings(), expected)
    assert (found["runtime"], found["mem_mb"]) == asked


def ended(failure=None, outcome="failed", **fields):
    described = {"class": failure, "category": "resource"} if failure else None
    entry = {"kind": "sort", "outcome": outcome, "failure": described, "finished_at": now()}
    return entry | {"reason": "x", "recording": "x"} | fields


LONG_AGO = "2020-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("attempts", "runtime_mem_disk"),
    [
        ([ended("HostMemoryWatchdogError")], (60, 10_000, 1_000)),
        ([ended("SorterTimeoutError")], (120, 5_000, 1_000)),
        ([ended("DiskExhaustionError")], (60, 5_000, 2_000)),
        ([ended("IOStallError")], (60, 5_000, 1_000)),
        ([ended(outcome="interrupted")], (120, 5_000, 1_000)),
        ([ended(reason="the process was killed by SIGKILL")], (60, 10_000, 1_000)),
        ([None], (120, 10_000, 2_000)),
        ([None, ended("HostMemoryWatchdogError")], (120, 15_000, 2_000)),
        ([ended("GPUOutOfMemoryError")], (120, 10_000, 2_000)),  # killed with smaller batches
        ([ended("SorterTimeoutError"), ended("HostMemoryWatchdogError")], (120, 10_000, 1_000)),
        ([ended("SorterTimeoutError")] * 9, (400, 5_000, 1_000)),
        ([None] * 9, (400, 20_000, 10_000)),
    ],
)
def test_retry_asks_for_more_of_what_was_lacking(tmp_path, monkeypatch, attempts, runtime_mem_disk):
    """An attempt that is None was killed: it left no line. Lines of earlier runs do not count."""
    monkeypatch.setenv("SPIKECANARY_RUN_BEGAN", "2021-01-01T00:00:00+00:00")
    limits = {"max_mem_mb": 20_000, "max_runtime_min": 400}
    config = Config(forecast=limits, job={"mem_mb": 5_000, "sort_runtime_min": 60})
    earlier = [ended("SorterTimeoutError", finished_at=LONG_AGO), {"kind": "sort", "outcome": "x"}]
    for entry in [*earlier, *filter(None, attempts), ended("IOStallError", kind="canary")]:
        append_line(tmp_path / "x/attempts.jsonl", entry)
    asked = forecast.sort_request(config, tmp_path, TASK, len(attempts) + 1)
    assert (asked["runtime"], asked["mem_mb"], asked["disk_mb"]) == runtime_mem_disk
    first = forecast.sort_request(config, tmp_path, TASK, 1)
    assert (first["runtime"], first["mem_mb"], first["disk_mb"]) == (60, 5_000, 1_000)


def test_retry_after_all_batches_were_too_large_asks_for_no_more(tmp_path):
    config = Config(job={"mem_mb": 5_000})
    for mem_mb in (10_000, 10_000, 5_000):
        append_line(tmp_path / "x/attempts.jsonl", ended("GPUOutOfMemoryError", attempt=1))
        assert forecast.sort_request(config, tmp_path, TASK, 2)["mem_mb"] == mem_mb


@pytest.mark.parametrize(
    ("cost", "knob"),
    [
        ("wall_s", "forecast.max_runtime_min"),
        ("mem_mb", "forecast.max_mem_mb"),
        ("disk_mb", "pathvars"),
        ("vram_mb", "lower batch_size"),
    ],
)
def test_capacity(cost, knob):
    expected = {cost: Interval(low=100.0, likely=150.0, high=200.0)}
    assert forecast.check_capacity(expected, {cost: 200.0}, TASK) == (None, [])
    failure, (warning,) = forecast.check_capacity(expected, {cost: 199.0}, TASK)
    assert failure is None
    assert "100 to 200" in warning
    assert knob in warning
    failure, _ = forecast.check_capacity(expected, {cost: 99.0}, TASK)
    assert failure.category == "resource"
    assert (failure.evidence["low"], failure.evidence["room"]) == (100.0, 99.0)
    assert knob in failure.remedy


def test_no_job_requests_more_than_is_allowed():
    config = Config(forecast=ForecastSettings(max_mem_mb=5_000, max_runtime_min=30))
    asked = forecast.default_request(config, "quick", config.job.sort_runtime_min)
    assert (asked["mem_mb"], asked["runtime"]) == (5_000, 30)


def test_available_is_what_may_be_requested(tmp_path):
    settings = ForecastSettings(max_mem_mb=5_000, max_runtime_min=60)
    found = forecast.available(tmp_path, settings, WatchdogSettings())
    assert found["mem_mb"] == 5_000
    assert found["wall_s"] == 3_600
    assert found["disk_mb"] > 0
    assert "vram_mb" not in found  # no GPU here


def test_machine_that_tells_nothing_stops_nothing(tmp_path, monkeypatch):
    task = sorter.make_task(Recording(id="x", paths=("/x",), reader="nwb"), Config())
    for reading in (0.0, float("nan")):
        node = SimpleNamespace(total=reading, free=reading, available=reading)
        nvml = SimpleNamespace(NVMLError=OSError, nvmlDeviceGetMemoryInfo=lambda _, node=node: node)
        monkeypatch.setattr(forecast.gpus, "_nvml", lambda nvml=nvml: nvml)
        monkeypatch.setattr(forecast.gpus, "_devices", lambda: ["one"])
        monkeypatch.setattr(psutil, "virtual_memory", lambda node=node: node)
        room = forecast.available(tmp_path, ForecastSettings(), WatchdogSettings())
        assert "vram_mb" not in room
        needed = {name: Interval(low=1.0, likely=2.0, high=3.0) for name in ("mem_mb", "vram_mb")}
        assert forecast.check_capacity(needed, room, task) == (None, [])
