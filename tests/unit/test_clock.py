"""When spikes were: parts, cuts, gaps of a clock, parts that begin at 0 s again; when it began."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from spikeinterface.core import NumpyRecording

from spikecanary.outputs import analysis
from spikecanary.recording import clock, open_recording
from spikecanary.sentinel import Part
from spikecanary.table import Recording
from workbench import make_record

RATE_HZ = 1000.0


def part(start_sample, n_samples, t_start_s, **fields):
    given = {"file": "x", "start_sample": start_sample, "n_samples": n_samples}
    return Part(**given, t_start_s=t_start_s, **fields)


def times(samples, parts):
    return clock.times_s(np.array(samples), parts, RATE_HZ).tolist()


def test_parts_keep_their_own_clocks():
    parts = [part(0, 1000, 100.0), part(1000, 1000, 200.0)]
    assert times([-1, 0, 999, 1000, 2500], parts) == pytest.approx(
        [99.999, 100, 100.999, 200, 201.5]
    )


def test_part_that_begins_before_the_last_has_ended_follows_it():
    parts = [part(0, 1000, 5.0), part(1000, 1000, 0.0), part(2000, 1000, 6.5)]
    assert times([0, 1000, 2000, 2001], parts) == pytest.approx([5.0, 6.0, 7.0, 7.001])


def test_gap_of_a_clock_is_kept_and_its_drift():
    opened = NumpyRecording(np.zeros((2000, 1), "int16"), RATE_HZ)
    stamps = np.arange(2000) * 1.001 / RATE_HZ
    stamps[500:] += 36_000.0
    opened.set_times(stamps)
    found = clock.describe_part("x", 0, opened, 0)
    assert [at for at, _ in found.clock] == [0, 499, 500, 1999]
    assert times(np.arange(2000), [found]) == pytest.approx(stamps)
    (cut,) = clock.cut([found], [(0.1, 1.5)], RATE_HZ)
    assert (cut.first_sample, cut.n_samples) == (100, 1400)
    assert times(np.arange(1400), [cut]) == pytest.approx(stamps[100:1500])


def test_cut_leaves_parts_out():
    parts = [part(0, 1000, 0.0), part(1000, 1000, 50.0), part(2000, 1000, 90.0)]
    found = list(clock.cut(parts, [(1.5, 2.2)], RATE_HZ))
    assert [(p.start_sample, p.first_sample, p.n_samples, p.t_start_s) for p in found] == [
        (0, 500, 500, 50.5),
        (500, 0, 200, 90.0),
    ]


@pytest.fixture
def row(write_binary, reader_options):
    options = reader_options | {"t_starts": [100.0]}
    path = str(write_binary("active", 8.0))
    return Recording(id="x", paths=(path, path), reader="binary", reader_options=options, start_s=5)


def test_opening_tells_the_parts(row):
    parts = []
    opened = open_recording(row, parts=parts)
    assert [(p.first_sample, p.n_samples, p.t_start_s) for p in parts] == [
        (150_000, 90_000, 105.0),
        (0, 240_000, 100.0),
    ]
    assert sum(p.n_samples for p in parts) == opened.get_num_samples()


def test_chunks_are_joined_and_keep_the_clock(row):
    """Both files begin at 100 s, so that the second follows the first, which ends at 108 s."""
    update = {"start_s": None, "chunks": ((1.0, 2.0), (6.0, 10.0), (12.0, 13.0))}
    row, whole = (row.model_copy(update=each) for each in (update, {"start_s": None}))
    parts = []
    opened, whole = open_recording(row, parts=parts), open_recording(whole)
    starts = [part.start_sample for part in parts]
    assert starts == [0, 30_000, 90_000, 150_000]
    assert sum(p.n_samples for p in parts) == opened.get_num_samples() == 180_000
    at_s = [1.0, 6.0, 8.0, 12.0]
    rate_hz = opened.sampling_frequency
    for start, begin_s in zip(starts, at_s, strict=True):
        first = round(begin_s * rate_hz)
        expected = whole.get_traces(start_frame=first, end_frame=first + 9)
        assert (opened.get_traces(start_frame=start, end_frame=start + 9) == expected).all()
    found = clock.times_s(np.array([*starts, 179_999]), parts, rate_hz)
    assert found == pytest.approx([*(100.0 + each for each in at_s), 113.0 - 1 / rate_hz])


@pytest.mark.parametrize("rate_hz", [500.0, 1500.0])
def test_parts_of_a_sort_that_was_resampled_are_in_its_samples(rate_hz):
    opened = NumpyRecording(np.zeros((2000, 1), "int16"), RATE_HZ)
    opened.set_times(np.arange(2000) / RATE_HZ + np.where(np.arange(2000) < 800, 0.0, 60.0))
    gap = clock.describe_part("x", 0, opened, 1000)
    whole = [part(0, 1000, 100.0), gap.model_copy(update={"lag_s": 300.0})]
    record = make_record(parts=whole, sampling_frequency_hz=RATE_HZ)
    parts = analysis.read_parts(record, rate_hz)
    assert analysis.read_parts(record, RATE_HZ) == whole
    at_s = np.array([0.0, 0.5, 1.0, 1.5, 2.9])  # from the beginning of the sort
    samples = np.round(at_s * rate_hz).astype(int)
    assert clock.part_of(samples, parts).tolist() == [0, 0, 1, 1, 1]
    found = clock.times_s(samples, parts, rate_hz)
    assert found == pytest.approx([100.0, 100.5, 300.0, 300.5, 361.9], abs=2 / rate_hz)


def test_record_of_an_earlier_version_asks_the_recording(row, caplog):
    settings = {"task": {"row": json.loads(row.model_dump_json(exclude_defaults=True))}}
    found = analysis.read_parts(make_record(settings=settings), 30_000.0)
    assert [p.t_start_s for p in found] == [105.0, 100.0]
    settings["task"]["row"]["paths"] = ["/no/such"]
    (found,) = analysis.read_parts(make_record(settings=settings, n_samples=7), 30_000.0)
    assert (found.t_start_s, found.n_samples) == (5.0, 7)
    assert "clocks are not known" in caplog.text


def reader_of(name, **fields):
    """Return what neo's reader of that name would tell."""
    return type(f"{name}RawIO", (), {"raw_annotations": {}, **fields})()


def began(reader, path="x.raw"):
    opened = NumpyRecording(np.zeros((9, 1), "int16"), RATE_HZ)
    opened.neo_reader, opened.stream_name, opened.block_index = reader, "s", 0
    found = clock.read_start(opened, str(path))
    return found and found[:19]


def test_beginning_is_read_from_headers_and_names(tmp_path):
    meta = {"fileCreateTime": "2023-04-15T15:56:51"}
    reader = reader_of("SpikeGLX", signals_info_dict={(0, "ap"): {"meta": meta}})
    assert began(reader) == "2023-04-15T15:56:51"
    meta["fileCreateTime_original"] = "2023-04-14T15:56:51"
    assert began(reader) == "2023-04-14T15:56:51"
    meta.clear()
    assert began(reader) is None
    recording = tmp_path / "node/experiment2/recording1"
    (recording / "continuous/s").mkdir(parents=True)
    (tmp_path / "node/settings_2.xml").write_text("<INFO><DATE>30 Aug 2022 13:57:31</DATE></INFO>")
    stream = {"raw_filename": str(recording / "continuous/s/continuous.dat"), "stream_name": "s"}
    reader = reader_of("OpenEphysBinary", _sig_streams=[{0: {0: stream}}])
    assert began(reader) == "2022-08-30T13:57:31"
    text = "Software Time (milliseconds since midnight Jan 1st 1970 UTC): 1661868000000\n"
    (recording / "sync_messages.txt").write_text(text)
    assert began(reader) == "2022-08-30T14:00:00"
    assert began(reader_of("Intan"), "/x/m1_240102_150405/info.rhd") == "2024-01-02T15:04:05"
    assert began(reader_of("Intan"), "/x/m1.rhd") is None
    noted = {"blocks": [{"segments": [{"date_created": "'14-Nov-2019 120000'"}]}]}
    assert began(reader_of("OpenEphys", raw_annotations=noted)) == "2019-11-14T12:00:00"
    headers = {"e.nev": {}, "a.ncs": {"recording_opened": datetime(2024, 1, 1, 10, tzinfo=UTC)}}
    assert began(reader_of("Neuralynx", file_headers=headers)) == "2024-01-01T10:00:00"
    fields = ("year", "month", "day", "hour", "minute", "second")
    of_blackrock = np.array((2024, 1, 2, 15, 4, 5), [(name, "u2") for name in fields])
    headers = {5: of_blackrock}
    assert began(reader_of("Blackrock", _nsx_basic_header=headers)) == "2024-01-02T15:04:05"
    headers[5]["year"] = 0
    assert began(reader_of("Blackrock", _nsx_basic_header=headers)) is None
    assert (
        began(reader_of("Blackrock", _nsx_basic_header={5: np.zeros(1, [("x", "u2")])[0]})) is None
    )
    assert began(None) is None
    opened = NumpyRecording(np.zeros((9, 2), "int16"), RATE_HZ)
    metas = [{"fileCreateTime": f"2023-04-15T15:56:{at}"} for at in (51, 52)]
    infos = {(at, "ap"): {"meta": meta} for at, meta in enumerate(metas)}
    opened.neo_reader = reader_of("SpikeGLX", signals_info_dict=infos)
    chosen = opened.select_channels([1])  # by column channels
    assert clock.read_start(chosen, "/x").startswith("2023-04-15T15:56:51")
    assert clock.read_start(chosen, "/x", 1).startswith("2023-04-15T15:56:52")
