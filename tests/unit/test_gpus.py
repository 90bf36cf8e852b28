"""Leases of GPUs, by a scripted driver of four and real processes."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from spikecanary.supervise import gpus

#: What stands in for NVIDIA's library: four GPUs, of which the third is the emptiest.
NVML = """
from types import SimpleNamespace

class NVMLError(Exception):
    pass

def nvmlInit():
    pass

def nvmlDeviceGetCount():
    return 4

def nvmlDeviceGetHandleByIndex(index):
    return index

def nvmlDeviceGetHandleByUUID(uuid):
    if uuid != "MIG-1":
        raise NVMLError
    return uuid

def nvmlDeviceGetUUID(device):
    return device if isinstance(device, str) else f"GPU-{device}abc"

def nvmlDeviceGetName(device):
    return "RTX"

def nvmlDeviceGetComputeRunningProcesses(device):
    return []

def nvmlDeviceGetMemoryInfo(device):
    return SimpleNamespace(total=8e9, free=6e9 if device == 2 else 4e9, used=2e9)
"""
LEASE = """
import os, sys
from spikecanary.supervise import gpus
gpus.lease(int(sys.argv[1]), sys.argv[2])
print(os.environ.get("CUDA_VISIBLE_DEVICES"), gpus.count(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a process which leases GPUs, and holds them."""
    (tmp_path / "pynvml.py").write_text(NVML)
    running = []

    def start(wanted=1, device="auto", **environment):
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", LEASE, str(wanted), device],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": path, **environment},
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def shown(process):
    return process.stdout.readline().split()


def test_each_job_has_one_of_its_own(start):
    first = [shown(start()) for _ in range(4)]
    assert first[0] == ["GPU-2abc", "1"]  # the emptiest
    assert sorted(name for name, _ in first) == [f"GPU-{index}abc" for index in range(4)]


def test_lease_ends_with_its_process(start):
    holders = [start() for _ in range(4)]
    names = [shown(each)[0] for each in holders]
    waiting = start()
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=2)
    holders[1].kill()
    assert shown(waiting) == [names[1], "1"]


def test_two_at_once_or_none(start):
    three = [start(2), start()]
    names = {name for each in three for name in shown(each)[0].split(",")}
    assert len(names) == 3
    waiting = start(2)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=2)
    assert shown(start())[0] not in names  # the last one was not held meanwhile


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["1", "1"]),  # as a scheduler gives one
        ({"CUDA_VISIBLE_DEVICES": "1,3"}, ["GPU-1abc", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-0,GPU-3a"}, ["GPU-0abc", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "MIG-1,MIG-9"}, ["MIG-1,MIG-9", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "3,9,0"}, ["3,9,0", "1"]),  # CUDA reads up to what is wrong
        ({"CUDA_VISIBLE_DEVICES": ""}, ["0"]),
    ],
)
def test_what_is_visible_is_obeyed(start, environment, expected):
    assert shown(start(**environment)) == expected


def test_what_is_no_lease(start):
    assert shown(start(0)) == ["None", "4"]
    assert shown(start(1, "cuda:1")) == ["None", "4"]


@pytest.mark.parametrize(
    ("question", "lost", "expected"),
    [
        ("UUID", (0, 1, 2, 3), ["None", "4"]),  # an empty name would hide them from the sorter
        ("UUID", (2,), ["GPU-0abc", "1"]),
        ("HandleByIndex", (2,), ["GPU-0abc", "1"]),
        ("MemoryInfo", (0, 1, 2, 3), ["GPU-0abc", "1"]),
        ("Count", (), ["None", "0"]),
    ],
)
def test_driver_that_does_not_answer_all(start, tmp_path, question, lost, expected):
    name = f"nvmlDeviceGet{question}"
    refusing = f"""
def {name}(*about, ask={name}):
    if not about or about[0] in {lost}:
        raise NVMLError
    return ask(*about)
"""
    (tmp_path / "pynvml.py").write_text(NVML + refusing)
    assert shown(start()) == expected


#: What the driver tells where the first GPU is for the screen.
SMALL = """
def nvmlDeviceGetMemoryInfo(device):
    return SimpleNamespace(total=24e9 if device else 2e9, free=2e9, used=0)
"""


def test_small_gpu_beside_large_ones_is_leased_where_it_is_named(start, tmp_path):
    (tmp_path / "pynvml.py").write_text(NVML + SMALL)
    assert {shown(start())[0] for _ in range(3)} == {"GPU-1abc", "GPU-2abc", "GPU-3abc"}
    assert shown(start(0)) == ["None", "3"]  # so as many jobs run at a time
    assert shown(start(CUDA_VISIBLE_DEVICES="0")) == ["0", "1"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, [["0", "1"], ["1", "1"]]),  # CUDA's own numbers
        (
            {"CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            [["GPU-0abc", "1"], ["GPU-1abc", "1"]],
        ),
        ({"CUDA_VISIBLE_DEVICES": "GPU-0,GPU-1"}, [["GPU-0abc", "1"], ["GPU-1abc", "1"]]),
    ],
)
def test_numbers_of_gpus_of_several_kinds(start, tmp_path, environment, expected):
    kinds = "def nvmlDeviceGetName(device): return f'RTX {device}'"
    (tmp_path / "pynvml.py").write_text(NVML + kinds)
    assert [shown(start(**environment)) for _ in range(2)] == expected


def test_memory_of_all_counts_where_a_number_may_be_of_any(monkeypatch):
    driver = {"__name__": "driver"}
    exec(NVML + SMALL + "def nvmlDeviceGetName(device): return str(device)", driver)
    monkeypatch.setattr(gpus, "_nvml", lambda: SimpleNamespace(**driver))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert max(each.total for each in gpus.memories()) == 24e9
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert [each.total for each in gpus.memories()] == [2e9]


def test_folder_of_leases_that_cannot_be_used(start, tmp_path):
    (tmp_path / "spikecanary-gpus").write_text("")
    assert shown(start()) == ["None", "4"]


@pytest.mark.medium
def test_jobs_of_a_workstation(project, tmp_path, monkeypatch):
    """Two recordings, four GPUs: as many jobs at a time, none on the GPU of another."""
    (tmp_path / "pynvml.py").write_text(NVML)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    project.config["sorter"]["params"] = {"sleep_s": 4.0}
    project.config["canary"] = {"window_s": 0}
    for name in "ab":
        project.add(name)
    run = project.run()
    assert run.returncode == 0, run.output
    assert 'gpu=Resource("gpu", 4)' in run.output
    logs = [(project.folder / f"logs/sort/{name}.log").read_text() for name in "ab"]
    assert len({re.search(r"this job uses (GPU-\d)abc", log)[1] for log in logs}) == 2
