"""What is made of a sorting, on seeded ones of eight, one and no units: each opened by its tool."""

import json
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
from phylib.io.model import load_model
from scipy.io import loadmat
from spikeinterface.core import NumpySorting, create_sorting_analyzer, load, load_sorting_analyzer

from spikecanary import outputs, sentinel, sorter
from spikecanary.config import AnalysisSettings, Config, ExportSettings
from spikecanary.outputs import analysis, curation, exports, phy
from spikecanary.sentinel import Part
from spikecanary.table import Recording
from workbench import N_UNITS, make_record

CONFIG = Config()


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
