"""Probes and channels: what is wired, which are chosen, whether positions can be."""

import json

import numpy as np
import pytest
from probeinterface import Probe, ProbeGroup, generate_multi_columns_probe, write_probeinterface
from spikeinterface.core import NumpyRecording

from spikecanary.failures import RecordingUnreadableError
from spikecanary.recording import open_recording
from spikecanary.table import Recording

N = 8


def linear(n=N, pitch=20.0, x=0.0, units="um", *, wired=True):
    probe = Probe(ndim=2, si_units=units)
    positions = np.c_[np.full(n, x), pitch * np.arange(n)]
    probe.set_contacts(positions, shapes="circle", shape_params={"radius": pitch / 4})
    if wired:
        probe.set_device_channel_indices(np.arange(n))
    return probe


@pytest.fixture
def place(tmp_path):
    """Return a function that opens 10 channels with a probe; the recording and the notes."""
    rng = np.random.default_rng(1)
    path = tmp_path / "traces.raw"
    rng.normal(0, 50, (3000, 10)).astype("int16").tofile(path)
    options = {"sampling_frequency": 30_000.0, "dtype": "int16", "num_channels": 10}

    def start(probe=None, edit=None, **fields):
        if probe is not None:
            write_probeinterface(tmp_path / "probe.json", probe)
            if edit is not None:
                text = json.loads((tmp_path / "probe.json").read_text())
                edit(text["probes"][0])
                (tmp_path / "probe.json").write_text(json.dumps(text))
            fields["probe"] = str(tmp_path / "probe.json")
        row = Recording(
            id="x", paths=(str(path),), reader="binary", reader_options=options, **fields
        )
        notes = []
        return open_recording(row, notes), notes

    return start


def refusal(place, *args, **fields):
    with pytest.raises(RecordingUnreadableError) as caught:
        place(*args, **fields)
    assert caught.value.category == "environment"
    return f"{caught.value} {caught.value.remedy}"


def test_channels_that_the_probe_does_not_wire_are_left_out_by_name(place):
    recording, notes = place(linear())
    assert recording.get_num_channels() == N
    assert len(notes) == 1
    assert "2 of 10 channels are not wired" in notes[0]
    assert notes[0].endswith("8, 9")


def test_dead_contacts_are_left_out_and_the_order_is_the_probes(place):
    probe = linear()
    probe.set_device_channel_indices([9, -1, 7, 6, -1, 4, 3, 2])
    recording, _ = place(probe)
    assert list(recording.channel_ids) == [2, 3, 4, 6, 7, 9]
    depths = dict(zip(recording.channel_ids, recording.get_channel_locations()[:, 1], strict=True))
    assert depths == {9: 0.0, 7: 40.0, 6: 60.0, 4: 100.0, 3: 120.0, 2: 140.0}


def test_probe_without_wiring_is_refused_or_wired_as_the_table_says(place):
    text = refusal(place, linear(wired=False))
    assert "device_channel_indices" in text
    assert "`identity` in column wiring" in text
    recording, _ = place(linear(wired=False), wiring="identity")
    assert recording.get_channel_locations()[3].tolist() == [0.0, 60.0]
    assert "column wiring" in refusal(place, linear(wired=False), wiring="backwards")
    said = refusal(place, linear(wired=False), wiring="identiy")
    assert "as 'identiy' (did you mean 'identity'?)" in said


@pytest.mark.parametrize(("units", "pitch"), [("mm", 0.02), ("m", 2e-5)])
def test_positions_are_read_with_their_unit(place, units, pitch):
    recording, _ = place(linear(pitch=pitch, units=units))
    np.testing.assert_allclose(recording.get_channel_locations()[:, 1], 20.0 * np.arange(N))
    assert recording.get_probegroup().probes[0].contact_shape_params[0]["radius"] == pytest.approx(
        5
    )


def test_probe_in_three_dimensions_lies_in_a_plane(place):
    upright = linear().to_3d(axes="xz")
    upright.set_device_channel_indices(np.arange(N))
    recording, _ = place(upright)
    np.testing.assert_allclose(recording.get_channel_locations()[:, 1], 20.0 * np.arange(N))
    bent = linear().to_3d(axes="xz")
    bent.set_device_channel_indices(np.arange(N))

    def bend(probe):
        probe["contact_positions"] = [[n, n**2, 20 * n] for n in range(N)]

    assert "three dimensions" in refusal(place, bent, edit=bend)


def move(index, position):
    def edit(probe):
        probe["contact_positions"][index] = position

    return edit


@pytest.mark.parametrize(
    ("probe", "edit", "words"),
    [
        (linear(), move(3, [float("nan"), 0.0]), "without a position (NaN): 3"),
        (linear(), move(3, [0.0, 40.0]), "duplicate"),
        (linear(pitch=0.02), None, "0.02 um from their neighbours"),
        (linear(pitch=2e4), None, "2e+04 um from their neighbours"),
    ],
)
def test_positions_that_cannot_be(place, probe, edit, words):
    text = refusal(place, probe, edit=edit)
    assert words in text
    assert "column probe" in text


def group(*probes):
    made, first = ProbeGroup(), 0
    for probe in probes:
        n = probe.get_contact_count()
        probe.set_device_channel_indices(first + np.arange(n))
        made.add_probe(probe)
        first += n
    return made


def test_probes_that_overlap_say_what_to_move(place):
    text = refusal(place, group(linear(5), linear(5)))
    assert "probes 0 and 1 overlap" in text
    assert "probe.move([200, 0])" in text
    recording, _ = place(group(linear(5), linear(5, x=200.0)))
    assert recording.get_num_channels() == 10
    recording, _ = place(group(linear(5), linear(5)), channels="group=1")
    assert list(recording.channel_ids) == [5, 6, 7, 8, 9]


def test_healthy_probes_are_never_refused(place):
    for probe in (
        linear(pitch=6.0),
        linear(pitch=400.0),
        generate_multi_columns_probe(num_columns=2, num_contact_per_column=5, xpitch=32, ypitch=20),
        group(*[linear(2, x=150.0 * n) for n in range(5)]),
    ):
        if isinstance(probe, Probe) and probe.device_channel_indices is None:
            probe.set_device_channel_indices(np.arange(probe.get_contact_count()))
        place(probe)


@pytest.mark.parametrize(
    ("channels", "bad", "kept"),
    [
        ("0-3", None, [0, 1, 2, 3]),
        ("1, 3,5", None, [1, 3, 5]),
        (None, "0-7;9", [8]),
        ("0-4,9", "2", [0, 1, 3, 4, 9]),
    ],
)
def test_channels_of_the_table(place, channels, bad, kept):
    recording, _ = place(channels=channels, bad_channels=bad)
    assert list(recording.channel_ids) == kept


def test_channels_that_the_probe_does_not_wire_may_be_named(place):
    recording, _ = place(linear(), channels="0-9", bad_channels="9, 3")
    assert list(recording.channel_ids) == [0, 1, 2, 4, 5, 6, 7]


def test_channels_of_one_id_are_refused_where_they_are_named(tmp_path):
    NumpyRecording([np.zeros((900, 3), "int16")], 30_000.0).save(folder=tmp_path / "x")
    options = {"sampling_frequency": 30_000.0, "dtype": "int16", "num_channels": 3}
    raw = str(next((tmp_path / "x").glob("*.raw")))
    row = Recording(
        id="x", paths=(raw,), reader="binary", reader_options=options | {"channel_ids": [*"abb"]}
    )
    assert open_recording(row).get_num_channels() == len("abb")
    with pytest.raises(RecordingUnreadableError, match="several channels have the id b"):
        open_recording(row.model_copy(update={"channels": "a,b"}))


def test_channels_that_are_not_there(place):
    assert "no channel 'CH1'" in refusal(place, channels="CH1")
    assert "column bad_channels" in refusal(place, bad_channels="11")
    assert "no channel is left of 10" in refusal(place, bad_channels="0-9")
    assert "wires channels 10, 11; the recording has channels 0 to 9" in refusal(place, linear(12))


def test_names_with_dashes_and_a_propertys_value(tmp_path):
    recording = NumpyRecording(
        [np.zeros((900, 4), "int16")], 30_000.0, channel_ids=["A-0", "A-1", "B-0", "B-1"]
    )
    recording.set_property("port", ["A", "A", "B", "B"])
    recording.save(folder=tmp_path / "saved", verbose=False, progress_bar=False)

    def ids(channels):
        row = Recording(
            id="x", paths=(str(tmp_path / "saved"),), reader="spikeinterface", channels=channels
        )
        return list(open_recording(row).channel_ids)

    assert ids("A-1") == ["A-1"]
    assert ids("A-1-B-0") == ["A-1", "B-0"]
    assert ids("port=B") == ["B-0", "B-1"]


@pytest.mark.parametrize(
    ("ids", "channels", "kept"),
    [
        ([1, 10, 11, 2, 3], "1-3", None),  # as neo sorts the files of Neuralynx
        ([1, 10, 11, 2, 3], "1-11", None),
        (["CH3", "CH1", "CH2", "CH4"], "CH1-CH3", None),  # a map of Open Ephys
        (["CH1", "CH2", "AUX1", "CH3"], "CH1-CH3", None),
        (["CH3", "CH1", "CH2", "CH4"], "CH1-CH2", ["CH1", "CH2"]),
        (["CH2", "CH1", "CH3", "CH4"], "CH1-CH4", None),
        (["CH2", "CH3", "CH1", "CH4"], "CH2-CH1", ["CH2", "CH3", "CH1"]),  # of no numbers
        (["CH2", "CH1", "CH3", "CH4"], "CH2,CH1,CH3", ["CH2", "CH1", "CH3"]),
        (["A-000", "A-001", "B-000"], "A-001-B-000", ["A-001", "B-000"]),
    ],
)
def test_range_that_is_another_one_in_the_order_of_the_file(tmp_path, ids, channels, kept):
    recording = NumpyRecording([np.zeros((900, len(ids)), "int16")], 30_000.0, channel_ids=ids)
    recording.save(folder=tmp_path / "x", verbose=False)
    row = Recording(id="x", paths=(str(tmp_path / "x"),), reader="spikeinterface")
    row = row.model_copy(update={"channels": channels})
    if kept:
        assert list(open_recording(row, []).channel_ids) == kept
        return
    with pytest.raises(RecordingUnreadableError, match="by number") as caught:
        open_recording(row, [])
    if ids[0] != "CH3":  # else there is no such range in the file
        assert open_recording(row)  # for the outputs of what was sorted
    assert "one by one" in caught.value.remedy
    if channels == "1-3":
        said = "channels 1-3 are 3 by number (1, 2, 3), but 5 in the order of the file (1, 10, 11, "
        assert said in str(caught.value)


def test_the_tables_probe_replaces_that_of_the_data_and_says_so(tmp_path):
    recording = NumpyRecording([np.zeros((900, N), "int16")], 30_000.0)
    recording.set_probe(linear())
    recording.save(folder=tmp_path / "saved", verbose=False, progress_bar=False)
    write_probeinterface(tmp_path / "probe.json", linear(pitch=50.0))
    row = Recording(
        id="x",
        paths=(str(tmp_path / "saved"),),
        reader="spikeinterface",
        probe=str(tmp_path / "probe.json"),
    )
    notes = []
    assert open_recording(row, notes).get_channel_locations()[1, 1] == 50.0
    assert "the data have a probe of their own" in notes[0]
