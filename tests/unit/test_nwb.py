"""NWB of a sorting, and of a session: valid, complete, and read back."""

import shutil
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pynwb
import pytest
import yaml
from nwbinspector import Importance, inspect_nwbfile
from probeinterface import ProbeGroup, generate_multi_shank
from spikeinterface.core import create_sorting_analyzer, load
from spikeinterface.generation import generate_ground_truth_recording

from spikecanary import sentinel
from spikecanary.config import Config, ExportSettings, NwbSettings
from spikecanary.outputs import curation, exports, nwb
from spikecanary.sentinel import Part
from workbench import N_UNITS, ROOT, make_record


@contextmanager
def opened(path):
    with pynwb.NWBHDF5IO(path, "r") as io:
        yield io.read()


@pytest.mark.parametrize("n", N_UNITS)
def test_nwb_is_valid_and_complete(made, n):
    path = made[0] / str(n) / "units.nwb"
    exports.run("nwb", ExportSettings(), path.parent, row=made[2])
    assert pynwb.validate(path=str(path)) == []
    found = [
        message
        for message in inspect_nwbfile(nwbfile_path=path)
        if message.importance.value >= Importance.CRITICAL.value
    ]
    assert found == []
    with opened(path) as file:
        assert file.subject.subject_id == "m1"
        assert file.session_start_time.isoformat() == made[2].metadata["session_start_time"]
        assert len(file.electrodes) == 16
        assert {"rel_x", "rel_y"} <= set(file.electrodes.colnames)
        if n == 0:
            assert file.units is None
            return
        assert len(file.units) == n
        assert list(file.units["label"]) == list(
            curation.read_units(path.with_name("units.tsv"))["label"]
        )
        trains = load(path.with_name("analyzer") / "sorting")
        first = trains.get_unit_spike_train(trains.unit_ids[0])
        assert file.units["spike_times"][0] == pytest.approx(100.0 + first / 25_000.0)


def test_row_that_names_a_subject_alone_is_complete_with_the_settings_of_the_demo(made):
    path, row = made[0] / "1/units.nwb", made[2]
    told = {name: row.metadata[name] for name in ("session_start_time", "subject_id")}
    demo = yaml.safe_load((ROOT / "config/demo/config.yaml").read_text())
    settings = Config.model_validate({"exports": demo["exports"]}).exports
    exports.run("nwb", settings, path.parent, row=row.model_copy(update={"metadata": told}))
    worst = max(x.importance.value for x in inspect_nwbfile(nwbfile_path=path))
    assert worst < Importance.CRITICAL.value


@pytest.mark.parametrize("name", nwb.OWN_COLUMNS)
def test_sorters_property_takes_no_place_of_nwbs_own(made, tmp_path, name):
    folder = shutil.copytree(made[0] / "8", tmp_path / "8")
    curated = load(folder / "curated")
    curated.set_property(name, np.array(list("abcdefgh"))[: len(curated.unit_ids)])
    curated.save(folder=folder / "curated", overwrite=True)
    exports.run("nwb", ExportSettings(), folder, row=made[2])
    with opened(folder / "units.nwb") as file:
        assert [*file.units[f"sorter_{name}"]][:2] == ["a", "b"]
        assert [*map(str, file.units.id[:])] == [*map(str, curated.unit_ids)]


def test_nwb_of_a_session(made, tmp_path, caplog):
    """Two runs, each of two equal probes at once, and a recording that failed."""
    folder, _, row = made
    began = {"8": "10:00:00", "1": "10:00:01", "0": "11:00:00", "0b": "11:00:01"}
    folders = {}
    for n, when in began.items():
        folders[f"rec{n}"] = place = shutil.copytree(folder / n[0], tmp_path / n)
        of_run = {"began": f"2026-01-02T{when}", "lag_s": 50.0 if n == "0b" else 0.0}
        part = Part(file=n, start_sample=0, n_samples=500_000, t_start_s=100.0, **of_run)
        sentinel.write_record(place / "sort.json", make_record(parts=[part], duration_s=20.0))
    more = load(folders["rec8"] / "curated")  # columns that the others lack
    more.set_property("num_spikes_part_2", np.arange(8))
    more.set_property("is_clean", np.arange(8) > 3)
    shutil.rmtree(folders["rec8"] / "curated")
    more.save(folder=folders["rec8"] / "curated")
    rows = [row.model_copy(update={"id": name}) for name in (*folders, "dead")]
    path = tmp_path / "s.nwb"
    write = partial(exports.run_session, "s", settings=NwbSettings(), path=path)
    write(rows, folders=folders)
    assert pynwb.validate(path=str(path)) == []
    with opened(path) as file:
        units = file.units.to_dataframe()
        assert file.identifier == "s"
        assert "without dead, which are not sorted" in file.session_description
        assert len(file.electrodes) == 64
        assert len(file.devices) == 4
        assert list(units["unit_name"]) == [*(f"rec8/{n}" for n in range(8)), "rec1/0"]
        assert units["spike_times"].iloc[0].tolist() == units["spike_times"].iloc[-1].tolist()
        assert list(units["electrodes"].iloc[-1].index) == [*range(16, 32)]
        assert units["num_spikes_part_2"].tolist()[:-1] == [*range(8)]
        assert np.isnan(units["num_spikes_part_2"].iloc[-1])
        assert units["is_clean"].tolist() == ["False"] * 4 + ["True"] * 4 + [""]
        assert units["num_spikes"].dtype.kind == "i"
        epochs = file.epochs.to_dataframe()
        assert epochs["start_time"].tolist() == pytest.approx([100.0, 3700.0])
        assert epochs["file"].tolist() == ["8; 1", "0; 0b"]
    assert "without dead" in caplog.text
    later = {"session_start_time": "2026-01-05T10:00:00"}  # where no header tells
    part = Part(file="0", start_sample=0, n_samples=500_000, t_start_s=100.0)
    sentinel.write_record(folders["rec0"] / "sort.json", make_record(parts=[part]))
    rows = [rows[0], rows[2].model_copy(update={"metadata": later})]
    write(rows, folders=folders)
    with opened(path) as file:
        assert file.epochs["start_time"][1] == pytest.approx(100 + 3 * 86_400)
    write(rows[:1], folders={"rec8": folders["rec8"]})
    with opened(path) as file:  # named as beside others
        assert file.units["unit_name"][0] == "rec8/0"
    write(rows[::-1], folders=folders)
    with opened(path) as file:
        assert file.epochs["file"][:].tolist() == ["8", "0"]  # in the order of time


def test_nwb_says_that_it_guesses_where_nobody_tells_when_a_recording_began(made, caplog):
    def describe(row, began=None, **given):
        part = Part(file="x", start_sample=0, n_samples=9, t_start_s=0.0, began=began)
        one = nwb.Sorted(row, make_record(), [part], analyzer=None, curated=None)
        return nwb.nwb_metadata(one, NwbSettings(**given))

    row = made[2].model_copy(update={"metadata": {}})
    found = describe(row, NWBFile={"lab": "L"}, Subject={"subject_id": "m2"})
    assert found["NWBFile"]["session_start_time"].year >= 2026
    assert (found["NWBFile"]["lab"], found["Subject"]["subject_id"]) == ("L", "m2")
    guess = "session_start_time is not known; the time of the file is taken as a guess"
    assert f"{row.id}: {guess}" in caplog.text
    assert found["NWBFile"]["notes"] == guess
    gone = row.model_copy(update={"paths": ("/no/such",)})
    found = describe(gone)
    assert "the time of the sort is taken" in found["NWBFile"]["notes"]
    caplog.clear()
    # As discover writes it, in a table whose own column is empty here.
    told = row.model_copy(update={"metadata": {"subject": "m3", "subject_id": ""}})
    found = describe(told, "2020-01-02T03:04:05+00:00")
    assert found["Subject"]["subject_id"] == "m3"
    assert found["NWBFile"]["session_start_time"].year == 2020
    assert caplog.text == ""


def test_columns_that_are_nearly_those_of_nwb_are_named():
    columns = ["subject", "SubjectID", "session_start", "species", "cohort", "age"]
    found = list(nwb.near_misses(columns))
    assert found == [
        f"column {wrong!r} is not in NWB: did you mean {right!r}?"
        for wrong, right in (
            ("SubjectID", "subject_id"),
            ("session_start", "session_start_time"),
        )
    ]


def test_nwb_has_all_probes_and_groups(tmp_path):
    recording, sorting = generate_ground_truth_recording(
        durations=[5.0], num_channels=8, num_units=3, seed=1
    )
    group = ProbeGroup()
    for number in range(2):
        probe = generate_multi_shank(num_shank=2, num_columns=1, num_contact_per_column=2)
        probe.move([number * 2000.0, 0.0])
        probe.set_device_channel_indices(np.arange(4) + 4 * (1 - number))
        probe.name = "p/q"
        group.add_probe(probe)
    recording.set_probegroup(group)
    analyzer = create_sorting_analyzer(sorting, recording)
    path = tmp_path / "units.nwb"
    part = Part(file="x.raw", start_sample=0, n_samples=125_000, t_start_s=0.0)
    metadata = {"NWBFile": {"session_start_time": datetime(2026, 1, 2, tzinfo=UTC)}}
    sorting = sorting.rename_units([7, 3, 12])
    one = nwb.Sorted(None, make_record(), [part], analyzer, sorting)
    nwb.write_nwb([one], metadata, path)
    with opened(path) as file:
        assert set(file.devices) == {"p_q", "p_q 2"}
        assert len(file.electrode_groups) == 4
        of_probe = [each.device.name for each in file.electrodes["group"][:]]
        assert of_probe == ["p_q 2"] * 4 + ["p_q"] * 4
        assert (file.electrodes["rel_x"][:4] >= 2000.0).all()
        assert list(file.electrodes["rel_x"][:]) == list(analyzer.get_channel_locations()[:, 0])
        assert list(file.units.id[:]) == [7, 3, 12]
