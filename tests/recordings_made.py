"""Recordings in files, whole or not, and what is said when they are opened."""

from datetime import UTC, datetime

import numpy as np
import pytest
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries
from spikeinterface.core import NumpyRecording

from spikecanary.failures import RecordingUnreadableError
from spikecanary.recording import open_recording
from spikecanary.table import Recording
from workbench import write_open_ephys, write_spikeglx

RATE_HZ = 30_000.0
N = 4
TIMES = np.arange(60_000) / RATE_HZ


def traces(seconds=2.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, 50.0, (int(seconds * RATE_HZ), N)).astype("int16")


def save(path, samples=None, *, gain=0.195, ids=None, times=None, depths=None, **options):
    rate_hz = options.pop("rate_hz", RATE_HZ)
    recording = NumpyRecording([traces() if samples is None else samples], rate_hz, channel_ids=ids)
    if depths:
        recording.set_dummy_probe_from_locations(np.array([(0.0, depth) for depth in depths]))
    recording.set_channel_gains(gain)
    recording.set_channel_offsets(0.0)
    if times is not None:
        recording.set_times(times, segment_index=0)
    recording.save(folder=path, verbose=False, progress_bar=False, **options)
    return str(path)


def saved(*paths, **fields):
    return Recording(id="x", paths=paths, reader="spikeinterface", **fields)


def refusal(row, failure=RecordingUnreadableError, **thorough):
    with pytest.raises(failure) as caught:
        open_recording(row, **thorough)
    assert caught.value.category == "environment"
    return f"{caught.value} {caught.value.remedy}"


def notes_of(row):
    notes, parts = [], []
    open_recording(row, notes, thorough=True, parts=parts)
    return " ".join(notes), parts


def open_ephys(folder, *durations_s, **options):
    """Write an Open Ephys folder with one recording a part."""
    board = {"Acquisition_Board-100.Rhythm_Data": (["CH1", "CH2", "CH3", "CH4"], RATE_HZ)}
    node = folder / "Record Node 101"
    for number, duration_s in enumerate(durations_s, start=1):
        recording = node / f"experiment1/recording{number}"
        write_open_ephys(recording, board, duration_s=duration_s, **options)
    return Recording(id="x", paths=(str(node),), reader="openephysbinary", stream_id="0")


def spikeglx(folder, announced=None):
    """Write a SpikeGLX run of 1 s."""
    write_spikeglx(folder / "run_g0_imec0", duration_s=1.0, announced=announced)
    return str(folder)


def of_spikeglx(path, stream="imec0.ap"):
    return Recording(id="x", paths=(path,), reader="spikeglx", stream_id=stream)


def write_nwb(path, times, starting_time=None, **electrode):
    file = NWBFile("a", "b", datetime(2024, 1, 1, tzinfo=UTC))
    group = file.create_electrode_group("shank0", "", "", file.create_device("probe"))
    for _ in range(N):
        file.add_electrode(group=group, location="CA1", **electrode)
    region = file.create_electrode_table_region(list(range(N)), "all")
    series = {"data": traces(), "electrodes": region, "conversion": 1e-6}
    series |= {"timestamps": times} if times is not None else {"rate": RATE_HZ}
    file.add_acquisition(ElectricalSeries(name="raw", starting_time=starting_time, **series))
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    return Recording(id="x", paths=(str(path),), reader="nwb")
