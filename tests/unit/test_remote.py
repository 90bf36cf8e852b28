"""Recordings at URLs: opened, looked at and sorted over the network, and what servers answer."""

import sys

import numpy as np
import pytest
from spikeinterface.core import NumpyRecording, read_binary

from bucket import BUCKET, SERIES, Bucket, write_nwb
from spikecanary import canary, preflight, signals, sorter
from spikecanary.config import CanarySettings, Config, SorterSettings
from spikecanary.discover import find
from spikecanary.failures import DependencyError, RecordingUnreadableError
from spikecanary.plan import make
from spikecanary.recording import find_chunks, open_recording
from spikecanary.supervise.job import Job
from spikecanary.table import Recording
from workbench import ROOT

RATE_HZ = 30_000.0
DURATION_S, WINDOW_S = 8.0, 2.0
CONFIG = Config(sorter=SorterSettings(name="quick", plugin=str(ROOT / "tests/quick_sorter.py")))


@pytest.fixture(scope="module")
def served(tmp_path_factory, write_binary, reader_options):
    """Serve one recording as zarr and as NWB."""
    folder, bucket = tmp_path_factory.mktemp("served"), Bucket()
    local = read_binary(write_binary("active", DURATION_S), **reader_options)
    local.save(format="zarr", folder=folder / "x.zarr", progress_bar=False)
    write_nwb(folder / "x.nwb", local.get_traces(), RATE_HZ)
    bucket.put(folder / "x.zarr", "x.zarr")
    bucket.put(folder / "x.zarr", "part.zarr")
    bucket.put(folder / "x.nwb", "x.nwb")
    yield bucket
    bucket.close()


@pytest.fixture
def bucket(served, monkeypatch):
    """Serve it to this test alone."""
    for name, value in served.environment().items():
        monkeypatch.setenv(name, value)
    served.fault = lambda _: ""
    return served


def zarr_row(name="x.zarr", **fields):
    return Recording(id="x", paths=(f"s3://{BUCKET}/{name}",), reader="zarr", **fields)


def nwb_row(bucket, mode="remfile", name="x.nwb"):
    options = {"stream_mode": mode, "electrical_series_path": SERIES}
    url = f"{bucket.url}/{BUCKET}/{name}"
    return Recording(id="x", paths=(url,), reader="nwb", reader_options=options)


def make_task(row):
    return sorter.make_task(row, CONFIG)


@pytest.fixture
def run(tmp_path):
    def start(row, **settings):
        settings = CanarySettings(window_s=WINDOW_S, min_recording_s=4, **settings)
        job = Job(log=tmp_path / "log.txt")
        return canary.run(make_task(row), settings, tmp_path / "x", job)

    return start


def test_zarr_in_a_bucket(run, bucket):
    record = run(zarr_row())
    assert (record.outcome, record.n_units) == ("passed", 4), record.reason
    assert [line for line in record.warnings if "at a URL" in line] == record.warnings[:1]


@pytest.mark.parametrize("mode", ["remfile", "fsspec"])
def test_nwb_on_a_web_server(run, bucket, mode):
    record = run(nwb_row(bucket, mode))
    assert (record.outcome, record.n_units) == ("passed", 4), record.reason


def test_missing_credential(run, bucket, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    bucket.fault = lambda asked: "" if "HTTP_AUTHORIZATION" in asked else "AccessDenied"
    record = run(zarr_row())
    assert (record.verdict, record.failure.category) == ("stop", "environment")
    assert "Unable to locate credentials" in record.reason
    assert "credentials" in record.failure.remedy


def test_connection_lost_half_way(run, bucket):
    asked = []

    def lose(request):
        asked.extend([request["PATH_INFO"]] * ("traces_seg0/" in request["PATH_INFO"]))
        return "lost" if len(asked) > 12 else ""

    bucket.fault = lose
    record = run(zarr_row())
    assert (record.verdict, record.outcome) == ("proceed", "unexpected"), record.reason


def test_throttled_while_it_is_opened(run, bucket):
    bucket.fault = lambda _: "SlowDown"
    record = run(zarr_row())
    assert (record.verdict, record.outcome) == ("proceed", "unexpected"), record.reason
    assert record.warnings[0].startswith("IOStallError: the server that holds the recording is")


@pytest.mark.parametrize("url", [f"s3://{BUCKET}/none.zarr", "s3://nobody/x.zarr"])
def test_what_is_not_there(bucket, url):
    with pytest.raises(RecordingUnreadableError, match=f"cannot open {url}: FileNotFoundError: "):
        open_recording(zarr_row().model_copy(update={"paths": (url,)}))


def test_chunk_that_cannot_be_had_is_no_silence(bucket):
    """Zarr 2 takes any OSError for a chunk of zeros; one missing is refused."""
    recording = open_recording(zarr_row())
    bucket.fault = lambda _: "ExpiredToken"
    with pytest.raises(PermissionError, match="expired"):
        recording.get_traces(start_frame=0, end_frame=10)
    bucket.fault = lambda _: ""
    bucket.client.delete_object(Bucket=BUCKET, Key="part.zarr/traces_seg0/3.0")
    with pytest.raises(RecordingUnreadableError, match="7 of 8 chunks"):
        open_recording(zarr_row("part.zarr"))


@pytest.mark.parametrize("module", ["remfile", "s3fs"])
def test_library_that_is_missing(bucket, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(DependencyError, match=module) as caught:
        open_recording(nwb_row(bucket) if module == "remfile" else zarr_row())
    assert "pip install remfile s3fs" in caught.value.remedy


def test_pieces_of_the_map_are_chunks(bucket):
    whole = open_recording(zarr_row())
    assert find_chunks(whole) == (0, 30_000, 8)
    part = open_recording(zarr_row(start_s=0.4, channels="0,1"))
    assert find_chunks(part) == (12_000, 30_000, 8)
    starts, length = signals._place_on_chunks(part)
    assert length == 3 * 30_000  # of 240 kB each
    assert ((starts + 12_000) % length == 0).all()
    assert starts.tolist() == [78_000]


def test_parts_are_joined(bucket):
    url = f"s3://{BUCKET}/x.zarr"
    row = Recording(id="x", paths=(url, url), reader="zarr")
    assert find_chunks(open_recording(row)) == (0, 30_000, 8)


def test_only_the_pieces_are_searched_for_nan(bucket, monkeypatch, tmp_path):
    asked = {}
    check = signals.check
    monkeypatch.setattr(signals, "check", lambda of, **how: asked.update(how) or check(of, **how))
    inspect = preflight.inspect_recording_and_node
    settings = CanarySettings(window_s=WINDOW_S, min_recording_s=4)
    found = inspect(make_task(zarr_row()), tmp_path, settings, lambda **_: None)
    assert asked == {"whole": False, "remote": True}
    assert found["notes"] == [preflight.NOT_READ]


def test_clock_of_a_whole_recording_is_not_read(bucket, tmp_path):
    """Of one part alone nobody asks for it, and of few channels it is as long as the samples."""
    recording = NumpyRecording([np.zeros((300_000, 2), "int16")], RATE_HZ)
    times = np.random.default_rng(0).normal(1.0, 0.01, 300_000).cumsum() / RATE_HZ
    recording.set_times(times, segment_index=0)
    recording.save(format="zarr", folder=tmp_path / "timed.zarr", progress_bar=False)
    bucket.put(tmp_path / "timed.zarr", "timed.zarr")
    bucket.sent = 0
    assert open_recording(zarr_row("timed.zarr"), thorough=True).has_time_vector(0)
    assert bucket.sent < 5e5  # the times alone have 1.3 MB


def test_plan_and_discover(bucket, tmp_path):
    (planned,) = make(CONFIG, [zarr_row()], tmp_path, 1).to_dict("records")
    assert (planned["duration_s"], planned["size_mb"]) == (DURATION_S, 1.9)
    (found,) = find([f"s3://{BUCKET}/x.zarr"], "probe", "", 1, set())
    assert "is a URL: write its row by hand" in found.reason
