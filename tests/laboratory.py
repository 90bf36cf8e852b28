"""Files as laboratories have them, and a run of discover on them."""

import numpy as np
import spikeinterface as si
from probeinterface import ProbeGroup, generate_tetrode

from spikecanary import discover
from spikecanary.table import read_table

RATE_HZ = 30_000
N = 4


def traces(n_channels=N, duration_s=2.5, rate_hz=RATE_HZ):
    rng = np.random.default_rng(0)
    return rng.normal(0, 30, (int(duration_s * rate_hz), n_channels)).astype("int16")


def with_probes(n_probes=1):
    """Return a recording of tetrodes, 300 um apart."""
    recording = si.NumpyRecording([traces(N * n_probes)], RATE_HZ)
    recording.set_channel_gains(0.195)
    recording.set_channel_offsets(0)
    group = ProbeGroup()
    for number in range(n_probes):
        probe = generate_tetrode()
        probe.move([300 * number, 0])
        probe.set_device_channel_indices(np.arange(N) + N * number)
        group.add_probe(probe)
    recording.set_probegroup(group)
    return recording


def nwb(path, series):
    """Write an NWB file with these electrical series: rates in Hz."""
    from datetime import UTC, datetime

    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.ecephys import ElectricalSeries
    from pynwb.file import Subject

    file = NWBFile("a", "b", datetime(2024, 1, 1, tzinfo=UTC), session_id="day3")
    file.subject = Subject(subject_id="m7", species="Mus musculus")
    device = file.create_device("probe")
    group = file.create_electrode_group("shank0", "", "", device)
    for number in range(N):
        file.add_electrode(group=group, location="CA1", rel_x=0.0, rel_y=20.0 * number)
    for name, rate_hz in series.items():
        region = file.create_electrode_table_region(list(range(N)), "all")
        data = traces(rate_hz=rate_hz)
        file.add_acquisition(
            ElectricalSeries(
                name=name, data=data, electrodes=region, rate=float(rate_hz), conversion=1e-6
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with NWBHDF5IO(path, "w") as io:
        io.write(file)


def run(tmp_path, *arguments):
    table = tmp_path / "recordings.tsv"
    status = discover.main([*map(str, arguments), "--out", str(table), "--jobs", "2"])
    return status, {row.id: row for row in read_table(table)}, table.read_text()
