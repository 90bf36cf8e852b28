"""Streams: those of electrodes, all others, and the units of their samples."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from spikeinterface.core import (
    NumpyRecording,
    load,
)

from recordings_made import RATE_HZ, of_spikeglx, refusal, save, saved, spikeglx, traces
from spikecanary.failures import RecordingLayoutError
from spikecanary.recording import formats, integrity, open_recording
from spikecanary.table import Recording
from workbench import write_open_ephys, write_spikeglx


def test_synchronisation_stream_is_refused_with_the_streams_there(tmp_path):
    path = spikeglx(tmp_path / "run")
    write_spikeglx(tmp_path / "run/run_g0_imec0", "run_g0_t0.imec0.lf", duration_s=1.0)
    text = refusal(of_spikeglx(path, "imec0.ap-SYNC"), RecordingLayoutError)
    assert "holds no electrodes" in text
    assert "in the row: stream_id imec0.ap." in text


def test_streams_with_numbers_are_proposed_by_their_names(tmp_path):
    rates = {"A-AP": 30_000, "A-LFP": 2500, "NI-DAQmx-103.PXIe-6341": 30_000}
    streams = {name: ([f"CH{n}" for n in range(4)], rate) for name, rate in rates.items()}
    path = tmp_path / "Record Node 101"
    write_open_ephys(path / "experiment1/recording1", streams, duration_s=1)
    row = Recording(id="x", paths=(str(path),), reader="openephysbinary")
    for name in ("1", "2"):
        text = refusal(row.model_copy(update={"stream_id": name}), RecordingLayoutError)
        assert re.search(r"in the row: stream_id 0 \([^()]*A-AP\)\.", text)


@pytest.mark.parametrize(("kinds", "is_read"), [("4,0,0,1", True), ("0,0,4,1", False)])
def test_electrodes_on_an_ni_daq(tmp_path, kinds, is_read):
    samples = traces(1.0)
    np.column_stack([samples, samples[:, :1]]).tofile(tmp_path / "w_g0_t0.nidq.bin")
    lines = {
        "fileName": "w_g0_t0.nidq.bin",
        "typeThis": "nidq",
        "nSavedChans": 5,
        "snsMnMaXaDw": kinds,
        "acqMnMaXaDw": kinds,
    }
    lines |= {"fileSizeBytes": 300_000, "fileTimeSecs": 1.0, "niSampRate": 30_000}
    lines |= {"niAiRangeMax": 5, "niAiRangeMin": -5, "niMNGain": 200, "niMAGain": 1}
    names = [*(f"MN0C{n};{n}" for n in range(4)), "XD0;4"]
    names = names if is_read else [*(f"XA{n};{n}" for n in range(4)), "XD0;4"]
    lines |= {"snsSaveChanSubset": "all", "fileCreateTime": "2024-01-01T00:00:00"}
    lines |= {"~snsChanMap": f"({kinds})" + "".join(f"({x}:{n})" for n, x in enumerate(names))}
    header = "".join(f"{name}={value}\n" for name, value in lines.items())
    (tmp_path / "w_g0_t0.nidq.meta").write_text(header)
    row = of_spikeglx(str(tmp_path), "nidq")
    if is_read:
        assert open_recording(row).get_num_samples() == len(samples)
    else:
        assert "holds no electrodes" in refusal(row, RecordingLayoutError)


def test_field_potential_is_refused(tmp_path):
    text = refusal(saved(save(tmp_path / "lf", rate_hz=2500.0)), RecordingLayoutError)
    assert "sampled at 2500 Hz" in text


@pytest.mark.parametrize(
    ("units", "of_others", "is_digital"),
    [
        ([""], [""], False),  # of Plexon nothing is known
        ([""], ["uV"], True),
        (["Volt"], ["a.u."], False),
        (["microV"], ["a.u."], False),
        (["a.u."], ["uV"], True),
        (["a.u."], ["a.u."], True),
    ],
)
def test_unit_that_tells_a_digital_signal(units, of_others, is_digital):
    opened = NumpyRecording([traces()[:, :1]], RATE_HZ)
    opened.set_property("physical_unit", np.array(units))
    opened.neo_reader = SimpleNamespace(header={"signal_channels": {"units": units + of_others}})
    if is_digital:
        with pytest.raises(RecordingLayoutError, match="holds no electrodes"):
            integrity.check_stream(opened, "/x", "binary")
    else:
        integrity.check_stream(opened, "/x", "binary")


def test_field_potential_of_neuroscope_at_the_rate_of_its_raw_data(tmp_path):
    (tmp_path / "a.xml").write_text(
        "<parameters><acquisitionSystem><nBits>16</nBits><nChannels>4</nChannels><samplingRate>"
        "30000</samplingRate><voltageRange>20</voltageRange><amplification>1000</amplification>"
        "</acquisitionSystem><anatomicalDescription><channelGroups/></anatomicalDescription>"
        "</parameters>"
    )
    row = Recording(id="x", paths=(str(tmp_path / "a.xml"),), reader="neuroscope")
    for suffix in ("eeg", "lfp"):
        traces(0.5).tofile(tmp_path / f"a.{suffix}")
        text = refusal(row, RecordingLayoutError)
        assert f"a.{suffix} is a field potential" in text
    traces().tofile(tmp_path / "a.dat")
    assert open_recording(row).get_num_samples() == 60_000


@pytest.mark.parametrize(
    ("reader", "units", "gains", "is_noted"),
    [
        ("Plexon", ["", ""], [2e3, 2e3], False),
        ("Blackrock", ["uV", "mV"], [5.0, 5.0], False),  # SpikeInterface's own
        ("Axon", ["volt", "nV"], [2e6, 2e-3], False),
        ("Axon", ["MILLIVOLT", "µV"], [2e3, 2.0], False),
        ("SpikeGadgets", ["", ""], [2.0, 2.0], True),
        ("Axon", ["a.u.", "a.u."], [2.0, 2.0], False),
    ],
)
def test_gains_by_the_units_that_neo_names(reader, units, gains, is_noted):
    opened, notes = NumpyRecording([traces()[:, :2]], RATE_HZ), []
    for name in ("gain", "offset"):
        opened.set_property(f"{name}_to_physical_unit", np.array([2.0, 2.0]))
        opened.set_property(f"{name}_to_uV", np.array([5.0, 5.0]))
    opened.set_property("physical_unit", np.array(units))
    opened.neo_reader = type(f"{reader}RawIO", (), {})()
    formats.mend(opened, "/x", {}, notes)
    assert opened.get_channel_gains().tolist() == gains
    assert opened.get_channel_offsets().tolist() == gains
    assert bool(notes) is is_noted


def test_biocam_is_opened_anew_as_it_was(data):
    path = str(next((data / "biocam").glob("*.brw")))
    options = {"fill_gaps_strategy": "zeros"}
    row = Recording(id="x", paths=(path,), reader="biocam", reader_options=options)
    opened = open_recording(row)
    assert opened.to_dict()["kwargs"]["fill_gaps_strategy"] == "zeros"
    assert load(opened.to_dict()).get_num_samples() == opened.get_num_samples()


@pytest.mark.parametrize(
    "name",
    [
        *("Rhythm_FPGA-100_ADC", "OneBox-ADC", "Signals AUX", "obx0.obx", "DC Amplifier channel"),
        *("USB board ADC output channel", "imec0.ap-SYNC", "RHD2000 auxiliary input channel"),
    ],
)
def test_streams_without_electrodes(name):
    opened = NumpyRecording([traces()], RATE_HZ)
    opened.stream_name = name
    with pytest.raises(RecordingLayoutError, match="holds no electrodes"):
        integrity.check_stream(opened, "/x", "binary")
