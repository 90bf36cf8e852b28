"""The sorter's own files: kept whole, read again, never lost."""

import json
import os

import pytest

from spikecanary.sorter import sorteroutput

SETTINGS = {"task": {"sorter": {"name": "kilosort4"}}, "data": 2}


@pytest.fixture
def work(tmp_path):
    """Return a function that writes what a sorter leaves in a work folder."""

    def write(name="work", text="1"):
        folder = tmp_path / name
        (folder / "sorter_output/cache_preprocessing").mkdir(parents=True)
        (folder / "spikeinterface_log.json").write_text("{}")
        (folder / "recording_attributes.json").write_text("{}")
        (folder / "sorter_output/ops.npy").write_text(text)
        (folder / "sorter_output/recording.dat").write_text("a copy")
        (folder / "sorter_output/cache_preprocessing/traces.raw").write_text("a copy")
        return folder

    return write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_kept_without_copies_of_the_data(work, tmp_path):
    sorteroutput.keep(work(), tmp_path, SETTINGS, "4.1.7")
    kept = tmp_path / "sorter_output"
    assert names(kept) == [
        *("ops.npy", "recording_attributes.json", "spikecanary.json", "spikeinterface_log.json")
    ]
    assert sorteroutput.find(tmp_path, SETTINGS) == kept
    assert sorteroutput.find(tmp_path, {"data": 3}) is None
    assert sorteroutput.find(tmp_path / "none", SETTINGS) is None


def test_laid_out_as_spikeinterface_reads_it(work, tmp_path):
    sorteroutput.keep(work(), tmp_path, SETTINGS, None)
    sorteroutput.lay_out(tmp_path / "sorter_output", tmp_path / "again")
    assert names(tmp_path / "again") == [
        *("recording_attributes.json", "sorter_output", "spikeinterface_log.json")
    ]
    assert (tmp_path / "again/sorter_output/ops.npy").read_text() == "1"


def test_replaced_by_the_next_sort(work, tmp_path):
    sorteroutput.keep(work(), tmp_path, SETTINGS, None)
    sorteroutput.keep(work("next", "2"), tmp_path, {"data": 3}, None)
    assert (tmp_path / "sorter_output/ops.npy").read_text() == "2"
    assert not list(tmp_path.glob("sorter_output.*"))
    assert sorteroutput.find(tmp_path, {"data": 3})


@pytest.mark.parametrize("change", ["edited", "added"])
def test_what_a_person_changed_is_never_removed(work, tmp_path, change):
    for number in (1, 2):
        sorteroutput.keep(work(f"work{number}"), tmp_path, SETTINGS, None)
        name = "ops.npy" if change == "edited" else "cluster_group.tsv"
        (tmp_path / "sorter_output" / name).write_text(f"by hand, {number}")
        # Only what the sorter wrote itself has to be as it was to be read again.
        assert bool(sorteroutput.find(tmp_path, SETTINGS)) is (change == "added")
    sorteroutput.keep(work("next", "2"), tmp_path, SETTINGS, None)
    for number in (1, 2):
        aside = tmp_path / f"sorter_output.{number}"
        assert f"by hand, {number}" in [path.read_text() for path in aside.iterdir()]
    assert (tmp_path / "sorter_output/ops.npy").read_text() == "2"


def test_copy_with_other_times_is_the_same(work, tmp_path):
    sorteroutput.keep(work(), tmp_path, SETTINGS, None)
    file = tmp_path / "sorter_output/ops.npy"
    os.utime(file, (5, 5))
    assert sorteroutput.find(tmp_path, SETTINGS)
    file.write_text("2")  # of the same size
    os.utime(file, (9, 9))
    assert sorteroutput.find(tmp_path, SETTINGS) is None


def test_link_to_nowhere_costs_no_sort(work, tmp_path):
    made = work()
    (made / "sorter_output/link").symlink_to("nowhere")
    sorteroutput.keep(made, tmp_path, SETTINGS, "4.1.7")
    assert sorteroutput.find(tmp_path, SETTINGS) == tmp_path / "sorter_output"


def test_sorter_without_a_folder(tmp_path):
    sorteroutput.keep(tmp_path / "work", tmp_path, SETTINGS, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"settings": 1, "files": {}}', "{"])
def test_note_that_somebody_edited_is_none(work, tmp_path, text):
    sorteroutput.keep(work(), tmp_path, SETTINGS, None)
    assert sorteroutput.find(tmp_path, SETTINGS)
    (tmp_path / sorteroutput.NAME / sorteroutput.NOTE).write_text(text)
    assert sorteroutput.find(tmp_path, SETTINGS) is None


def test_which_units_are_read_is_no_reason_to_sort_again(work, tmp_path):
    def with_params(**params):
        return {"task": {"sorter": {"name": "kilosort4", "params": params}}, "data": 2}

    folder = work()
    ran_with = {"sorter_params": {"keep_good_only": True, "artifact_threshold": float("inf")}}
    (folder / "spikeinterface_params.json").write_text(json.dumps(ran_with))
    sorteroutput.keep(folder, tmp_path, with_params(keep_good_only=True), None)
    assert sorteroutput.find(tmp_path, with_params(keep_good_only=False))
    assert sorteroutput.find(tmp_path, SETTINGS)  # without any params
    assert sorteroutput.find(tmp_path, with_params(nblocks=0)) is None

    again = tmp_path / "again"
    sorteroutput.lay_out(tmp_path / "sorter_output", again, keep_good_only=False)
    read = json.loads((again / "spikeinterface_params.json").read_text())["sorter_params"]
    assert read == {"keep_good_only": False, "artifact_threshold": float("inf")}
    assert sorteroutput.find(tmp_path, SETTINGS)  # what is kept is as it was


@pytest.mark.parametrize(
    ("name", "params", "kept"),
    [
        ("combinato", {}, {"ops.npy", "recording.dat", "recording", "recording.h5"}),
        ("mountainsort5", {}, {"ops.npy"}),
        ("kilosort4", {"save_preprocessed_copy": True}, {"ops.npy", "temp_wh.dat"}),
    ],
)
def test_results_are_no_copies(work, tmp_path, name, params, kept):
    made = work() / "sorter_output"
    (made / "recording").mkdir()
    (made / "recording/x.npy").touch()
    for file in ("recording.h5", "temp_wh.dat"):
        (made / file).touch()
    (made / "temp_wh.dat").unlink() if name == "combinato" else None
    sorteroutput.keep(
        made.parent, tmp_path, {"task": {"sorter": {"name": name, "params": params}}}, "1"
    )
    found = {*names(tmp_path / "sorter_output")} - {"cache_preprocessing"}
    assert {each for each in found if not each.endswith(".json")} == kept
