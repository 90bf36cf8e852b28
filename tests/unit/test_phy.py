"""Phy: each folder is opened by phylib, with traces; what people did in one is found and kept."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from phylib.io.model import load_model
from probeinterface import Probe, write_probeinterface
from spikeinterface.core import NumpySorting, create_sorting_analyzer, load_sorting_analyzer
from spikeinterface.generation import generate_ground_truth_recording
from spikeinterface.preprocessing import highpass_filter, resample

from spikecanary import outputs
from spikecanary.outputs import curation, phy
from spikecanary.recording import open_recording
from spikecanary.table import Recording

RATE_HZ, HEADER, DURATION_S = 30_000.0, 64, 5.0


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Write a binary file of eight channels with a header; return its path and its spikes."""
    recording, sorting = generate_ground_truth_recording(
        durations=[DURATION_S], sampling_frequency=RATE_HZ, num_channels=8, num_units=4, seed=3
    )
    path = tmp_path_factory.mktemp("raw") / "a.raw"
    traces = (recording.get_traces() * 10).astype("int16")
    path.write_bytes(b"h" * HEADER + traces.tobytes())
    return path, sorting_at(sorting, RATE_HZ)


def read(path, n_channels=8, dims=2):
    """Open the file as the workflow does, with a probe; return its last channels."""
    probe = Probe(ndim=dims, si_units="um")
    places = np.zeros((8, dims))
    places[:, -1] = 20.0 * np.arange(8)
    further = {"plane_axes": np.array([[[1, 0, 0], [0, 0, 1]]] * 8)} if dims == 3 else {}
    probe.set_contacts(places, shapes="circle", shape_params={"radius": 5}, **further)
    probe.set_device_channel_indices(np.arange(8))
    write_probeinterface(path.with_name(f"{dims}.json"), probe)
    options = {"sampling_frequency": RATE_HZ, "dtype": "int16", "num_channels": 8}
    options |= {"gain_to_uV": 0.1, "offset_to_uV": 0.0, "file_offset": HEADER}
    row = Recording(
        id="a",
        paths=(str(path),),
        reader="binary",
        reader_options=options,
        probe=str(path.with_name(f"{dims}.json")),
    )
    recording = open_recording(row)
    return recording.select_channels(recording.channel_ids[8 - n_channels :])


def export(recording, sorting, folder, **params):
    """Analyze a little and export; return the analyzer."""
    analyzer = create_sorting_analyzer(
        sorting, recording, sparse=False, format="binary_folder", folder=folder / "analyzer"
    )
    analyzer.compute({"random_spikes": {"seed": 0}, "waveforms": {}, "templates": {}})
    ids = [str(each) for each in analyzer.unit_ids]
    units = pd.DataFrame({"label": ["good", "mua", "noise", "other"][: len(ids)]}, index=ids)
    analyzer = load_sorting_analyzer(folder / "analyzer", read_only=True)  # as the export has it
    analyzer.set_temporary_recording(recording)
    phy.write(analyzer, units, params, folder / "phy")
    return analyzer


@pytest.mark.parametrize(
    "case",
    [(8, 4, 2, 0), (8, 1, 2, 0), (1, 4, 2, 0), (1, 1, 2, 0), (4, 4, 3, 0), (4, 2, 2, 30_000)],
    ids=["four units", "one unit", "one channel", "one of each", "three dimensions", "a cut"],
)
def test_phylib_opens_it_with_traces(raw, tmp_path, case):
    n_channels, n_units, dims, start = case
    path, sorting = raw
    cut = read(path, n_channels, dims).frame_slice(start, int(DURATION_S * RATE_HZ))
    trains = sorting.select_units(sorting.unit_ids[:n_units]).frame_slice(start, None)
    export(highpass_filter(cut, dtype="float32"), trains, tmp_path)
    for _ in range(2):  # phylib leaves a file
        model = load_model(tmp_path / "phy/params.py")
        assert model.dat_path == [path]
        spikes = np.arange(len(model.spike_samples))[100:110]
        waveforms = model.get_waveforms(spikes, np.arange(n_channels))
        middle = waveforms.shape[1] // 2
        expected = cut.get_traces()[model.spike_samples[spikes]]
        assert waveforms[:, middle].tolist() == expected.tolist()
        assert model.n_spikes == trains.count_total_num_spikes()
        assert (
            list(model.metadata["group"].values()) == ["good", "mua", "noise", "unsorted"][:n_units]
        )
        assert model.get_features([0], np.arange(n_channels)).shape[:2] == (1, n_channels)
        assert (
            model.channel_positions[:, 1].tolist() == (20.0 * np.arange(8)[-n_channels:]).tolist()
        )
    assert phy.find_edits(tmp_path / "phy") == []


def test_traces_are_copied_where_the_raw_file_is_not_what_was_sorted(raw, tmp_path):
    path, sorting = raw
    export(resample(read(path), 15_000), sorting_at(sorting, 15_000.0), tmp_path)
    model = load_model(tmp_path / "phy/params.py")
    assert model.dat_path == [tmp_path / "phy/recording.dat"]
    assert model.dtype == "int16"
    assert np.ptp(model.get_waveforms([5], [0, 1])) > 0


@pytest.mark.parametrize(("suffix", "copied"), [(".i16", True), (".dat", False)])
def test_raw_file_that_phy_does_not_open_by_its_name_is_copied(raw, tmp_path, suffix, copied):
    path = shutil.copy(raw[0], tmp_path / f"a{suffix}")
    export(read(path), raw[1], tmp_path)
    model = load_model(tmp_path / "phy/params.py")
    assert model.dat_path == [tmp_path / "phy/recording.dat" if copied else path]
    assert np.ptp(model.get_waveforms([5], [0, 1])) > 0
    shutil.rmtree(tmp_path / "phy")
    shutil.rmtree(tmp_path / "analyzer")
    export(read(path), raw[1], tmp_path, copy_binary=False)
    assert not (tmp_path / "phy/recording.dat").exists()
    assert (path.name in (tmp_path / "phy/params.py").read_text()) is not copied


def sorting_at(sorting, rate_hz):
    """Return a sorting at another rate."""
    factor = rate_hz / sorting.sampling_frequency
    trains = {
        unit: (sorting.get_unit_spike_train(unit) * factor).astype(int) for unit in sorting.unit_ids
    }
    return NumpySorting.from_unit_dict(trains, rate_hz)


@pytest.mark.parametrize("first", [0, 100])
def test_raw_file_of_a_spikeglx_run(data, first):
    paths = (str(data / "sglx_np2"),)
    row = Recording(id="np2", paths=paths, reader="spikeglx", stream_id="imec0.ap")
    recording = open_recording(row).frame_slice(first, None)
    recording = recording.select_channels(recording.channel_ids[[5, 2, 300]])
    found = phy.find_raw(highpass_filter(recording))
    assert found["n_channels_dat"] == 385  # with the synchronisation channel
    samples = np.memmap(found["dat_path"], found["dtype"], "r", found["offset"])
    samples = samples[: 385 * 50].reshape(50, 385)[:, found["channels"]]
    assert samples.tolist() == recording.get_traces(end_frame=50).tolist()


def test_export_writes_nothing_into_the_analyzer(raw, tmp_path):
    path, sorting = raw
    analyzer = export(read(path), sorting, tmp_path)
    kept = {each.name for each in (tmp_path / "analyzer/extensions").iterdir()}
    assert kept == {"random_spikes", "waveforms", "templates"}
    assert analyzer.has_extension("principal_components")


@pytest.fixture(scope="module")
def exported_once(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export(read(raw[0]), raw[1].rename_units(["a", "b/c", "007", "NA"]), folder)
    return folder / "phy"


@pytest.fixture
def exported(exported_once, tmp_path):
    """Copy a Phy folder of four units; as often with other times."""
    return shutil.copytree(exported_once, tmp_path / "phy", copy_function=shutil.copy)


def merge(folder, numbers=(0, 1), into=4):
    clusters = np.load(folder / phy.CLUSTERS)
    clusters[np.isin(clusters, numbers)] = into
    np.save(folder / phy.CLUSTERS, clusters)


def test_what_a_person_made_is_found(exported):
    assert phy.find_edits(exported) == []
    assert phy.may_replace(exported, None)
    for name in (".DS_Store", "phy.log", ".phy/state.json"):  # of who only looked
        (exported / name).parent.mkdir(exist_ok=True)
        (exported / name).write_text("{}")
    assert phy.find_edits(exported) == []
    (exported / "cluster_note.tsv").write_text("cluster_id\tnote\n1\tnice\n")
    merge(exported)
    found = ["cluster_note.tsv", "spike_clusters.npy"]
    assert phy.find_edits(exported) == found
    np.save(exported / "whitening_mat_inv.npy", np.eye(2))  # as Phy does
    assert phy.find_edits(exported) == found
    np.save(exported / "stim_onsets.npy", np.arange(2))
    assert phy.find_edits(exported) == [*found, "stim_onsets.npy"]
    assert not phy.may_replace(exported, "phy")
    with pytest.raises(
        outputs.OutputError, match=r"edited by hand \(cluster_note.tsv.*manual: phy"
    ):
        phy.may_replace(exported, None)
    with pytest.raises(outputs.OutputError, match=r"one tool, and `curation.manual` says gui"):
        phy.may_replace(exported, "gui")
    (exported / phy.NOTE).write_text('{"cut off')
    assert "spike_clusters.npy" in phy.find_edits(exported)


def test_folder_of_the_version_before(exported):
    """It has no note; Snakemake's stamp tells when the export ended."""
    (exported / phy.NOTE).unlink()
    assert phy.find_edits(exported)  # no stamp: in doubt
    stamp = exported / phy.STAMP
    stamp.touch()
    assert phy.find_edits(exported) == []
    later = time.time() + 100
    os.utime(exported / "cluster_group.tsv", (later, later))
    assert phy.find_edits(exported) == ["cluster_group.tsv"]


def test_units_and_labels_are_read_back(exported, raw):
    merge(exported)
    clusters = np.load(exported / phy.CLUSTERS).ravel()
    (exported / phy.LABELS).write_text("cluster_id\tgroup\n2\tnoise\n3\tUnsorted\n4\tGood \n")
    sorting = phy.read_sorting(exported, RATE_HZ)
    assert list(sorting.unit_ids) == ["007", "NA", "phy4"]
    samples = np.load(exported / "spike_times.npy").ravel()
    assert sorting.get_unit_spike_train("phy4").tolist() == samples[clusters == 4].tolist()
    assert sorting.count_total_num_spikes() == raw[1].count_total_num_spikes()
    (exported / "cluster_notes.tsv").write_text("cluster_id\tnotes\n4\tDrifts\n2\t\n")
    assert phy.read_labels(exported) == {
        "phy_label": {"007": "noise", "phy4": "good"},
        "phy_notes": {"phy4": "Drifts"},  # of what was exported, none
    }


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("cluster_si_unit_ids.tsv", Path.unlink),
        (phy.LABELS, lambda path: path.write_text("cluster_id,group\n1,good\n")),
        (phy.CLUSTERS, lambda path: path.write_bytes(b"cut off")),
        (phy.CLUSTERS, lambda path: np.save(path, np.load(path)[:-5])),
    ],
    ids=["no ids", "not Phy's table", "broken", "short"],
)
def test_folder_that_cannot_be_read_is_named(exported, name, spoil):
    spoil(exported / name)
    with pytest.raises(outputs.OutputError, match=r"phy was edited by hand, but cannot be read"):
        phy.read_labels(exported), phy.read_sorting(exported, RATE_HZ)
    (exported / phy.LABELS).unlink()
    assert phy.read_labels(exported) == {"phy_label": {}}


def test_folder_that_stays_has_the_units_of_all_outputs(exported, raw):
    sorting = raw[1].rename_units(["a", "b/c", "007", "NA"])
    phy.check_current(exported, sorting)
    later = NumpySorting.from_unit_dict(
        {unit: sorting.get_unit_spike_train(unit) + 9 for unit in sorting.unit_ids}, RATE_HZ
    )
    for other in (later, sorting.select_units(["a", "NA"]), raw[1]):
        with pytest.raises(outputs.OutputError, match=r"units are not those.*To drop"):
            phy.check_current(exported, other)
    with pytest.raises(outputs.OutputError, match="units are not those"):
        phy.check_current(exported / "of no units", sorting)


def test_digest_of_what_was_made_by_hand(exported):
    def look(pattern):
        return phy.look_for_work(exported.parent, pattern, "phy", dry=True)

    assert look(phy.CLUSTERS) == {}
    assert phy.look_for_work(exported, phy.CLUSTERS, "phy", dry=True) == {}  # without a folder
    merge(exported)
    once = look(phy.CLUSTERS)
    assert look("cluster_*.tsv") == {}
    merge(exported, (2, 3), 5)
    assert list(once) == ["phy"]
    assert look(phy.CLUSTERS) != once


def test_one_spike_is_not_for_phy(raw, tmp_path):
    export(read(raw[0]), NumpySorting.from_unit_dict({"0": np.array([999])}, RATE_HZ), tmp_path)
    assert "Phy has nothing to show" in (tmp_path / "phy/README.txt").read_text()


def test_curation_in_a_gui_is_moved_out_of_the_analyzer(tmp_path):
    phy.shelter(tmp_path)
    phy.check_sheltered(tmp_path)
    for number in range(3):
        inside = tmp_path / "analyzer" / phy.GUI
        inside.mkdir(parents=True)
        (tmp_path / "analyzer/sorting").mkdir(exist_ok=True)
        (tmp_path / "analyzer/sorting" / phy.SPIKES).touch()
        (inside / phy.CURATION).write_text(json.dumps(number))
        phy.shelter(tmp_path)
        phy.shelter(tmp_path)
        assert json.loads((inside / phy.CURATION).read_text()) == number
        inside.unlink()
        if number == 1:
            assert (tmp_path / phy.GUI / phy.CURATION).read_text() == "0"
            shutil.rmtree(tmp_path / phy.GUI)  # dropped: the next goes after what stays
    assert (tmp_path / f"{phy.GUI}.1" / phy.CURATION).read_text() == "1"
    assert (tmp_path / f"{phy.GUI}.2" / phy.CURATION).read_text() == "2"
    for manual, way_on in (
        (None, "manual: gui"),
        ("phy", "one tool, and `curation.manual` says phy"),
    ):
        said = f"made by hand in SpikeInterface's GUI.*{way_on}"
        with pytest.raises(outputs.OutputError, match=said):
            phy.check_sheltered(tmp_path, manual)


@pytest.mark.parametrize("kind", [int, str])
def test_units_made_by_hand_have_ids_that_none_had(tmp_path, kind):
    of = [*map(kind, range(10))]
    as_sorted = NumpySorting.from_samples_and_labels(np.arange(70), np.repeat(of[:7], 10), RATE_HZ)
    as_sorted.set_property("KSLabel", np.array(list("abcdefg")))
    as_sorted.save(folder=tmp_path / "sorting")
    before = as_sorted.remove_units(of[6:7])  # found twice
    steps = [
        {"removed": [of[5]], "merges": [{"unit_ids": of[2:4]}]},
        {"removed": [of[7]], "splits": [{"unit_id": of[4], "indices": [[0, 1]]}]},
        {"merges": [{"unit_ids": of[:2], "new_unit_id": of[5]}, {"unit_ids": of[8:]}]},
    ]
    sorting, found = before, []
    for step in steps:
        place = tmp_path / f"{phy.GUI}.{1 + len(found)}"
        place.mkdir()
        np.save(place / phy.SPIKES, sorting.to_spike_vector())
        made = {"format_version": "2", "unit_ids": sorting.unit_ids.tolist(), **step}
        (place / phy.CURATION).write_text(json.dumps(made))
        sorting = phy.apply_gui(tmp_path, before)
        found.append([*map(int, sorting.unit_ids)])
    assert found == [[0, 1, 4, 7], [0, 1, 8, 9], [10, 11]]
    curated = curation.with_properties(sorting, as_sorted, pd.DataFrame(index=["10", "11"]))
    assert curated.get_property("KSLabel").tolist() == ["", ""]
