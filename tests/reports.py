"""A results folder with each kind of end, and the report of it."""

from PIL import Image

from spikecanary import report, sentinel, summary
from spikecanary.config import Config
from spikecanary.sentinel import BadPeriod, Failure, Interval, MapRow, Measured, Window
from spikecanary.table.tsv import write_tsv
from workbench import make_record, stopped

#: Markup, an override of the writing direction that does not end, a word that does not fit.
ODD = "<script>alert(1)</script> & <b>more</b> \u202eright to left " + "x" * 300


def write_recording(results, name, canary, sort=None, n_figures=0):
    folder = results / name
    for file, record in {"canary.json": canary, "sort.json": sort}.items():
        if record is not None:
            kind = file.removesuffix(".json")
            sentinel.write_record(folder / file, record)
            sentinel.append_journal(folder / "attempts.jsonl", kind, record)
    for number in range(n_figures):
        draw(folder / f"figures/figure_{number}.png")


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((900, 500), 60).save(path)


def write_report(results, names, config=None):
    summary.write(results / "summary.tsv", summary.describe(results, {name: {} for name in names}))
    path = results / "report.html"
    report.write(path, config or Config(), results)
    return path


def sorted_record(name, **fields):
    measured = Measured(wall_s=7200.0, peak_rss_mb=900.0, disk_mb=5000.0)
    fields = {"n_units": 8, "n_spikes": 9000, "measured": measured} | fields
    return make_record(recording=name, outcome="sorted", **fields)


def failed(name, reason, failure=None):
    """Return a full sort that failed, which is in its journal alone."""
    return make_record(recording=name, outcome="failed", reason=reason, failure=failure)


def fill(results):
    """Write a batch with each kind of end; return the recordings."""
    forecast = {
        "wall_s": Interval(low=1.0, likely=3600.0, high=9000.0),
        "mem_mb": Interval(low=500.0, likely=700.0, high=800.0),
    }
    healthy = {"flat": 0, "railed": 0, "non_finite": 0}
    signal = [
        MapRow(start_s=at, end_s=at + 10, active=3 + at % 20 // 10, noise_uV=5 + at % 3, **healthy)
        for at in range(0, 590, 10)
    ]
    dead = healthy | {"flat": 4}
    signal.append(MapRow(start_s=590.0, end_s=600.0, active=0, noise_uV=0.0, **dead))
    log = results.parent / "logs/canary/good.log"
    log.parent.mkdir(parents=True)
    log.write_text("a log\n")
    canary = make_record(
        recording="good",
        forecast=forecast,
        signal_map=signal,
        bad_periods=[BadPeriod(start_s=590.0, end_s=600.0, what="flat")],
        windows=[Window(start_s=0.0, end_s=30.0, why="leading", ended="8 units", n_units=8)],
        measured=Measured(wall_s=30.0, peak_rss_mb=800.0),
        started_at="2026-01-01T10:00:00+00:00",
        finished_at="2026-01-01T10:00:36+00:00",
        duration_s=600.0,
        n_channels=4,
        warnings=["the last 10 s are flat"],
        log=str(log),
    )
    write_recording(results, "good", canary, sorted_record("good"), n_figures=2)
    units = [
        {"unit": "7", "label": "good", "depth_um": "120.5", "snr": "9.25", "drift_ptp": ""},
        {"unit": "12", "label": "mua", "depth_um": "40", "snr": "31", "reasons": "snr 3.9 < 5"},
        {"unit": "N/A", "label": "good", "depth_um": "", "snr": "4.5"},
    ]
    columns = ["unit", "label", "reasons", "depth_um", "snr", "drift_ptp"]
    write_tsv(results / "good/units.tsv", columns, units)
    for unit in ("7", "12", "N%2FA"):
        draw(results / f"good/figures/units/{unit}.png")
    for folder in ("analyzer", "phy"):
        (results / "good" / folder).mkdir()
    write_recording(results, "big", stopped("resource").model_copy(update={"forecast": forecast}))
    failure = Failure(
        class_name="InsufficientActivityError",
        category="biological",
        message="no spikes",
        remedy="Look at the raw traces.",
    )
    quiet = make_record(verdict="stop", outcome="stopped", failure=failure, duration_s=120.0)
    write_recording(results, "quiet", quiet)
    draw(results / "quiet/canary.png")
    write_recording(
        results, "odd", make_record(outcome="unexpected", reason=ODD), sorted_record("odd")
    )
    # A half of a character, which no file can hold.
    sentinel.append_line(results / "odd/attempts.jsonl", {"kind": "canary", "reason": "\ud800"})
    write_recording(results, "broken", make_record())
    sentinel.append_journal(
        results / "broken/attempts.jsonl", "sort", failed("broken", "index 5 is out of bounds")
    )
    write_recording(
        results,
        "empty",
        make_record(n_units=8),
        sorted_record("empty", n_units=0, warnings=["none"]),
    )
    (results / "torn").mkdir()
    (results / "torn/canary.json").write_text("{")
    return ["good", "big", "quiet", "odd", "broken", "empty", "torn", "new"]
