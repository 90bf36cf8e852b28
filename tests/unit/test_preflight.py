"""Checks of the node; container runtimes and full disks by stand-ins at the narrowest seam."""

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import docker
import pynvml
import pytest
import torch

from spikecanary import preflight, sorter
from spikecanary.config import CanarySettings, Config, SorterSettings
from spikecanary.failures import SorterParameterError
from spikecanary.supervise import gpus
from spikecanary.table import Recording
from workbench import ROOT

HEADER = {"dtype": "int16", "n_samples": 1000, "n_channels": 4, "n_probes": 1}


def make_task(reader="nwb", **settings):
    row = Recording(id="x", paths=("/x",), reader=reader)
    return sorter.make_task(row, Config(sorter=SorterSettings(**settings)))


def codes(found):
    return {check["code"]: check["level"] for check in found}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "MIN_FREE_RAM_MB", 0.0)
    monkeypatch.setattr(preflight, "MIN_FREE_DISK_MB", 0.0)

    def start(task=None, header=HEADER):
        checks = preflight.check_node(task or make_task(), tmp_path, HEADER | header)
        return [
            {"code": check.code, "level": check.level, "line": check.line(), "error": check.failure}
            | {"failure": type(check.failure).__name__, "message": str(check.failure)}
            | {"evidence": check.failure.evidence, "remedy": check.failure.remedy}
            for check in checks
        ]

    return start


def test_good_node_takes_less_than_two_seconds(run):
    run()
    started = time.perf_counter()
    assert run() == []
    assert time.perf_counter() - started < 2.0


def test_sorters(run):
    (check, gpu) = run(make_task(name="kilosort2_5"))
    assert check["evidence"] == {"sorter": "kilosort2_5"}
    assert "kilosort2_5 needs a GPU" in gpu["message"]
    (check,) = run(make_task(name="nonsense"))
    assert check["failure"] == "SorterUnavailableError"
    assert "kilosort4" in check["evidence"]["known"]


def test_version_that_was_not_tried_is_a_warning_or_strictly_a_failure(run, inspect, monkeypatch):
    monkeypatch.setitem(preflight.TESTED, "kilosort4", ("5.0", "6.0"))
    assert codes(run()) == {"sorter_version": "warn"}
    found = inspect(8.0, {"name": "kilosort4"}, strict=True, min_recording_s=4, window_s=5)
    assert codes(found["preflight"]) == {"sorter_version": "fail"}


@pytest.mark.parametrize("version", ["unknown", "", "4.1.dirty-of-mine", None])
def test_version_that_cannot_be_read_is_a_warning(run, monkeypatch, version):
    monkeypatch.setattr(sorter, "version_of", lambda _: version)
    assert codes(run()) == {"sorter_version": "warn"}


def test_builtin_templates_of_kilosort4(run, monkeypatch, tmp_path):
    import kilosort

    def check(**params):
        found = run(make_task(params={"templates_from_data": False} | params))
        return {each["code"]: each for each in found}

    wheel = Path(kilosort.__file__).parent
    assert kilosort.utils.template_path.__defaults__ == ("wTEMP.npz",)
    assert (wheel / "wTEMP.npz").is_file()
    monkeypatch.setenv("KILOSORT_LOCAL_DOWNLOADS_PATH", str(wheel))
    assert check() == {}
    (wrong,) = check(nt=81).values()
    assert (wrong["code"], wrong["failure"]) == ("nt", "SorterParameterError")
    assert "have 61 samples, and nt is 81" in wrong["message"]
    assert check(nt=81, templates_from_data=True) == {}
    monkeypatch.setenv("KILOSORT_LOCAL_DOWNLOADS_PATH", str(tmp_path))
    (missing,) = check().values()
    assert (missing["level"], missing["failure"]) == ("fail", "ModelLoadingError")
    assert missing["remedy"].startswith("Set the environment variable KILOSORT_LOCAL_DOWNLOADS")
    assert f"={wheel}," in missing["remedy"]
    # Of a home folder, which Kilosort fills from its site.
    monkeypatch.delenv("KILOSORT_LOCAL_DOWNLOADS_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert check()["templates"]["level"] == "fail"  # into a folder that it does not make
    (tmp_path / ".kilosort").mkdir()
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    assert check()["templates"]["level"] == "warn"

    def offline(*_, **__):
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", offline)
    assert check()["templates"]["level"] == "fail"
    assert "osf.io cannot be reached" in check()["templates"]["message"]
    (tmp_path / ".kilosort/wTEMP.npz").touch()
    assert check() == {}


def test_cuda_asked_for_and_absent(run):
    (check,) = run(make_task(device="cuda"))
    assert (check["code"], check["failure"]) == ("device", "GPUUnavailableError")
    assert "built without it" in check["line"]
    assert codes(run(make_task(device="cuda", container="singularity")))["device"] == "fail"


def test_sorter_that_uses_no_gpu_needs_none(run):
    assert run(make_task(name="spykingcircus2", device="cuda")) == []


def test_other_devices(run, monkeypatch):
    (check,) = run(make_task(name="kilosort4", params={"torch_device": "mps"}))
    assert (check["code"], check["failure"]) == ("device", "GPUUnavailableError")
    assert "mps was asked for" in check["message"]
    assert check["remedy"].startswith("Change the device in sorter.params")
    monkeypatch.setattr(torch.version, "cuda", "12")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert run(make_task(name="kilosort4", params={"torch_device": "cuda:0"})) == []
    (check,) = run(make_task(name="kilosort4", params={"torch_device": "cuda:1"}))
    assert "there are 1 GPUs here, numbered from 0" in check["message"]


def test_steps_that_are_switched_off_are_a_warning(run):
    found = run(make_task(name="kilosort4", params={"skip_kilosort_preprocessing": True}))
    assert [(check["code"], check["level"]) for check in found] == [("preprocessing", "warn")]
    assert "no step whiten or filter" in found[0]["message"]


def test_folder_that_cannot_be_written(tmp_path):
    (check,) = preflight._check_folder(tmp_path / "none")
    assert (type(check.failure).__name__, check.level) == ("FolderNotWritableError", "fail")


def test_disk(run, monkeypatch):
    free = SimpleNamespace(free=3e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    large = {"n_samples": 10**9, "n_channels": 4}
    assert codes(run(header=large)) == {"disk": "warn"}
    assert codes(run()) == {}
    monkeypatch.setattr(preflight, "MIN_FREE_DISK_MB", 4000.0)
    assert codes(run()) == {"disk": "fail"}


def test_memory(run, monkeypatch):
    monkeypatch.setattr(preflight, "MIN_FREE_RAM_MB", 1e9)
    assert codes(run()) == {"memory": "warn"}


def test_gpu_memory(run, monkeypatch):
    """No GPU is here: a scripted driver says what it would."""
    assert run() == []
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    gpus._nvml.cache_clear()
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    free = {0: 5e8, 1: 1.5e9}

    def tell(handle):
        return SimpleNamespace(used=0.0, total=8e9, free=free[handle])

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", tell)
    (check,) = run()
    assert (check["code"], check["level"]) == ("vram", "warn")
    assert check["message"].startswith("1500 MB are free on the emptiest GPU")
    assert run(make_task(device="cpu")) == []
    gpus._nvml.cache_clear()


def test_hdf5_plugin_path(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HDF5_PLUGIN_PATH", "/no/such/folder")
    assert codes(run()) == {"hdf5_plugin_path": "warn"}
    assert codes(run(make_task(reader="maxwell"))) == {"hdf5_plugin_path": "fail"}
    monkeypatch.setenv("HDF5_PLUGIN_PATH", f"/no/such{os.pathsep}{tmp_path}")
    assert run() == []


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Put scripted programs on an otherwise empty path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    real = shutil.which

    def which(name, *arguments, **options):
        found = folder / name
        if name in ("docker", "singularity", "apptainer"):
            return str(found) if found.exists() else None
        return real(name, *arguments, **options)

    monkeypatch.setattr(shutil, "which", which)

    def write(name):
        path = folder / name
        path.write_text("#!/bin/sh\nexit 0\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


def test_docker(run, on_path, monkeypatch):
    task = make_task(container="docker")
    (check,) = run(task)
    assert check["evidence"] == {"reason": "client_missing"}
    on_path("docker")
    monkeypatch.setattr("spikeinterface.sorters.utils.has_docker_python", lambda: False)
    assert "Python package docker" in run(task)[0]["message"]
    monkeypatch.setattr("spikeinterface.sorters.utils.has_docker_python", lambda: True)
    for text, reason in (
        ("Connection aborted, No such file", "daemon_down"),
        ("PermissionError(13, 'Permission denied')", "permission_denied"),
    ):

        def refuse(*_, text=text, **__):
            raise docker.errors.DockerException(text)

        monkeypatch.setattr(docker, "from_env", refuse)
        assert run(task)[0]["evidence"]["reason"] == reason


def test_singularity(run, monkeypatch, tmp_path):
    task = make_task(container="singularity", image=str(tmp_path / "none.sif"))
    monkeypatch.setattr("spikeinterface.sorters.utils.has_singularity", lambda: False)
    assert run(task)[0]["evidence"]["reason"] == "runtime_missing"
    monkeypatch.setattr("spikeinterface.sorters.utils.has_singularity", lambda: True)
    monkeypatch.setattr("spikeinterface.sorters.utils.has_spython", lambda: False)
    assert run(task)[0]["evidence"]["reason"] == "client_missing"
    monkeypatch.setattr("spikeinterface.sorters.utils.has_spython", lambda: True)
    assert run(task)[0]["evidence"]["reason"] == "image_pull_failed"


def test_limits(run):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert codes(run()) == {"limits": "warn"}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
            task.model_dump(mode="json"),
            str(tmp_path),
            CanarySettings(**settings).model_dump(mode="json"),
            lambda **_: None,
            strict=strict,
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
    with pytest.raises(SorterParameterError, match="less than two batches") as caught:
        inspect(8.0, {"name": "kilosort4", "params": params}, window_s=2, min_recording_s=4)
    assert "batch_size: 96000" in caught.value.remedy


def test_signal_is_not_read_where_the_node_fails(inspect):
    found = inspect(8.0, {"name": "kilosort2_5"}, window_s=2, min_recording_s=4)
    assert "signals" not in found
    assert codes(found["preflight"])["sorter"] == "fail"


def test_what_a_sorter_cannot_sort_is_told_from_the_header(run):
    def failed(name, header, **params):
        found = [
            c for c in run(make_task(name=name, params=params), header) if c["code"][0] in "pr"
        ]
        return [(check["code"], check["error"]) for check in found]

    ((code, error),) = failed("kilosort4", {"n_channels": 1})
    assert code == "reference"
    assert (error.category, error.remedy) == ("environment", "Set sorter.params: do_CAR: false.")
    assert not failed("kilosort4", {"n_channels": 1}, do_CAR=False)
    for name in ("tridesclous2", "spykingcircus2", "lupin"):
        ((code, error),) = failed(name, {"n_probes": 2})
        assert code == "probes"
        assert "has 2" in str(error)
    ((code, error),) = failed("kilosort4", {"n_probes": 0})
    assert "column probe" in error.remedy
    assert not failed("mountainsort5", {"n_probes": 0})


def test_the_check_of_a_matlab_machine_says_what_this_one_lacks(monkeypatch):
    monkeypatch.delenv("KILOSORT2_5_PATH", raising=False)
    script = [sys.executable, str(ROOT / "benchmarks/matlab.py")]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "the sorter kilosort2_5 is not installed on this machine" in done.stdout
