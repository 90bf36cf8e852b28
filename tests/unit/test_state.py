"""What a recording's records say beside the settings of now."""

import json

import pytest

from spikecanary import reruns, sentinel
from spikecanary.config import Config
from spikecanary.reruns import State
from spikecanary.sentinel import Failure
from spikecanary.table import Recording
from workbench import make_record, stopped


@pytest.fixture
def state(tmp_path):
    """Return a function that looks at one recording anew, with some config."""
    raw = tmp_path / "a.raw"
    raw.write_bytes(b"data")

    def look(**config):
        row = Recording(id="a", paths=(str(raw),), reader="binary")
        return State(Config.model_validate(config), row, tmp_path / "results/a")

    return look


def settings_of(state):
    return {name: value for name, value in state.canary_settings.items() if name != "attempt"}


def write_canary(state, record=None, **config):
    """Write the sentinel of a canary with some config."""
    looked = state(**config)
    record = record or make_record()
    attempt = looked.canary_settings["attempt"]
    made = record.model_copy(update={"settings": settings_of(looked), "attempt": attempt})
    sentinel.write_record(looked.folder / "canary.json", made)
    sentinel.append_journal(looked.folder / "attempts.jsonl", "canary", made)


def write_sort(state, fields=None, **config):
    """Write the record of a sort with some config."""
    looked = state(**config)
    canary = sentinel.read_record(looked.folder / "canary.json")
    made = make_record(
        outcome="sorted",
        settings=looked.sort_settings,
        canary_settings={**canary.settings, "attempt": canary.attempt},
        **(fields or {}),
    )
    sentinel.write_record(looked.folder / "sort.json", made)


def test_settings_of_sorts_do_not_change_while_a_batch_runs(monkeypatch):
    monkeypatch.delenv(reruns.RUN_SETTINGS, raising=False)
    began, limits = Config(), Config.model_validate({"job": {"threads": 2}, "outputs": []})
    edited = [
        Config.model_validate({"sorter": {"params": {"nblocks": 3}}}),
        Config.model_validate({"preprocessing": {"common_reference": {}}}),
        Config.model_validate({"canary": {"bad_periods": "silence"}}),
    ]
    assert not any(reruns.compare_with_run(each, begins=False) for each in edited)
    assert reruns.compare_with_run(began, begins=True) == ""
    assert reruns.compare_with_run(limits, begins=False) == ""
    for each in edited:
        assert "was changed while snakemake runs" in reruns.compare_with_run(each, begins=False)


def test_nothing_on_record(state):
    looked = state()
    assert not looked.sort_stands
    assert looked.canary_is_due
    assert looked.may_proceed
    assert looked.disagreement is None


def test_finished_sort_stands_and_its_canary_is_not_asked_again(state):
    write_canary(state)
    write_sort(state)
    assert state().sort_stands
    other = state(canary={"window_s": 60}, watchdogs={"io_stall_s": 9})
    assert other.sort_stands
    assert not other.canary_is_due
    assert other.canary_settings == state().canary_settings
    assert other.disagreement is None
    (state().folder / "canary.json").rename(state().folder / "away")
    assert not state().canary_is_due  # the sort does without
    (state().folder / "away").rename(state().folder / "canary.json")
    changed = state(sorter={"params": {"nblocks": 0}})
    assert not changed.sort_stands
    assert changed.canary_is_due
    assert changed.disagreement == "sorted with other settings or data"


@pytest.mark.parametrize(
    ("n_tested", "category", "n_units", "doubtful"),
    [
        (3, "biological", 0, True),
        (0, "biological", 0, False),
        (0, None, 0, True),  # its canary saw activity
        (3, None, 2, False),
    ],
)
def test_a_sort_without_units_of_an_active_recording_is_doubtful(
    state, n_tested, category, n_units, doubtful
):
    write_canary(state, make_record(n_units=n_tested))
    failure = Failure(class_name="X", category=category, message="m")
    write_sort(state, {"n_units": n_units, "failure": None if n_units else failure})
    assert state().is_doubtful is doubtful


def test_sorts_of_names_in_upper_case_stand(state):
    """Earlier versions saw no file of them, and noted none."""
    folder = state().folder.parents[1] / "raw"
    folder.mkdir()
    (folder / "CSC1.NCS").write_bytes(b"data")
    row = Recording(id="a", paths=(str(folder),), reader="neuralynx")

    def look(**config):
        return State(Config.model_validate(config), row, folder.parent / "results/a")

    assert look().data is not None
    settings = look().sort_settings | {"data": None}
    record = make_record(outcome="sorted", n_units=3, settings=settings)
    sentinel.write_record(look().folder / "sort.json", record)
    assert look().sort_stands


def test_data_that_are_away(state):
    write_canary(state)
    write_sort(state)
    raw = state().folder.parents[1] / "a.raw"
    raw.rename(raw.with_name("archived"))
    assert state().sort_stands
    (state().folder / "sort.json").unlink()
    assert state().data is None
    assert state().canary_is_due


@pytest.mark.parametrize("category", ["biological", "environment", "resource"])
def test_stopped(state, category):
    write_canary(state, stopped(category))
    final = category == "biological"
    looked = state()
    assert looked.canary_is_due is not final
    assert looked.may_proceed is not final
    assert looked.is_silent is final
    assert looked.canary_settings["attempt"] == int(not final)
    assert looked.disagreement == (None if final else "not tested again")
    write_canary(state, stopped(category))  # tested again
    tested = sentinel.read_record(looked.folder / "canary.json")
    assert tested.attempt == looked.canary_settings["attempt"]
    assert reruns.compare(looked.folder.parent, {"a": looked.expected}, {}) == ""
    other = state(canary={"window_s": 60})
    assert other.canary_is_due
    assert other.disagreement == "tested with other settings or data"
    forced = state(canary={"force": ["a"]})
    assert forced.may_proceed
    assert not forced.is_silent


def test_stop_of_a_recording_that_was_sorted_with_other_settings(state):
    write_canary(state)
    write_sort(state)
    params = {"sorter": {"params": {"nblocks": 0}}}
    write_canary(state, stopped("biological"), **params)
    assert state(**params).disagreement is None
    assert (
        state(**params, canary={"force": ["a"]}).disagreement
        == "sorted with other settings or data"
    )


def test_comparison_names_the_command(state):
    write_canary(state)
    write_sort(state)
    results = state().folder.parent
    expected = {"a": state(sorter={"params": {"nblocks": 0}}).expected}
    text = reruns.compare(results, expected, {})
    assert "1 sorted with other settings or data (a)" in text
    assert text.endswith(f"--forcerun {results}/a/canary.json")
    assert reruns.compare(results, {"a": state().expected}, {}) == ""


def test_defaults_are_no_settings(state):
    shown = state(canary={"window_s": 30}, sorter={"name": "kilosort4", "params": {}})
    assert shown.canary_settings == state().canary_settings
    assert state().canary_settings["settings"] == {
        "version": {"canary": reruns.CANARY_VERSION, "sort": reruns.SORT_VERSION},
        "canary": {},
        "preflight": {},
        "watchdogs": {},
        "forecast": {},
    }
    row = {"id": "a", "paths": [str(state().folder.parents[1] / "a.raw")], "reader": "binary"}
    task = {"row": row, "sorter": {"name": "kilosort4"}, "preprocessing": []}
    assert state().task.as_set() == task


def test_retries_decide_a_canary_and_no_sort(state):
    fewer, plain = state(retry={"gpu_memory_times": 1}), state()
    assert fewer.canary_settings["settings"]["retry"] == {"gpu_memory_times": 1}
    assert fewer.sort_settings == plain.sort_settings


def test_order_of_steps_counts_and_that_of_keys_does_not(state):
    steps = {"common_reference": {}, "bandpass_filter": {"freq_min": 300, "freq_max": 6000}}
    turned = dict(reversed(steps.items()))
    one, other = state(preprocessing=steps), state(preprocessing=turned)
    assert one.sort_settings != other.sort_settings
    read = type(one.task).model_validate(json.loads(json.dumps(one.task.as_set())))
    assert list(read.preprocessing) == list(steps)
    keys = {"freq_max": 6000, "freq_min": 300}
    same = state(preprocessing=steps | {"bandpass_filter": keys})
    assert json.dumps(same.sort_settings) == json.dumps(one.sort_settings)


def test_done_is_what_is_sorted_and_has_all_its_files(state):
    write_canary(state)
    write_sort(state)
    looked = state(outputs=[])
    assert not looked.is_done
    (looked.folder / "sorting").mkdir()
    assert looked.is_done


def test_broken_record_is_as_none_and_says_so(state):
    write_canary(state)
    (state().folder / "canary.json").write_text("{")
    looked = state()
    assert looked.may_proceed
    assert "is not a Spike Canary record" in looked.problem


def test_a_column_without_a_value_is_none_that_nwb_names(state):
    looked = state()
    looked.row.metadata.update({"subject": "m1", "note": ""})
    assert looked.named_row["metadata"] == {"subject": "m1"}
