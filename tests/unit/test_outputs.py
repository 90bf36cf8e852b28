"""What is made of a sorting, on seeded ones of eight, one and no units: each opened by its tool."""

import json
import shutil
from datetime import UTC, datetime
from functools import partial

import h5py
import numpy as np
import pandas as pd
import pynwb
import pytest
from nwbinspector import Importance, inspect_nwbfile
from phylib.io.model import load_model
from PIL import Image
from probeinterface import ProbeGroup, generate_multi_shank
from scipy.io import loadmat
from spikeinterface.core import NumpySorting, create_sorting_analyzer, load, load_sorting_analyzer
from spikeinterface.generation import generate_ground_truth_recording

from spikecanary import outputs, sentinel, sorter
from spikecanary.config import AnalysisSettings, Config, ExportSettings, NwbSettings
from spikecanary.outputs import analysis, curation, exports, figures, nwb, phy
from spikecanary.sentinel import Part, Window
from spikecanary.table import Recording
from workbench import make_record, stopped

N_UNITS = (8, 1, 0)
CONFIG = Config()
#: A row with all that NWB wants to know.
METADATA = {
    "session_start_time": "2026-01-02T03:04:05+00:00",
    "subject_id": "m1",
    "species": "Mus musculus",
    "sex": "F",
    "age": "P90D",
    "experimenter": "Doe, Jane",
    "cohort": "x",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Analyze and curate the three sortings; return the folder of each and the task."""
    folder = tmp_path_factory.mktemp("outputs")
    recording, sorting = generate_ground_truth_recording(
        durations=[20.0], num_channels=16, num_units=8, seed=7
    )
    recording.save(folder=folder / "recording", dtype="int16")
    row = Recording(
        id="x", paths=(str(folder / "recording"),), reader="spikeinterface", metadata=METADATA
    )
    task = sorter.make_task(row, CONFIG).model_copy(update={"n_jobs": 1})
    for n in N_UNITS:
        place = folder / str(n)
        sorting.select_units(sorting.unit_ids[:n]).save(folder=place / "sorting")
        part = Part(file="x.raw", start_sample=0, n_samples=500_000, t_start_s=100.0)
        sentinel.write_record(place / "sort.json", make_record(parts=[part]))
        analysis.run(task, CONFIG.analysis, place)
        curation.run(CONFIG.curation, place)
    return folder, task, row


def export(made, n, name, settings=CONFIG.exports):
    folder, _, row = made
    path = folder / str(n) / outputs.FILES[name]
    exports.run(name, settings, folder / str(n), row=row)
    assert [each.name for each in (folder / str(n)).glob(".*")] == []
    return path.parent if name == "phy" else path


@pytest.mark.parametrize("n", N_UNITS)
def test_analyzer_and_units(made, n):
    folder = made[0] / str(n)
    analyzer = load_sorting_analyzer(folder / "analyzer")
    assert analyzer.get_num_units() == n
    assert analyzer.return_in_uV
    assert analyzer.has_recording()
    wanted = set(CONFIG.analysis.extensions) - set(analysis.OF_SPIKES if n == 0 else ())
    assert set(analyzer.get_loaded_extension_names()) == wanted
    units = curation.read_units(folder / "units.tsv")
    assert len(units) == n
    assert {"label", "reasons", "bombcell_label", "depth_um", "peak_channel", "snr"} <= set(units)
    if n == 8:
        assert analyzer.is_sparse()
        truth = load(folder / "sorting")
        assert units["num_spikes"].sum() <= truth.count_total_num_spikes()
        assert units["depth_um"].between(-50, 250).all()
        assert (units["label"] == "good").sum() >= 4


def test_share_of_isi_violations_is_of_intervals(made):
    units = curation.read_units(made[0] / "8" / "units.tsv")
    expected = units["isi_violations_count"] / (units["num_spikes"] - 1)
    assert units["isi_violations_share"].to_numpy() == pytest.approx(expected.to_numpy())


def test_duplicates_are_removed(made):
    sorting = load(made[0] / "8" / "sorting")
    train = sorting.get_unit_spike_train(sorting.unit_ids[0])
    from spikeinterface.core import NumpySorting

    twice = {
        "a": np.sort(np.concatenate([train, train[:50] + 3])),
        "b": train[: int(0.95 * len(train))],
        "c": sorting.get_unit_spike_train(sorting.unit_ids[1]),
    }
    found = analysis.without_duplicates(
        NumpySorting.from_unit_dict(twice, sorting.sampling_frequency), CONFIG.analysis
    )
    assert list(found.unit_ids) == ["a", "c"]
    assert len(found.get_unit_spike_train("a")) == len(train)
    off = AnalysisSettings(duplicated_spikes_ms=None, redundant_units=None)
    kept = analysis.without_duplicates(
        NumpySorting.from_unit_dict(twice, sorting.sampling_frequency), off
    )
    assert kept.count_total_num_spikes() == sum(map(len, twice.values()))


def test_phy_opens_it(made):
    folder = export(made, 8, "phy", ExportSettings(phy={"copy_binary": True}))
    model = load_model(folder / "params.py")
    units = curation.read_units(folder.parent / "units.tsv")
    assert (model.n_templates, model.n_spikes) == (8, units["num_spikes"].sum())
    assert list(model.metadata["group"].values()) == list(units["label"])
    assert model.traces.shape[1] == 16


@pytest.fixture
def place(made, tmp_path):
    """Copy the results of eight units."""
    return shutil.copytree(made[0] / "8", tmp_path / "8", symlinks=True)


def test_the_same_sort_gives_the_same_metrics(made, place):
    before = (place / "metrics.tsv").read_bytes()
    analysis.run(made[1], CONFIG.analysis, place)
    assert (place / "metrics.tsv").read_bytes() == before


def sort_anew(place):
    """Put another sorting into its place, of other spikes."""
    load(place / "sorting").frame_slice(7, None).save(folder=place / "later")
    shutil.rmtree(place / "sorting")
    (place / "later").rename(place / "sorting")


def test_phy_folder_of_an_earlier_sort_is_refused(made, place):
    folder = place / "phy"
    folder.mkdir(exist_ok=True)
    spikes = load(place / "sorting").to_spike_vector()
    np.save(folder / "spike_times.npy", spikes["sample_index"])
    phy.check_of_sort(folder, load(place / "sorting"))
    sort_anew(place)
    analyze = partial(analysis.run, made[1], CONFIG.analysis)
    for step in (analyze, partial(curation.run, CONFIG.curation)):
        with pytest.raises(outputs.OutputError, match=r"earlier sort.*To keep.*To drop"):
            step(place, by_hand=["phy"])


def test_curations_of_the_gui_are_applied(made, place):
    def save(**curation):
        folder = place / "analyzer" / phy.GUI
        phy.shelter(place)  # as a run does, so that the GUI has its folder again
        folder.mkdir(exist_ok=True)
        assert folder.is_symlink()  # so Snakemake removes the analyzer without it
        units = [str(unit) for unit in load_sorting_analyzer(place / "analyzer").unit_ids]
        options = {"label_options": ["good", "noise", "MUA"], "exclusive": True}
        given = {"format_version": "2", "unit_ids": units, **curation}
        cells = {"label_options": ["pyramidal", "PV"], "exclusive": True}
        tags = {"label_options": ["drifts", "bursts"], "exclusive": False}
        given["label_definitions"] = {"quality": options, "cell": cells, "tags": tags}
        (folder / phy.CURATION).write_text(json.dumps(given))
        find = partial(phy.look_for_work, place, "x", "gui")
        assert find(dry=True) == find(dry=False) != {}

    def label(unit, what):
        return {"unit_id": unit, "labels": {"quality": [what]}}

    before = curation.read_units(place / "units.tsv")
    analyze = partial(analysis.run, made[1], CONFIG.analysis, place)
    save(
        merges=[{"unit_ids": ["0", "1"], "new_unit_id": "both"}],
        removed=["2"],
        manual_labels=[label("3", "MUA"), label("4", "noise")],
    )
    with pytest.raises(outputs.OutputError, match=r"SpikeInterface's GUI.*manual: gui"):
        analyze()
    analyze(by_hand=["gui"])
    shutil.rmtree(place / f"{phy.GUI}.1")  # dropped, and made anew
    further = {"cell": ["PV"], "tags": ["drifts", "bursts"]}
    save(manual_labels=[label("3", "good"), {"unit_id": "5", "labels": further}])
    shutil.rmtree(place / "analyzer")  # as Snakemake does before the job
    (place / "sorting").rename(place / "before")
    shutil.copytree(place / "before", place / "sorting")
    sort_anew(place)
    with pytest.raises(outputs.OutputError, match="on other units"):
        analyze(by_hand=["gui"])
    shutil.rmtree(place / "sorting")
    (place / "before").rename(place / "sorting")
    analyze(by_hand=["gui"])
    curation.run(CONFIG.curation, place)
    units = curation.read_units(place / "units.tsv")
    assert set(units.index) == {"both", "3", "4", "5", "6", "7"}
    assert units.loc["both", "num_spikes"] == before.loc[["0", "1"], "num_spikes"].sum()
    assert units["label"].to_dict() == {
        "both": units.loc["both", "label"],
        "3": "good",
        "4": "noise",
        **{unit: before.loc[unit, "label"] for unit in "567"},
    }
    curated = load(place / "curated")
    assert curated.get_property("gui_label").tolist().count("") == 4
    for name, labels in {"gui_cell": "pv", "gui_tags": "drifts, bursts"}.items():
        assert units.loc["5", name] == labels
        assert [each for each in curated.get_property(name) if each] == [labels]


def test_spikes_beyond_the_end_are_no_reason_to_refuse_a_curation(made, place):
    sorting = load(place / "sorting")
    vector = sorting.to_spike_vector().copy()
    vector["sample_index"][-1] = 1_000_000_000
    shutil.rmtree(place / "sorting")
    made_of = NumpySorting(vector, sorting.sampling_frequency, sorting.unit_ids)
    made_of.save(folder=place / "sorting")
    analysis.run(made[1], CONFIG.analysis, place)
    units = [str(unit) for unit in sorting.unit_ids]
    given = {"format_version": "2", "unit_ids": units, "label_definitions": {}, "removed": ["2"]}
    (place / "analyzer" / phy.GUI / phy.CURATION).write_text(json.dumps(given))
    analysis.run(made[1], CONFIG.analysis, place, by_hand=["gui"])
    assert load_sorting_analyzer(place / "analyzer").get_num_units() == 7


@pytest.mark.parametrize("name", ["phy", "report"])
def test_no_units_is_said_in_a_folder(made, name):
    folder = export(made, 0, name)
    assert "no units" in (folder / "README.txt").read_text()


@pytest.mark.parametrize("n", N_UNITS)
def test_nwb_is_valid_and_complete(made, n):
    path = export(made, n, "nwb")
    assert pynwb.validate(path=str(path)) == []
    found = [
        message
        for message in inspect_nwbfile(nwbfile_path=path)
        if message.importance.value >= Importance.CRITICAL.value
    ]
    assert found == []
    with pynwb.NWBHDF5IO(path, "r") as io:
        file = io.read()
        assert file.subject.subject_id == "m1"
        assert file.session_start_time.isoformat() == METADATA["session_start_time"]
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


def test_nwb_of_a_session(made, tmp_path, caplog):
    """Two recordings of equal probes that were made at once, a later run, and one that failed."""
    folder, _, row = made
    began = {"8": "2026-01-02T10:00:00", "1": "2026-01-02T10:00:01", "0": "2026-01-02T11:00:00"}
    folders = {}
    for n, when in began.items():
        folders[f"rec{n}"] = place = shutil.copytree(folder / n, tmp_path / n)
        part = Part(file=n, start_sample=0, n_samples=500_000, t_start_s=100.0, began=when)
        sentinel.write_record(place / "sort.json", make_record(parts=[part], duration_s=20.0))
    more = load(folders["rec8"] / "curated")  # columns that the others lack
    more.set_property("num_spikes_part_2", np.arange(8))
    more.set_property("is_clean", np.arange(8) > 3)
    shutil.rmtree(folders["rec8"] / "curated")
    more.save(folder=folders["rec8"] / "curated")
    rows = [row.model_copy(update={"id": name}) for name in (*folders, "dead")]
    path = tmp_path / "s.nwb"
    exports.run_session("s", rows, CONFIG.exports.nwb, folders=folders, path=path)
    assert pynwb.validate(path=str(path)) == []
    with pynwb.NWBHDF5IO(path, "r") as io:
        file = io.read()
        units = file.units.to_dataframe()
        assert file.identifier == "s"
        assert "without dead, which are not sorted" in file.session_description
        assert len(file.electrodes) == 48
        assert len(file.devices) == 3
        assert list(units["unit_name"]) == [*(f"rec8/{n}" for n in range(8)), "rec1/0"]
        assert units["spike_times"].iloc[0].tolist() == units["spike_times"].iloc[-1].tolist()
        assert list(units["electrodes"].iloc[-1].index) == [*range(16, 32)]
        assert units["num_spikes_part_2"].tolist()[:-1] == [*range(8)]
        assert np.isnan(units["num_spikes_part_2"].iloc[-1])
        assert units["is_clean"].tolist() == ["False"] * 4 + ["True"] * 4 + [""]
        assert units["num_spikes"].dtype.kind == "i"
        starts = file.epochs.to_dataframe()["start_time"]
        assert starts.tolist() == pytest.approx([100.0, 100.0, 3700.0])
    assert "without dead" in caplog.text
    assert "days apart" not in caplog.text
    later = {"session_start_time": "2026-01-05T10:00:00"}  # where no header tells
    part = Part(file="0", start_sample=0, n_samples=500_000, t_start_s=100.0)
    sentinel.write_record(folders["rec0"] / "sort.json", make_record(parts=[part]))
    rows = [rows[0], rows[2].model_copy(update={"metadata": later})]
    exports.run_session("s", rows, CONFIG.exports.nwb, folders=folders, path=path)
    with pynwb.NWBHDF5IO(path, "r") as io:
        file = io.read()
        assert "began up to 3 days apart" in file.session_description
        assert file.epochs["start_time"][1] == pytest.approx(100 + 3 * 86_400)
    alone = {"rec8": folders["rec8"]}
    exports.run_session("s", rows[:1], CONFIG.exports.nwb, folders=alone, path=path)
    with pynwb.NWBHDF5IO(path, "r") as io:  # named as beside others
        assert io.read().units["unit_name"][0] == "rec8/0"
    exports.run_session("s", rows[::-1], CONFIG.exports.nwb, folders=folders, path=path)
    with pynwb.NWBHDF5IO(path, "r") as io:
        assert io.read().epochs["file"][:].tolist() == ["8", "0"]  # in the order of time


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


@pytest.mark.parametrize("n", N_UNITS)
def test_numpy_and_matlab_hold_the_same_spikes(made, n):
    with np.load(export(made, n, "npz")) as arrays:
        spikes = dict(arrays)
    of_matlab = loadmat(export(made, n, "mat"))
    units = curation.read_units(made[0] / str(n) / "units.tsv")
    assert list(spikes["unit_ids"]) == list(units.index)
    assert list(spikes["unit_labels"]) == list(units["label"])
    assert (spikes["t_start_s"], list(spikes["part_files"])) == (100.0, ["x.raw"])
    assert len(spikes["spike_times_s"]) == (units["num_spikes"].sum() if n else 0)
    assert (np.diff(spikes["spike_times_s"]) >= 0).all()
    assert of_matlab["spike_samples"].ravel().tolist() == spikes["spike_samples"].tolist()
    assert of_matlab["spike_units"].ravel().tolist() == (spikes["spike_units"] + 1).tolist()
    assert [str(each[0]) for each in of_matlab["unit_labels"].ravel()] == list(units["label"])


def test_report_of_spikeinterface(made):
    folder = export(made, 8, "report")
    assert len(pd.read_csv(folder / "quality metrics.csv")) == 8
    assert len(list((folder / "units").glob("*.png"))) == 8


def test_report_of_units_that_no_file_can_be_named_after(made, tmp_path):
    sorting = load(made[0] / "8/sorting").select_units(["0", "1"]).rename_units(["a/b", "7"])
    analyzer = create_sorting_analyzer(sorting, load(made[0] / "recording"), sparse=True)
    analyzer.compute({"random_spikes": {"seed": 0}, "templates": {}, "unit_locations": {}})
    exports.write_report(analyzer, tmp_path / "report")
    found = {path.name for path in (tmp_path / "report/units").iterdir()}
    assert found == {"a%2Fb.png", "7.png"}


@pytest.mark.parametrize("n", N_UNITS)
def test_figures(made, n):
    folder, task, _ = made
    place = folder / str(n)
    figures.run(task, CONFIG.analysis, CONFIG.curation, place, n_pages=2)
    of_all = {"probe", "signal_map", "traces_filtered", "traces_raw"}
    of_units = {"amplitudes", "drift", "metrics", "templates", "raster"} if n else set()
    of_units |= {"autocorrelograms", "crosscorrelograms"} if n else set()
    drawn = list((place / "figures").glob("*.png"))
    assert {path.stem for path in drawn} == of_all | of_units
    pages = list((place / "figures/units").iterdir())
    assert len(pages) == min(n, 2)
    for path in [*drawn, *pages]:
        with Image.open(path) as picture:
            assert len(picture.convert("L").getcolors(10_000)) > 10, f"{path} is empty"


def test_templates_of_one_channel_are_drawn(tmp_path, caplog):
    recording, sorting = generate_ground_truth_recording(
        durations=[5.0], num_channels=1, num_units=2, seed=0
    )
    analyzer = create_sorting_analyzer(sorting, recording, sparse=False)
    analyzer.compute(["random_spikes", "waveforms", "templates"])
    ids = [str(unit) for unit in analyzer.unit_ids]
    units = pd.DataFrame({"depth_um": 0.0, "label": "good", "reasons": ""}, index=ids)
    draw = figures.draw_units(analyzer, units, CONFIG.curation, 0)["templates"]
    figures.save(draw, "templates", tmp_path / "templates.png", "uV")
    assert (tmp_path / "templates.png").exists()
    assert caplog.text == ""


def test_canary_figure(made, tmp_path):
    _, task, _ = made
    window = Window(start_s=3.0, end_s=6.0, why="leading", ended="no spikes")
    record = stopped("biological").model_copy(update={"windows": [window]})
    sentinel.write_record(tmp_path / "canary.json", record)
    path = tmp_path / outputs.CANARY_FIGURE
    figures.draw_canary(task, CONFIG.analysis, tmp_path / "canary.json", path)
    with Image.open(path) as picture:
        assert picture.width > 600
    gone = task.model_copy(update={"row": task.row.model_copy(update={"paths": ("/no/such",)})})
    figures.draw_canary(gone, CONFIG.analysis, tmp_path / "canary.json", path)
    with Image.open(path) as picture:
        assert picture.height < 300


def test_what_is_saved_in_phy_during_an_export_stays(made, place, monkeypatch):
    def write(*_):
        (place / "phy/cluster_note.tsv").write_text("cluster_id\tnote\n")
        return phy_write(*_)

    def export_phy():
        exports.run("phy", CONFIG.exports, place, task=made[1], analyzed_with=CONFIG.analysis)

    export_phy()
    phy_write = phy.write
    monkeypatch.setattr(phy, "write", write)
    with pytest.raises(outputs.OutputError, match=r"cluster_note.tsv.*not exported anew"):
        export_phy()
    assert (place / "phy/cluster_note.tsv").exists()


def test_export_that_fails_leaves_what_was_there(made):
    path = export(made, 1, "npz")
    before = path.read_bytes()

    def fail():
        with outputs.appears_whole(path, "x") as new:
            new.write_bytes(b"half")
            raise RuntimeError("full disk")

    with pytest.raises(RuntimeError, match="full disk"):
        fail()
    assert path.read_bytes() == before
    assert list(path.parent.glob(".x-*")) == []


def test_recording_without_probe_and_gain(write_binary, reader_options):
    plain = {k: v for k, v in reader_options.items() if not k.endswith("_to_uV")}
    row = Recording(
        id="x",
        paths=(str(write_binary()),),
        reader="binary",
        reader_options=plain,
    )
    recording = analysis.open_filtered(sorter.make_task(row, CONFIG), CONFIG.analysis)
    places = recording.get_channel_locations()
    assert np.diff(places[:, 1]).tolist() == [analysis.NO_PROBE_PITCH_UM] * 3
    assert recording.has_scaleable_traces()
    assert recording.get_channel_gains().tolist() == [1.0] * 4


def test_units_are_wanted_with_any_other_output():
    assert outputs.wanted([]) == []
    assert outputs.wanted(["npz"]) == ["units", "npz"]
    assert outputs.last([]) == ["sort.json"]
    assert outputs.last(["phy"]) == ["units.tsv", "phy/.exported"]
    assert outputs.all_files([]) == ["sorting", "sort.json"]
    assert outputs.all_files(["npz"])[:4] == ["sorting", "sort.json", "analyzer", "metrics.tsv"]
    assert outputs.all_files(["npz"])[4:] == ["curated", "units.tsv", "spikes.npz"]


def test_nwb_file_is_hdf5(made):
    with h5py.File(export(made, 1, "nwb")) as file:
        assert "units" in file


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
    with pynwb.NWBHDF5IO(path, "r") as io:
        file = io.read()
        assert set(file.devices) == {"p_q", "p_q 2"}
        assert len(file.electrode_groups) == 4
        of_probe = [each.device.name for each in file.electrodes["group"][:]]
        assert of_probe == ["p_q 2"] * 4 + ["p_q"] * 4
        assert (file.electrodes["rel_x"][:4] >= 2000.0).all()
        assert list(file.electrodes["rel_x"][:]) == list(analyzer.get_channel_locations()[:, 0])
        assert list(file.units.id[:]) == [7, 3, 12]


def test_curated_sorting_has_the_columns_of_sorter_and_curation(made):
    place = made[0] / "8"
    given = load(place / "sorting")
    curated, units = load(place / "curated"), curation.read_units(place / "units.tsv")
    assert [str(unit) for unit in curated.unit_ids] == list(units.index)
    assert {*given.get_property_keys(), *units.columns} == set(curated.get_property_keys())
    assert list(curated.get_property("label")) == list(units["label"])
    assert list(curated.get_property("snr")) == pytest.approx(list(units["snr"]))
    assert len(load(made[0] / "0" / "curated").unit_ids) == 0


def test_unit_ids_are_texts_everywhere(tmp_path):
    path = tmp_path / "units.tsv"
    path.write_text(
        "unit\tlabel\treasons\tsnr\nNA\tgood\t\t\n007\tmua\tNA\t4.5\na/b c\tgood\t\t5\n"
    )
    units = curation.read_units(path)
    assert list(units.index) == ["NA", "007", "a/b c"]
    assert units["snr"].isna().to_list() == [True, False, False]


def test_parts_are_counted_and_saved(made):
    place = made[0] / "8"
    sorting = load(place / "curated")
    half = 250_000
    parts = [
        Part(file="a", start_sample=0, n_samples=half, t_start_s=0.0),
        Part(file="b", start_sample=half, n_samples=half, t_start_s=30.0),
    ]
    counts = curation.count_by_part(sorting, parts)
    assert counts.sum(axis=1).to_list() == list(
        curation.read_units(place / "units.tsv")["num_spikes"]
    )
    train = sorting.get_unit_spike_train(sorting.unit_ids[0])
    assert counts.iloc[0].to_list() == [(train < half).sum(), (train >= half).sum()]
    found = exports.spikes(sorting, parts)
    assert found["part_t_start_s"].tolist() == [0.0, 30.0]
    assert found["part_start_samples"].tolist() == [0, half]


def test_waveforms_do_not_span_joins_of_parts(made):
    sorting = load(made[0] / "8/sorting")
    rate_hz, join = sorting.sampling_frequency, 250_000
    before, after = (round(ms * rate_hz / 1000) for ms in (1.0, 2.0))
    near = np.array([join - after, join - after + 1, join, join + before - 1, join + before])
    sorting = NumpySorting.from_unit_dict({"a": near, "b": near[:1] - 9}, rate_hz)
    sorting.set_property("KSLabel", ["x", "y"])
    parts = [Part(file="a", start_sample=at, n_samples=join, t_start_s=0.0) for at in (0, join)]
    left = analysis.without_joins(sorting, parts, CONFIG.analysis)
    assert left.get_unit_spike_train("a").tolist() == [near[0], near[-1]]
    assert left.get_property("KSLabel").tolist() == ["x", "y"]
    assert analysis.without_joins(sorting, parts[:1], CONFIG.analysis) is sorting


def test_analysis_leaves_out_spikes_at_joins(made, place):
    spikes = load(place / "sorting").to_spike_vector()["sample_index"]
    starts = (0, int(spikes[len(spikes) // 2]))
    parts = [Part(file="a", start_sample=at, n_samples=1, t_start_s=0.0) for at in starts]
    sentinel.write_record(place / "sort.json", make_record(parts=parts))
    shutil.rmtree(place / "analyzer")
    analysis.run(made[1], CONFIG.analysis, place)
    analyzed = load(place / "analyzer", load_extensions=False).sorting.to_spike_vector()
    assert starts[1] not in analyzed["sample_index"]
    assert len(spikes) - 50 < len(analyzed) < len(spikes)


@pytest.mark.parametrize(
    ("x_um", "depth_um", "kept"),
    [(0, 60, True), (19, 60, True), (21, 60, False), (0, 139, True), (0, -662, False)],
)
def test_place_beyond_the_probe_is_missing(x_um, depth_um, kept):
    contacts = np.array([[0.0, 20.0 * number] for number in range(7)])
    # Of three dimensions, two contacts at each place, one behind the other.
    behind = np.array([[x, y, z] for x, y in contacts for z in (0.0, 25.0)])
    table = pd.DataFrame({"x_um": [float(x_um)], "depth_um": [float(depth_um)]})
    for each in (contacts, behind):
        found = analysis.without_far_places(table.copy(), each)
        assert found["depth_um"].notna().to_list() == [kept]
        assert found["x_um"].notna().to_list() == [kept]
