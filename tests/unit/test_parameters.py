"""Parameters of sorters: types, contradictions, steps that are switched off."""

import math
import sys

import numpy as np
import pytest
import yaml
from spikeinterface.core import generate_recording
from spikeinterface.sorters import sorter_dict

from spikecanary import config, inputcheck, sorter
from spikecanary.config import BadInputError, Config, SorterSettings
from spikecanary.sorter import SortTask, parameters
from spikecanary.sorter.registry import MAY_BE_ZERO, defaults_of, find_out_of_range
from spikecanary.table import Recording


@pytest.mark.parametrize(
    ("name", "written", "problem"),
    [
        ("kilosort4", "ccg_threshold: 2e-1", "is '2e-1', a text, but it takes a number: write 0.2"),
        ("kilosort4", "acg_threshold: 1e-7", "write 1.0e-07"),
        ("kilosort4", "batch_size: 6e4", "write 60000"),
        ("kilosort4", "batch_size:", "is null, but it takes a number: leave it out"),
        ("kilosort4", "batch_size: [9, 8]", "is [9, 8], a list, but it takes a number"),
        ("kilosort4", "artifact_threshold: inf", "write .inf"),
        ("kilosort4", "shift: a lot", "is 'a lot', a text, but it takes a number"),
        (
            "kilosort4",
            "do_CAR: 'no'",
            "a text, but it takes a boolean: write a boolean, such as true",
        ),
        ("kilosort4", "do_CAR: 2", "is 2, a number, but it takes a boolean"),
        ("kilosort4", "nt: true", "is True, a boolean, but it takes a number"),
        ("kilosort4", "drift_smoothing: 0.5", "is 0.5, a number, but it takes a list"),
        ("kilosort4", "drift_smoothing: [1, 2e-1, 0]", "drift_smoothing[1] of kilosort4 is '2e-1'"),
        ("kilosort2_5", "projection_threshold: 10", "a number, but it takes a list: write a list"),
        (
            "mountainsort5",
            "scheme: 2",
            "is 2, a number, but it takes a text: write a text, such as '2'",
        ),
        ("spykingcircus2", "general: {radius_um: 1e2}", "general.radius_um of spykingcircus2 is"),
        ("spykingcircus2", "filtering: 300", "a number, but it takes a dict"),
        (
            "tridesclous2",
            "cache_preprocessing_mode: no",
            "is False, a boolean, but it takes a text: write a text, such as auto",
        ),
    ],
)
def test_values_of_the_wrong_type(name, written, problem):
    (found,) = parameters.check_types(name, yaml.safe_load(written))
    assert problem in found


def test_every_default_fits():
    for name in set(sorter_dict) - {"dartsort"}:
        assert list(parameters.check_types(name, defaults_of(name))) == []
    assert defaults_of("dartsort") == {}  # its package, which has them, is missing


@pytest.mark.parametrize(
    ("name", "params"),
    [
        (
            "kilosort4",
            {
                "Th_universal": 8.5,  # a float, where the default is an int
                "duplicate_spike_ms": 0,
                "nblocks": False,
                "do_CAR": 1,
                "max_cluster_subset": None,
                "artifact_threshold": None,
                "use_binary_file": None,
                "shift": None,
                "dmin": 20,
                "bad_channels": [3, 4],
                "torch_device": "cuda:1",
                "n_jobs": 0.5,
                "chunk_duration": 2,
                "drift_smoothing": (0.5, 0.5, 0.5),
                "acg_threshold": np.float32(0.1),
                "batch_size": np.int64(60_000),
                "clear_cache": np.bool_(1),
                "no_such": "thing",  # another check's
            },
        ),
        ("kilosort4", {"artifact_threshold": math.inf, "batch_size": 60_000.0}),
        ("kilosort3", {"NT": 64_000, "delete_tmp_files": False}),
        ("mountainsort4", {"freq_min": None, "freq_max": None, "adjacency_radius": 50.5}),
        ("spykingcircus2", {"seed": None, "matching": {"method": "wobble", "new": [1]}}),
        ("herdingspikes", {"chunk_size": 3, "clustering_n_jobs": 2}),
    ],
)
def test_no_false_alarms(name, params):
    assert list(parameters.check_types(name, params)) == []


def test_values_beyond_the_range_that_kilosort_states():
    params = {"template_sizes": 0, "binning_depth": 0, "nblocks": 2, "do_CAR": False, "dmin": None}
    params |= dict.fromkeys(MAY_BE_ZERO, 0)
    found = find_out_of_range(SorterSettings(name="kilosort4", params=params))
    assert found == {"template_sizes": "1 to inf", "binning_depth": "more than 0 to inf"}
    assert find_out_of_range(SorterSettings(name="simple", params={"nblocks": -1})) == {}


def test_kilosort_without_stated_ranges_hides_no_failure(monkeypatch, tmp_path):
    """An older one: what the sorter raised is told, not that there are no ranges."""
    told = {}

    def fail(*_, **__):
        msg = "of the sorter"
        raise RuntimeError(msg)

    monkeypatch.setattr("spikeinterface.sorters.run_sorter", fail)
    monkeypatch.setitem(sys.modules, "kilosort.parameters", None)
    recording = generate_recording(num_channels=4, durations=[1.0])
    task = SortTask(
        row=Recording(id="a", paths=("a",), reader="binary"),
        sorter=SorterSettings(name="kilosort4", device="cpu"),
    )
    with pytest.raises(RuntimeError, match="of the sorter"):
        sorter._run_sorter(task, recording, tmp_path, lambda **facts: told.update(facts))
    assert "sorter_log" in told
    assert "out_of_range" not in told


def test_device_that_contradicts_a_parameter():
    def problems(device, **settings):
        presets = settings.pop("presets", {})
        return list(parameters.check_device(SorterSettings(device=device, **settings), presets))

    (found,) = problems("cpu", params={"torch_device": "cuda:0"})
    assert "sorter.device is cpu, but sorter.params.torch_device is cuda:0" in found
    (found,) = problems("cuda", params_of={"rtsort": {"device": "cpu"}})
    assert "sorter.params_of.rtsort.device is cpu" in found
    (found,) = problems("cpu", presets={"gpu": {"torch_device": "cuda"}})  # of column params
    assert "but params_of.gpu.torch_device is cuda" in found
    assert problems("cuda", params={"torch_device": "cuda:1"}) == []
    assert problems("cpu", params={"torch_device": "auto"}) == []
    assert problems("auto", params={"torch_device": "mps"}) == []


def test_steps_that_are_switched_off_and_absent():
    def missing(name, params, *steps):
        settings = SorterSettings(name=name, params=params)
        return list(parameters.describe_switched_off(settings, steps))

    skip = {"skip_kilosort_preprocessing": True}
    (found,) = missing("kilosort4", skip, "common_reference")
    assert found == (
        "sorter.params.skip_kilosort_preprocessing is true, and preprocessing has no step whiten "
        "or filter"
    )
    (found,) = missing("kilosort4", skip, "highpass_filter")
    assert found.endswith("no step whiten")
    assert missing("kilosort4", skip, "highpass_filter", "whiten") == []
    assert missing("kilosort4", {}) == []
    assert len(missing("mountainsort5", {"whiten": False})) == 1
    assert missing("simple", {"whiten": False}) == []
    assert len(missing("lupin", {"apply_preprocessing": False})) == 1


def test_switches_are_parameters_of_their_sorters():
    for names, param, value, _ in parameters.SWITCHES:
        for name in names:
            assert defaults_of(name)[param] is not value


def test_presets_reach_the_sort_and_no_other_recording(tmp_path):
    given = {
        "preprocessing": {"whiten": {}},
        "sorter": {"params": {"nblocks": 5, "Th_universal": 8}},
    }
    given["preprocessing_of"] = {"mine": {"whiten": {}, "common_reference": {}}}
    settings = config.load(given)
    plain = Recording(id="x", paths=("a",), reader="mda")
    named = plain.model_copy(
        update={"preprocessing": "neuropixels1", "params": "kilosort4_tetrodes"}
    )
    task = sorter.make_task(named, settings)
    assert list(task.preprocessing) == ["phase_shift", "highpass_filter", "common_reference"]
    assert task.sorter.params == {"nblocks": 0, "Th_universal": 8}
    assert sorter.make_task(plain, settings).as_set()["row"] == task.as_set()["row"]
    assert {*task.as_set()["row"]} == {"id", "paths", "reader"}
    assert sorter.make_task(plain, settings).preprocessing == {"whiten": {}}
    none = plain.model_copy(update={"preprocessing": "none"})
    assert sorter.make_task(none, settings).preprocessing == {}
    read = Config.model_validate(config.as_set(settings))
    assert list(read.preprocessing_of["mine"]) == ["whiten", "common_reference"]
    assert list(read.preprocessing_of) == [*Config().preprocessing_of, "mine"]


def test_presets_that_are_not_there_or_have_bad_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.tsv").write_text(
        "recording\tpath\treader\tpreprocessing\tparams\n"
        "a\tx\tmda\ttetrode\tmine\n"
        "b\tx\tmda\tmine\t\n"
        "c\tx\tmda\t\tnothing\n"
    )
    given = {
        "preprocessing_of": {"mine": {"bandpas_filter": {}}},
        "params_of": {"mine": {"nblock": 0}},
    }
    with pytest.raises(BadInputError) as caught:
        inputcheck.check_inputs(given | {"recordings": "t.tsv"})
    text = "\n".join(caught.value.problems)
    assert "line 2 (recording 'a'), column preprocessing" in text
    assert "'tetrode' (did you mean 'tetrodes'?)" in text
    assert "(recording 'c'), column params: not in the config's params_of: 'nothing'" in text
    assert "preprocessing_of.mine: unknown step 'bandpas_filter'" in text
    assert "params_of.mine (recording 'a'): kilosort4 has no parameter 'nblock'" in text
