"""The forecast and the capacity check, on measured windows made up here."""

import pytest

from spikecanary import forecast, sorter
from spikecanary.config import Config, ForecastSettings, SorterSettings, WatchdogSettings
from spikecanary.sentinel import Interval, Measured, Window, read_record, write_record
from spikecanary.table import Recording
from workbench import make_record

RATE = 1.0  # MB of samples a second


def window(length_s, wall_s, mem_mb=1000.0, disk_mb=10.0, startup_s=5.0, **fields):
    stages = {"start": startup_s, "sort": wall_s - startup_s}
    measured = Measured(wall_s=wall_s, stages_s=stages, peak_rss_mb=mem_mb, disk_mb=disk_mb)
    kept = {"n_units": 3, "n_spikes": 100, "why": "leading", "ended": "3 units"} | fields
    return Window(start_s=0.0, end_s=length_s, measured=measured, **kept)


def finished(duration_s, wall_s, mem_mb, windows):
    return forecast.Finished(
        recording="y",
        duration_s=duration_s,
        models=forecast.models(windows, RATE),
        actual={"wall_s": wall_s, "mem_mb": mem_mb, "disk_mb": 100.0},
    )


def test_two_windows_tell_fixed_from_growing_costs():
    by = forecast.models([window(30, 25, disk_mb=31), window(10, 15, disk_mb=11)], RATE)
    assert by["wall_s"].likely == forecast.Line(fixed=10.0, per_s=0.5)
    assert by["disk_mb"].likely == forecast.Line(fixed=1.0, per_s=1.0)
    expected = forecast.predict(by, 600.0)
    assert expected["wall_s"].likely == pytest.approx(310.0)
    assert expected["wall_s"].low < 310.0 < expected["wall_s"].high


def test_one_window_leaves_open_how_much_grows():
    (model,) = [forecast.models([window(30, 35, startup_s=5)], RATE)["wall_s"]]
    assert model.high == forecast.Line(fixed=5.0, per_s=1.0)
    assert model.likely.per_s == pytest.approx(0.8)
    assert model.low.per_s == pytest.approx(0.4)


def test_memory_of_a_window_is_a_floor():
    by = forecast.models([window(30, 25)], RATE)
    expected = forecast.predict(by, 600.0)["mem_mb"]
    assert expected.low == pytest.approx(850.0)
    assert expected.low < expected.likely < expected.high


def test_noise_between_two_windows_makes_no_falling_cost():
    by = forecast.models([window(30, 14, disk_mb=5), window(10, 15, disk_mb=11)], RATE)
    assert by["wall_s"].likely.per_s == 0.0
    steep = forecast.models([window(30, 30), window(10, 2)], RATE)["wall_s"].likely
    assert steep.fixed == 0.0


def test_memory_grows_at_most_as_the_samples_do():
    flat = forecast.models([window(30, 20), window(10, 15)], RATE)["mem_mb"]
    assert flat.high.at(3600.0) == 1000.0
    steep = forecast.models([window(30, 20), window(10, 15, mem_mb=500)], RATE)["mem_mb"]
    assert steep.high.at(3630.0) == pytest.approx(1000 + 3600)
    assert steep.low.at(3630.0) == 1000.0


def test_failed_windows_say_nothing():
    assert forecast.models([window(30, 20, n_units=None)], RATE) == {}
    assert forecast.models([], RATE) == {}


def test_one_finished_sort_sharpens_the_next_forecast():
    windows = [window(30, 25), window(10, 15)]
    history = [finished(600.0, 160.0, 700.0, windows)]  # half the growth, less memory
    by = forecast.models([window(30, 25)], RATE, history)
    assert by["wall_s"].likely.fixed == pytest.approx(10.0)  # as the other's two windows told
    expected = forecast.predict(by, 1200.0, history)
    assert expected["wall_s"].likely == pytest.approx(310.0)
    before = forecast.predict(by, 1200.0)
    width = expected["wall_s"].high / expected["wall_s"].low
    assert width < before["wall_s"].high / before["wall_s"].low


def test_history_is_kept_and_read(tmp_path):
    canary = make_record(
        recording="x",
        windows=[window(30, 25), window(10, 15)],
        duration_s=600.0,
        n_channels=16,
        sampling_frequency_hz=30_000.0,
    )
    sort = make_record(
        recording="x",
        outcome="sorted",
        duration_s=600.0,
        measured=Measured(wall_s=200.0, peak_rss_mb=900.0, disk_mb=50.0),
    )
    forecast.remember(tmp_path, canary, sort)
    path = forecast.history_path(tmp_path, sort.sorter.params_digest)
    with path.open("a") as file:
        file.write('{"recording": "torn')
    (entry,) = forecast.read_history(path)
    assert entry.actual == {"wall_s": 200.0, "mem_mb": 900.0, "disk_mb": 50.0}
    write_record(tmp_path / "x/canary.json", canary)
    assert read_record(tmp_path / "x/canary.json") == canary
    settings = ForecastSettings()
    known = forecast.of_recording(tmp_path, "x", "0123", settings)
    assert known["wall_s"].likely == pytest.approx(200.0)
    assert forecast.of_recording(tmp_path, "none", "0123", settings) == {}


def test_skipped_canary_is_forecast_by_rates(tmp_path):
    skipped = make_record(outcome="skipped", duration_s=90.0)
    write_record(tmp_path / "one/canary.json", skipped)
    expected = forecast.of_recording(tmp_path, "one", "0123", ForecastSettings())
    assert expected["wall_s"].likely == pytest.approx(60 + 1.5 * 60)


@pytest.mark.parametrize(
    ("high", "attempt", "asked"),
    [
        ((60.0, 100.0), 1, (10, 4_000)),
        ((60.0, 100.0), 2, (20, 8_000)),
        ((6_000.0, 8_000.0), 1, (150, 12_000)),
        ((6_000.0, 8_000.0), 2, (300, 24_000)),
        ((1e6, 1e6), 1, (2_880, 28_000)),
    ],
)
def test_request(high, attempt, asked):
    expected = {
        name: Interval(low=0.0, likely=0.0, high=value)
        for name, value in zip(("wall_s", "mem_mb"), high, strict=True)
    }
    found = forecast.request(ForecastSettings(), expected, attempt)
    assert (found["runtime"], found["mem_mb"]) == asked


TASK = sorter.make_task(
    Recording(id="x", paths=("x",), reader="binary"), Config(sorter=SorterSettings())
)


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
    assert forecast.check(expected, {cost: 200.0}, TASK) == (None, [])
    failure, (warning,) = forecast.check(expected, {cost: 199.0}, TASK)
    assert failure is None
    assert "100 to 200" in warning
    assert knob in warning
    failure, _ = forecast.check(expected, {cost: 99.0}, TASK)
    assert failure.category == "resource"
    assert (failure.evidence["low"], failure.evidence["room"]) == (100.0, 99.0)
    assert knob in str(failure)


def test_room_is_what_may_be_asked_for(tmp_path):
    settings = ForecastSettings(max_mem_mb=5_000, max_runtime_min=60)
    found = forecast.room(tmp_path, settings, WatchdogSettings())
    assert found["mem_mb"] == 5_000
    assert found["wall_s"] == 3_600
    assert found["disk_mb"] > 0
    assert "vram_mb" not in found  # no GPU here
