"""Sorters: settings of one recording, device, plugins, one sort."""

import gc
import sys

import pytest
from spikeinterface.core import generate_recording, load
from spikeinterface.sorters import sorter_dict

from spikecanary import sorter
from spikecanary.config import Config, SorterSettings
from spikecanary.failures import DependencyError, SorterUnavailableError
from spikecanary.sorter import NoGoodUnitsError, SortTask, registry, sorteroutput
from spikecanary.table import Recording
from workbench import ROOT

PLUGIN = str(ROOT / "tests/quick_sorter.py")


def make_row(**fields):
    return Recording(**{"id": "x", "paths": ("/x",), "reader": "nwb"} | fields)


def test_sorters_that_use_no_gpu_are_those_of_spikeinterface():
    """It says so of dartsort too, which runs on PyTorch, and may use one."""
    capable = {name for name, cls in sorter_dict.items() if cls.gpu_capability != "not-supported"}
    assert {*sorter_dict} - capable - {"dartsort"} == {*registry.CPU_SORTERS}


def test_settings_of_a_recording():
    settings = SorterSettings(
        name="kilosort4",
        params={"nblocks": 0},
        params_of={"simple": {"apply_motion_correction": False}},
        plugin=PLUGIN,
    )
    own = sorter.settings_for("kilosort4", settings)
    assert (own.name, own.params, own.plugin) == ("kilosort4", {"nblocks": 0}, None)
    other = sorter.settings_for("simple", settings)
    assert other.params == {"apply_motion_correction": False}
    plugged = sorter.settings_for("quick", settings)
    assert (plugged.params, plugged.plugin) == ({}, PLUGIN)


def test_task_leaves_out_what_decides_nothing():
    plain = sorter.make_task(make_row(), Config())
    noted = sorter.make_task(make_row(metadata={"subject": "m1"}, line=3), Config())
    assert plain == noted


def test_canary_task_is_a_clone():
    task = sorter.make_task(make_row(), Config())
    canary = task.model_copy(update={"window_s": (5.0, 35.0)})
    assert canary.window_s == (5.0, 35.0)
    assert task.window_s is None
    assert canary.digest() == task.digest()


@pytest.mark.parametrize(
    ("name", "params", "smaller"),
    [
        ("kilosort4", {}, {"batch_size": 30_000}),
        (
            "kilosort4",
            {"batch_size": 20_001, "Th_learned": 7},
            {"batch_size": 10_000, "Th_learned": 7},
        ),
        ("kilosort4", {"batch_size": 6_000}, {"batch_size": 5_000}),
        ("kilosort4", {"batch_size": 5_000}, None),
        ("kilosort2", {"NT": None}, {"NT": 32_768}),
        ("kilosort2_5", {"NT": 65_600}, {"NT": 32_768}),
        ("kilosort3", {}, {"NT": 32_768}),
        ("spykingcircus2", {}, None),
    ],
)
def test_less_memory(name, params, smaller):
    settings = SorterSettings(name=name, params=params)
    task = sorter.make_task(make_row(), Config(sorter=settings))
    reduced = task.with_less_memory(0.5)
    assert (reduced.sorter.params if reduced else None) == smaller
    assert task.sorter.params == params


@pytest.mark.parametrize("value", [None, [9, 8], "6e4", "", float("inf"), 0])
def test_what_is_no_number_is_taken_for_the_default(value):
    task = SortTask(
        row=make_row(), sorter=SorterSettings(name="kilosort4", params={"batch_size": value})
    )
    assert task.batch_s(30_000.0) == 2.0
    assert task.with_less_memory(0.5).sorter.params == {"batch_size": 30_000}


def test_recording_of_one_batch_cannot_be_sorted():
    def check(n_samples, name="kilosort4", **params):
        task = SortTask(row=make_row(), sorter=SorterSettings(name=name, params=params))
        return task.check_length(n_samples, 30_000.0)

    error = check(60_060)
    assert str(error).startswith("60,060 samples are fewer than two batches of kilosort4")
    assert error.remedy.startswith(
        "Set params_of: {x: {batch_size: 24024}} in the config, and x in its column params. Or"
    )
    assert error.category == "environment"
    assert check(60_061) is None
    assert check(60_060, batch_size=24_024) is None
    assert check(15_060, batch_size=15_000)
    assert check(15_061, batch_size=15_000) is None
    assert check(165_060, batch_size=15_000, batch_downsampling=6)
    assert check(165_061, batch_size=15_000, batch_downsampling=6) is None
    assert "too short for any batch_size" in check(3_000).remedy
    assert check(3_000, skip_kilosort_preprocessing=True) is None  # nothing is whitened
    assert check(3_000, name="spykingcircus2") is None


@pytest.mark.parametrize(
    ("steps", "n_samples", "is_enough"),
    [
        ({"resample": {"resample_rate": 60_000}}, 30_031, True),
        ({"resample": {"resample_rate": 60_000}}, 30_030, False),
        ({"decimate": {"decimation_factor": 2}}, 120_000, False),
        ({"bandpass_filter": {}, "decimate": {"decimation_factor": 2}}, 120_122, True),
    ],
)
def test_length_is_that_of_what_the_sorter_is_handed(steps, n_samples, is_enough):
    task = SortTask(row=make_row(), sorter=SorterSettings(), preprocessing=steps)
    assert (task.check_length(n_samples, 30_000.0) is None) is is_enough
    assert task.batch_s(30_000.0) == (1.0 if "resample" in steps else 4.0)


@pytest.fixture
def kilosort(tmp_path, write_binary, reader_options, tetrode):
    """Return a function that sorts so many samples with Kilosort 4 on the CPU, in a folder."""

    def sort(n_samples, name, finished=None, **params):
        folder = tmp_path / name
        folder.mkdir()
        path = tmp_path / f"{n_samples}.raw"
        path.write_bytes(write_binary("active", 8.0).read_bytes()[: n_samples * 4 * 2])
        row = make_row(
            paths=(str(path),), reader="binary", reader_options=reader_options, probe=str(tetrode)
        )
        params = {"batch_size": 15_000, "nblocks": 0} | params
        settings = SorterSettings(name="kilosort4", device="cpu", params=params)
        task = SortTask(row=row, sorter=settings)
        return sorter.sort(task, folder, lambda **_: None, finished)

    return sort


@pytest.mark.medium
def test_kilosort_needs_two_batches(kilosort):
    """Where the boundary lies follows the installed Kilosort."""
    with pytest.raises(Exception, match="contained non-finite values"):
        kilosort(15_060, "one")
    assert kilosort(15_061, "two")["n_units"] >= 0


@pytest.mark.medium
def test_sort_without_a_good_unit_is_read_when_all_are_wanted(kilosort, tmp_path):
    strict = {"acg_threshold": 1e-12}
    with pytest.raises(NoGoodUnitsError, match=r"no unit is labelled good\. Set sorter.params"):
        kilosort(120_000, "good", **strict, keep_good_only=True)
    sorteroutput.keep(tmp_path / "good/sorter", tmp_path, {"task": {}}, None)
    kept = tmp_path / "sorter_output"
    with pytest.raises(NoGoodUnitsError):
        kilosort(120_000, "again", kept, **strict, keep_good_only=True)
    assert kilosort(120_000, "all", kept, **strict)["n_units"] > 0
    assert len(load(tmp_path / "all/sorting").unit_ids) > 0


def test_digest_follows_what_decides():
    digests = {
        sorter.make_task(make_row(), config).digest()
        for config in (
            Config(),
            Config(sorter=SorterSettings(params={"nblocks": 0})),
            Config(sorter=SorterSettings(device="cpu")),
            Config(preprocessing={"common_reference": {}}),
        )
    }
    assert len(digests) == 4


def test_device():
    defaults = sorter_dict["kilosort4"].default_params()
    cpu = SorterSettings(device="cpu")
    simple = SorterSettings(name="simple", device="cpu")
    assert registry.with_device(defaults, cpu) == {"torch_device": "cpu"}
    assert registry.with_device(defaults, SorterSettings()) == {}
    assert registry.with_device(sorter_dict["simple"].default_params(), simple) == {}
    said = SorterSettings(device="cpu", params={"torch_device": "cuda:1"})
    assert registry.with_device(defaults, said) == {"torch_device": "cuda:1"}
    assert registry.asked_device(said) == "cuda:1"
    assert registry.asked_device(cpu) == "cpu"


def test_sorters_of_spikeinterface_are_known_without_it():
    assert set(sorter_dict) <= registry.BUILT_IN


def test_device_parameters_still_exist():
    assert "device" in sorter_dict["rtsort"].default_params()
    for name, param in registry.DEVICE_PARAM_OF.items():
        assert param in sorter_dict[name].default_params()


@pytest.mark.parametrize("text", ["raise RuntimeError('no licence')", "exit('no licence')", "x ="])
def test_plugin_that_fails_when_it_is_imported(tmp_path, text):
    (tmp_path / "plug.py").write_text(text)
    with pytest.raises(
        SorterUnavailableError, match=r"plug\.py fails when it is imported: "
    ) as err:
        registry.load_plugin(tmp_path / "plug.py")
    assert err.value.category == "environment"


def test_plugin_registers_its_sorters():
    assert "quick" in registry.load_plugin(PLUGIN)
    assert registry.sorter_class("quick").get_sorter_version() == "1.0"


def test_last_class_of_a_name_counts(tmp_path):
    text = "from spikeinterface.sorters import BaseSorter\n"
    text += "class _Base(BaseSorter):\n    sorter_name = 'of_the_lab'\n"
    (tmp_path / "plug.py").write_text(f"{text}class Better(_Base):\n    pass\n")
    assert registry.load_plugin(tmp_path / "plug.py") == ["of_the_lab"]
    assert sorter_dict.pop("of_the_lab").__name__ == "Better"


def test_plugins_that_do_not_load(tmp_path):
    with pytest.raises(DependencyError, match="does not exist"):
        registry.load_plugin(tmp_path / "none.py")
    (tmp_path / "broken.py").write_text("import no_such_module_of_mine\n")
    with pytest.raises(DependencyError, match="cannot be imported") as caught:
        registry.load_plugin(tmp_path / "broken.py")
    assert caught.value.evidence == {"module": "no_such_module_of_mine"}


def test_sorters_that_are_not_there():
    with pytest.raises(SorterUnavailableError, match=r"did you mean 'kilosort4'"):
        registry.sorter_class("kilosrt4")
    with pytest.raises(SorterUnavailableError, match="kilosort2_5 is not installed"):
        registry.sorter_class("kilosort2_5")
    assert registry.sorter_class("kilosort2_5", container=True).sorter_name == "kilosort2_5"


def test_container_arguments():
    assert sorter.container_arguments(SorterSettings()) == {}
    docker = SorterSettings(container="docker")
    assert sorter.container_arguments(docker) == {"docker_image": True}
    own = SorterSettings(container="singularity", image="ks4.sif")
    assert sorter.container_arguments(own) == {"singularity_image": "ks4.sif"}


def test_sort_of_a_window(tmp_path, write_binary, reader_options):
    stages, facts = [], {}
    task = SortTask(
        row=make_row(
            paths=(str(write_binary("active", 8.0)),),
            reader="binary",
            reader_options=reader_options,
        ),
        sorter=SorterSettings(name="quick", plugin=PLUGIN),
        preprocessing={"common_reference": {}},
        window_s=(1.0, 3.0),
    )

    def tell(**told):
        stages.extend([told["stage"]] if "stage" in told else [])
        facts.update(told)

    result = sorter.sort(task, tmp_path, tell)
    assert gc.get_freeze_count() > 0  # copying for the sorter is slow otherwise
    gc.unfreeze()
    assert stages == ["load", "preprocess", "sort", "read", "save"]
    assert facts["header"]["duration_s"] == 8.0
    assert facts["sorter_version"] == "1.0"
    assert facts["sorter_params"]["threshold"] == 5.0  # a default
    assert facts["sorter_ended_well"] is True
    sorting = load(tmp_path / "sorting")
    assert result["n_units"] == len(sorting.unit_ids) == 4
    assert result["n_spikes"] == sorting.count_total_num_spikes()
    assert sorting.to_spike_vector()["sample_index"].max() < 60_000
    assert (result["n_before"], result["n_beyond"]) == (0, 0)


def test_empty_sorting(tmp_path):
    sorteroutput.save_empty(tmp_path / "sorting", 19_753.774)
    sorting = load(tmp_path / "sorting")
    assert (len(sorting.unit_ids), sorting.sampling_frequency) == (0, 19_753.774)


@pytest.mark.parametrize("has_numba", [True, False])
def test_time_of_compilation_is_told_where_numba_is_there(has_numba, monkeypatch, tmp_path):
    import numba

    compiled = numba.njit(lambda x: x + 1)

    def run(*_, **__):
        return compiled(1) if has_numba else None

    monkeypatch.setattr("spikeinterface.sorters.run_sorter", run)
    if not has_numba:  # or it does not go with the installed numpy
        monkeypatch.setitem(sys.modules, "numba.core", None)
    task = SortTask(row=make_row(), sorter=SorterSettings(name="kilosort4", device="cpu"))
    told = {}
    recording = generate_recording(num_channels=4, durations=[1.0])
    sorter._run_sorter(task, recording, tmp_path, lambda **facts: told.update(facts))
    assert told["sorter_ended_well"]
    assert (told.get("compile_s", 0.0) > 0.0) is has_numba
