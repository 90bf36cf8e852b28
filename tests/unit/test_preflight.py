"""Checks of the node; container runtimes and full disks by stand-ins at the narrowest seam."""

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import docker
import numpy as np
import pytest
import torch
from spikeinterface.core import NumpyRecording
from spikeinterface.sorters import sorter_dict

from spikecanary import preflight, sorter
from spikecanary.config import CanarySettings, Config, SorterSettings
from spikecanary.failures import (
    ClassifiedSortFailure,
    DiskExhaustionError,
    FolderNotWritableError,
    GPUUnavailableError,
    HDF5PluginMissingError,
    HostMemoryWatchdogError,
    ModelLoadingError,
    SorterParameterError,
    SorterUnavailableError,
)
from spikecanary.failures.classify import classify
from spikecanary.supervise.child import describe_error
from spikecanary.table import Recording
from workbench import ROOT

HEADER = {"dtype": "int16", "n_samples": 1000, "n_channels": 4, "n_probes": 1}


def make_task(reader="nwb", **settings):
    row = Recording(id="x", paths=("/x",), reader=reader)
    return sorter.make_task(row, Config(sorter=SorterSettings(**settings)))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Check the node; return what may keep a sort from it."""
    monkeypatch.setattr(preflight, "MIN_FREE_RAM_MB", 0.0)
    monkeypatch.setattr(preflight, "MIN_FREE_DISK_MB", 0.0)

    def start(task=None, **header):
        return preflight.check_node(task or make_task(), tmp_path, HEADER | header)

    return start


@pytest.fixture
def fail(run):
    """Check the node; return what is certain to keep a sort from it."""

    def start(*given, **header):
        with pytest.raises(ClassifiedSortFailure) as caught:
            run(*given, **header)
        return caught.value

    return start


def test_good_node_takes_less_than_two_seconds(run):
    run()
    started = time.perf_counter()
    assert run() == []
    assert time.perf_counter() - started < 2.0


def test_sorters(fail, monkeypatch):
    assert fail(make_task(name="kilosort2_5")).evidence == {"sorter": "kilosort2_5"}
    failure = fail(make_task(name="nonsense"))
    assert isinstance(failure, SorterUnavailableError)
    assert "kilosort4" in failure.evidence["known"]
    monkeypatch.setattr(sorter_dict["kilosort2_5"], "is_installed", lambda: True)
    assert "kilosort2_5 needs a GPU" in str(fail(make_task(name="kilosort2_5")))


def test_builtin_templates_of_kilosort4(run, fail, monkeypatch, tmp_path):
    import kilosort

    def task(**params):
        return make_task(params={"templates_from_data": False} | params)

    wheel = Path(kilosort.__file__).parent
    assert kilosort.utils.template_path.__defaults__ == ("wTEMP.npz",)
    assert (wheel / "wTEMP.npz").is_file()
    monkeypatch.setenv("KILOSORT_LOCAL_DOWNLOADS_PATH", str(wheel))
    assert run(task()) == []
    wrong = fail(task(nt=81))
    assert wrong.evidence == {"parameter": "nt"}
    assert "have 61 samples, and nt is 81" in str(wrong)
    assert run(task(nt=81, templates_from_data=True)) == []
    monkeypatch.setenv("KILOSORT_LOCAL_DOWNLOADS_PATH", str(tmp_path))
    missing = fail(task())
    assert isinstance(missing, ModelLoadingError)
    assert missing.remedy.startswith("Set the environment variable KILOSORT_LOCAL_DOWNLOADS")
    assert f"={wheel}," in missing.remedy
    (tmp_path / "wTEMP.npz").write_text("<html>")  # of a proxy
    assert "wTEMP.npz, are damaged" in str(fail(task()))
    # Of a home folder, which Kilosort fills from its site; its sort tells if it cannot.
    monkeypatch.delenv("KILOSORT_LOCAL_DOWNLOADS_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert isinstance(fail(task()), ModelLoadingError)  # into a folder that it does not make
    (tmp_path / ".kilosort").mkdir()
    assert run(task()) == []


def test_cuda_asked_for_and_absent(fail):
    failure = fail(make_task(device="cuda"))
    assert isinstance(failure, GPUUnavailableError)
    assert "built without CUDA" in str(failure)
    failure = fail(make_task(device="cuda", container="singularity"))
    assert isinstance(failure, GPUUnavailableError)


def test_pytorch_says_nothing_of_sorters_of_matlab(run, fail, monkeypatch):
    monkeypatch.setattr(sorter_dict["kilosort3"], "is_installed", lambda: True)
    assert "this machine has none" in str(fail(make_task(name="kilosort3", device="cuda")))
    monkeypatch.setattr(preflight.gpus, "count", lambda: 1)
    assert run(make_task(name="kilosort3", device="cuda")) == []


def test_first_kilosort_can_do_without_a_gpu(run, fail, monkeypatch):
    monkeypatch.setattr(sorter_dict["kilosort"], "is_installed", lambda: True)
    assert "needs a GPU" in str(fail(make_task(name="kilosort")))
    assert run(make_task(name="kilosort", device="cpu")) == []
    assert run(make_task(name="kilosort", params={"useGPU": False})) == []


@pytest.mark.parametrize(
    ("offset", "name"), [(32_768, "kilosort3"), (32_768, "kilosort4"), (0, "kilosort3")]
)
def test_samples_that_a_cast_turns_round(offset, name):
    traces = np.random.default_rng(0).normal(0, 50, (30_000, 4))
    recording = NumpyRecording((traces + offset + 300).astype("uint16"), 30_000.0)
    task = make_task(name=name)
    if offset and name == "kilosort3":
        with pytest.raises(SorterParameterError, match="16-bit integers, and samples are 3"):
            preflight.check_whole_numbers(recording, task)
        task = task.model_copy(update={"preprocessing": {"unsigned_to_signed": {}}})
    preflight.check_whole_numbers(recording, task)


def test_gpu_that_pytorch_cannot_use_is_said(run, monkeypatch):
    assert run(make_task(name="kilosort4")) == []
    monkeypatch.setattr(preflight.gpus, "count", lambda: 1)
    (doubt,) = run(make_task(name="kilosort4"))
    assert str(doubt) == (
        "this machine has a GPU, but kilosort4 uses the CPU: this PyTorch is built without CUDA"
    )
    assert run(make_task(name="kilosort4", device="cpu")) == []
    assert run(make_task(name="spykingcircus2")) == []


def test_sorter_that_uses_no_gpu_needs_none(run):
    assert run(make_task(name="spykingcircus2", device="cuda")) == []


def test_other_devices(run, fail, monkeypatch):
    failure = fail(make_task(name="kilosort4", params={"torch_device": "mps"}))
    assert isinstance(failure, GPUUnavailableError)
    assert "mps was asked for" in str(failure)
    assert failure.remedy.startswith("Change the device in sorter.params")
    monkeypatch.setattr(torch.version, "cuda", "12")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert run(make_task(name="kilosort4", params={"torch_device": "cuda:0"})) == []


def test_steps_that_are_switched_off_are_a_warning_or_strictly_a_failure(run, inspect):
    (doubt,) = run(make_task(name="kilosort4", params={"skip_kilosort_preprocessing": True}))
    assert "no step whiten or filter" in str(doubt)
    of = {"name": "kilosort4", "params": {"skip_kilosort_preprocessing": True}}
    found = inspect(8.0, of, min_recording_s=4, window_s=5)
    assert found["notes"][-1].startswith(f"preflight: {doubt}. Change sorter.params")
    with pytest.raises(SorterParameterError, match="no step whiten or filter"):
        inspect(8.0, of, strict=True, min_recording_s=4, window_s=5)


def test_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(FolderNotWritableError):
        preflight._check_folder(tmp_path / "none")


def test_disk(run, fail, monkeypatch):
    free = SimpleNamespace(free=3e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    (doubt,) = run(n_samples=10**9, n_channels=4)
    assert "a copy of the recording" in str(doubt)
    assert run() == []
    monkeypatch.setattr(preflight, "MIN_FREE_DISK_MB", 4000.0)
    assert isinstance(fail(), DiskExhaustionError)


def test_memory(run, monkeypatch):
    monkeypatch.setattr(preflight, "MIN_FREE_RAM_MB", 1e9)
    assert [type(doubt) for doubt in run()] == [HostMemoryWatchdogError]


def test_hdf5_plugin_path(run, fail, monkeypatch, tmp_path):
    monkeypatch.setenv("HDF5_PLUGIN_PATH", "/no/such/folder")
    assert [type(doubt) for doubt in run()] == [HDF5PluginMissingError]
    assert isinstance(fail(make_task(reader="maxwell")), HDF5PluginMissingError)
    monkeypatch.setenv("HDF5_PLUGIN_PATH", f"/no/such{os.pathsep}{tmp_path}")
    assert run() == []


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Put scripted programs on an otherwise empty path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(name):
        path = folder / name
        path.write_text("#!/bin/sh\nexit 0\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


def test_docker(run, fail, on_path, monkeypatch):
    task = make_task(container="docker")
    assert fail(task).evidence == {"reason": "client_missing"}
    on_path("docker")
    monkeypatch.setattr("spikeinterface.sorters.utils.has_docker_python", lambda: False)
    assert "Python package docker" in str(fail(task))
    monkeypatch.setattr("spikeinterface.sorters.utils.has_docker_python", lambda: True)
    for error, reason in (
        (FileNotFoundError(2, "No such file or directory"), "daemon_down"),
        (PermissionError(13, "Permission denied"), "permission_denied"),
    ):

        def refuse(*_, error=error, **__):
            msg = f"Error while fetching server API version: ('Connection aborted.', {error!r})"
            raise docker.errors.DockerException(msg)

        monkeypatch.setattr(docker, "from_env", refuse)
        with pytest.raises(docker.errors.DockerException) as caught:
            run(task)
        assert classify(describe_error(caught.value)).evidence["reason"] == reason


def test_singularity(fail, monkeypatch, tmp_path):
    task = make_task(container="singularity", image=str(tmp_path / "none.sif"))
    monkeypatch.setattr("spikeinterface.sorters.utils.has_singularity", lambda: False)
    assert fail(task).evidence["reason"] == "runtime_missing"
    monkeypatch.setattr("spikeinterface.sorters.utils.has_singularity", lambda: True)
    monkeypatch.setattr("spikeinterface.sorters.utils.has_spython", lambda: False)
    assert fail(task).evidence["reason"] == "client_missing"
    monkeypatch.setattr("spikeinterface.sorters.utils.has_spython", lambda: True)
    assert fail(task).evidence["reason"] == "image_pull_failed"


def test_limits(run):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        (doubt,) = run()
        assert "the limit on open files is 200" in str(doubt)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_values_of_other_types_than_a_plugins_defaults_are_a_warning(run):
    plugin = str(ROOT / "tests/quick_sorter.py")
    (doubt,) = run(make_task(plugin=plugin, name="quick", params={"threshold": "2e-1"}))
    assert "threshold of quick is '2e-1', a text, but it takes a number: write 0.2" in str(doubt)
    assert run(make_task(plugin=plugin, name="quick", params={"threshold": 0.2})) == []


@pytest.fixture
def inspect(write_binary, reader_options, tetrode, tmp_path):
    def start(duration_s, of, *, strict=False, **settings):
        row = Recording(
            id="x",
            paths=(str(write_binary("active", duration_s)),),
            reader="binary",
            reader_options=reader_options,
            probe=str(tetrode),
        )
        plugin = str(ROOT / "tests/quick_sorter.py")
        task = sorter.make_task(row, Config(sorter=SorterSettings(plugin=plugin, **of)))
        return preflight.inspect_recording_and_node(
            task, tmp_path, CanarySettings(**settings), lambda **_: None, strict=strict
        )

    return start


def test_window_of_one_batch_is_made_longer(inspect):
    found = inspect(8.0, {"name": "kilosort4"}, window_s=2, min_recording_s=4)
    assert found["window_s"] == 5.0
    found = inspect(8.0, {"name": "kilosort4", "params": {"batch_size": 30_000}}, window_s=1.5)
    assert "canary.min_recording_s" in found["skip"]
    found = inspect(
        8.0, {"name": "kilosort4", "params": {"batch_size": 120_000}}, window_s=2, min_recording_s=4
    )
    assert found["skip"] == "no canary: 8.00 s are less than 2.5 batches of kilosort4, 10 s"
    assert inspect(8.0, {"name": "quick"}, window_s=2, min_recording_s=4)["window_s"] == 2.0


def test_recording_of_one_batch_is_not_sorted(inspect):
    params = {"batch_size": 240_000}  # all 8 s
    with pytest.raises(SorterParameterError, match="fewer than two batches") as caught:
        inspect(8.0, {"name": "kilosort4", "params": params}, window_s=2, min_recording_s=4)
    assert "batch_size: 96000" in caught.value.remedy


def test_what_a_sorter_cannot_sort_is_told_from_the_header(fail):
    def check(name, header, **params):
        task = make_task(name=name, params=params)
        return list(preflight.check_channels(task, HEADER | header))

    (failure,) = check("kilosort4", {"n_channels": 1})
    assert str(failure) == str(fail(make_task(), n_channels=1))
    assert failure.category == "environment"
    assert "{do_CAR: false, nblocks: 0}} in the config" in failure.remedy
    assert not check("kilosort4", {"n_channels": 1}, do_CAR=False)
    (failure,) = check("simple", {"n_probes": 0})
    assert (
        str(failure) == "simple needs the positions of the channels, and the recording has no probe"
    )
    for name in ("tridesclous2", "spykingcircus2", "lupin"):
        (failure,) = check(name, {"n_probes": 2})
        assert "has 2" in str(failure)
    (failure,) = check("kilosort4", {"n_probes": 0})
    assert "column probe" in failure.remedy
    assert not check("mountainsort5", {"n_probes": 0})


def test_the_check_of_a_matlab_machine_says_what_this_one_lacks(monkeypatch):
    monkeypatch.delenv("KILOSORT2_5_PATH", raising=False)
    script = [sys.executable, str(ROOT / "benchmarks/matlab.py")]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "the sorter kilosort2_5 is not installed on this machine" in done.stdout
