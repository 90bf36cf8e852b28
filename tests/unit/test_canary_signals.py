"""What a canary, whose steps run in this process, says of signals: spoilt, in volts, bad."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from spikeinterface.core import load

from spikecanary import canary, fullsort, sentinel, sorter
from spikecanary.config import AnalysisSettings, CanarySettings
from spikecanary.failures import PreprocessingError
from spikecanary.outputs import figures
from spikecanary.recording import check_preprocessed, open_recording, stamps
from spikecanary.sentinel import Window
from spikecanary.supervise.job import Job
from spikecanary.supervise.run import Ended
from workbench import with_params, with_traces

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.mark.parametrize(
    "case",
    [
        (lambda x: x, {"bandpass_filter": {"freq_max": 20_000}}, "step 'bandpass_filter' cannot"),
        (lambda x: x, {"phase_shift": {}}, "step 'phase_shift' cannot"),
        (lambda x: (x.astype(int) + 32768).astype("uint16"), {"common_reference": {}}, "Unsigned"),
        (lambda x: x * np.array([1, 1, 0, 1], "int16"), {"zscore": {}}, "makes samples that are"),
        (lambda x: x * np.array([1, 1, 0, 1], "int16"), {"scale": {"gain": 0}}, "nearly all"),
        (lambda x: x, {"resample": {"resample_rate": 1000}}, "at 1000 Hz, to which"),
        (
            lambda x: (x.astype(int) + 32768).astype("uint16"),
            {"astype": {"dtype": "int16"}},
            "negat",
        ),
    ],
)
def test_preprocessing_that_cannot_be_or_spoils_is_told_by_its_step(task, traces, tmp_path, case):
    spoil, steps, words = case
    spoilt = with_traces(task, spoil(traces), tmp_path / "x.raw", steps)
    with pytest.raises(PreprocessingError, match=words) as caught:
        check_preprocessed(open_recording(spoilt.row), steps)
    assert caught.value.evidence["step"] == next(iter(steps))
    if words in ("Unsigned", "negat"):
        assert "unsigned_to_signed" in caught.value.remedy


def test_preprocessing_that_spoils_stops(run, task, traces, tmp_path):
    steps = {"zscore": {}}
    dead = traces * np.array([1, 1, 0, 1], "int16")
    record = run(with_traces(task, dead, tmp_path / "x.raw", steps))
    assert (record.outcome, record.failure.class_name) == ("stopped", "PreprocessingError")
    assert record.failure.category == "environment"
    assert "makes samples that are" in record.reason
    assert record.failure.evidence["channels"] == ["2"]
    assert "bad_channels" in record.failure.remedy


def test_low_gain_is_no_spoilt_signal(task, traces, tmp_path):
    coarse = np.round(traces / 14.0).astype("int16")
    steps = {"bandpass_filter": {"freq_min": 300.0, "freq_max": 6000.0}}
    few = with_traces(task, coarse, tmp_path / "x.raw", steps)
    check_preprocessed(open_recording(few.row), few.preprocessing)


def test_nan_that_preprocessing_silences_is_no_stop(run, task, traces):
    spoilt = traces.astype("float32")
    spoilt[60_000:60_010] = np.nan
    silence = {"list_periods": [[[59_990, 60_020]]], "mode": "zeros"}
    path = Path(task.row.paths[0]).with_name("nan.raw")
    record = run(with_traces(task, spoilt, path, {"silence_periods": silence}))
    assert record.outcome == "passed"
    assert "preprocessing replaces 40 samples that are not finite" in record.warnings
    stopped = run(with_traces(task, spoilt, path, {"common_reference": {}}))
    assert stopped.failure.class_name == "NonFiniteSignalError"


def test_step_that_fails_on_the_window_alone_is_no_certainty():
    failure = PreprocessingError("step 'x' leaves no channels", step="x")
    ended = Ended(failure=failure, facts={"stage": "preprocess"})
    window = Window(start_s=0.0, end_s=2.0, why="leading", ended="x")
    of_window = canary.Evidence(attempts=[canary.Attempt(window, ended)])
    decision = canary.decide(of_window, ["environment"])
    assert (decision.outcome, decision.failure.category) == ("unexpected", None)
    whole = canary.Evidence(failed=Ended(failure=failure, facts={"stage": "start"}))
    assert canary.decide(whole, ["environment"]).outcome == "stopped"


def test_steps_that_silence_or_widen_spoil_nothing(task, traces, tmp_path):
    pieces = [[0, at, at + 6_000] for at in (0, 57_000)]
    steps = {"silence_periods": {"list_periods": [[each[1:] for each in pieces]], "mode": "zeros"}}
    silenced = with_traces(task, traces, tmp_path / "x.raw", steps)
    check_preprocessed(open_recording(silenced.row), silenced.preprocessing)
    unsigned = (traces.astype(int) + 32768).astype("uint16")
    wider = with_traces(task, unsigned, tmp_path / "y.raw", {"astype": {"dtype": "int32"}})
    row = wider.row.reader_options | {"dtype": "uint16"}
    opened = open_recording(wider.row.model_copy(update={"reader_options": row}))
    check_preprocessed(opened, wider.preprocessing)


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


def test_parts_of_which_one_is_declared_wrongly(run, task, traces, tmp_path):
    one, other = tmp_path / "one.raw", tmp_path / "other.raw"
    traces.tofile(one)
    (traces * 0.195).astype("float32").tofile(other)
    row = task.row.model_copy(update={"paths": (str(one), str(other))})
    record = run(task.model_copy(update={"row": row}))
    assert record.failure.class_name == "RecordingLayoutError"
    assert f"{other} is not what the table declares" in record.reason
    assert "rows of their own" in record.failure.remedy


def test_samples_that_are_not_finite_are_drawn(run, task, traces, tmp_path):
    spoilt = traces.astype("float32")
    spoilt[60_000:60_100, 1] = np.nan
    task = with_traces(task, spoilt, tmp_path / "x.raw", dtype="float32")
    record = run(task)
    assert record.failure.class_name == "NonFiniteSignalError"
    sentinel.write_record(tmp_path / "canary.json", record)
    path = tmp_path / "canary.png"
    figures.draw_canary(task, AnalysisSettings(), tmp_path / "canary.json", path)
    with Image.open(path) as picture:
        assert picture.height > 600


def test_silenced_periods_are_said(run, unplugged):
    record = run(unplugged.model_copy(update={"silence_bad_periods": True}))
    assert "its flat and railed periods are set to zero for the sort" in record.warnings


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
    later = unplugged.row.model_copy(update={"start_s": 1.0})
    record = run(unplugged.model_copy(update={"row": later}), bad_periods="stop")
    assert "4.00" in f"{record.bad_periods[0].start_s:.2f}"
    assert "bad period: 5.00 to 8.00 s (railed) (counted as" in record.reason


def test_bad_periods_are_silenced_for_the_sort(unplugged, tmp_path):
    (tmp_path / "work").mkdir()
    silent = unplugged.model_copy(update={"silence_bad_periods": True, "window_s": (4.0, 8.0)})
    assert silent.as_set()["silence_bad_periods"] is True
    assert "silence_bad_periods" not in unplugged.as_set()
    sorter.sort(silent, tmp_path / "work", lambda **_: None)
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


def test_samples_in_volts_are_no_silence(run, task, traces, tmp_path):
    volts = with_traces(task, (traces * 1e-6).astype("float32"), tmp_path / "x.raw", gain_to_uV=1e6)
    record = run(with_params(volts, fail_in="always", fail_how="silent"))
    assert record.windows[0].why == "leading"
    assert (record.outcome, record.failure.class_name) == ("stopped", "RecordingLayoutError")
    assert "are the samples in volts?" in record.reason
    assert record.failure.evidence["gain"] == 1e6
