"""Samples of real processes; of GPUs, which are not here, by a scripted driver."""

import contextlib
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from spikecanary import sentinel
from spikecanary.supervise import gpus, memory, sample
from spikecanary.supervise.sample import Sampler

#: A process in uninterruptible wait: its vfork child, which shares its memory, sleeps.
STALLED = "import ctypes, time; ctypes.CDLL(None).vfork(); time.sleep(60)"


@pytest.fixture
def watch(tmp_path):
    """Start Python code; return its sampler when it says that it is ready, or after a moment."""
    started = []

    def start(code, **options):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path
        )
        started.append(process)
        time.sleep(0.7)
        return Sampler(process.pid, tmp_path, **options)

    yield start
    for process in started:
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            each.kill()
        process.wait()


def take_for(sampler, seconds, printed=None):
    """Take samples for some seconds; return the last."""
    begin = time.monotonic()
    sample = sampler.take()
    while (elapsed := time.monotonic() - begin) < seconds:
        time.sleep(0.25)
        sample = sampler.take(printed(elapsed) if printed else 0)
    return sample


@pytest.mark.parametrize(
    "code",
    ["import time; time.sleep(60)", "import time\nwhile True: time.sleep(0.05)"],
    ids=["sleeps", "polls"],
)
def test_who_only_waits_is_idle(watch, code):
    sample = take_for(watch(code), 3.0)
    assert 2.5 < sample.idle_s < 4.0
    assert sample.stalled_s < 1.0


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time\nwhile True: open('f', 'wb').write(b'x' * 10**7); time.sleep(0.5)",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])",
    ],
    ids=["computes", "writes", "child computes"],
)
def test_who_works_is_not_idle(watch, code):
    assert take_for(watch(code), 2.0).idle_s < 1.0


def test_who_prints_is_not_idle(watch):
    sampler = watch("import time; time.sleep(60)")
    assert take_for(sampler, 3.0, printed=round).idle_s < 1.5


#: Through a file that is in memory already, as a sorter reads a recording.
READS = (
    "import mmap\nfile = open('recording', 'rb')\nwhile True:\n"
    "    sum(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[::4096])"
)


@pytest.mark.parametrize(
    ("code", "is_silent"),
    [
        ("while True: pass", True),
        ("import random\nwhile True: sorted(random.random() for _ in range(1000))", True),
        (READS, False),
    ],
    ids=["spins", "computes in place", "reads a mapped file"],
)
def test_who_only_computes_is_silent(watch, tmp_path, code, is_silent):
    (tmp_path / "recording").write_bytes(b"x" * 50_000_000)
    sampler = watch(code)
    time.sleep(0.5)  # past its start
    sample = take_for(sampler, 2.0)
    assert sample.idle_s < 1.0
    assert (sample.silent_s > 1.5) == is_silent
    printing = take_for(sampler, 1.0, printed=lambda elapsed: 1 + round(2 * elapsed))
    assert printing.silent_s < 1.0


def test_gpu_that_works_is_not_silent(watch, driver, monkeypatch):
    rates = SimpleNamespace(gpu=40)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda _: rates)
    monkeypatch.setattr(sample, "SLOW_S", 0.5)
    sampler = watch("while True: pass")
    driver[0] = [SimpleNamespace(pid=sampler.pid, usedGpuMemory=1e9)]
    assert take_for(sampler, 2.0).silent_s < 1.0
    driver[0] = []
    assert take_for(sampler, 2.5).silent_s > 1.0


def test_uninterruptible_wait_is_a_stall(watch):
    sample = take_for(watch(STALLED), 3.0)
    assert 2.0 < sample.stalled_s < 4.0


def test_pages_of_mapped_files_are_not_memory_in_use(watch, tmp_path):
    (tmp_path / "recording").write_bytes(b"x" * 300_000_000)
    code = (
        "import mmap, time; file = open('recording', 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "sum(mapped[i] for i in range(0, len(mapped), 4096)); time.sleep(60)"
    )
    assert take_for(watch(code), 1.0).rss_mb < 100


def test_shared_memory_counts_once(watch):
    code = (
        "import mmap, os, time; shared = mmap.mmap(-1, 200_000_000)\n"
        "shared.write(b'x' * 200_000_000)\n"
        "if os.fork() == 0: sum(shared[i] for i in range(0, len(shared), 4096))\n"
        "time.sleep(60)"
    )
    assert 200 < take_for(watch(code), 1.5).rss_mb < 350


def test_pages_of_forked_processes_count_once(watch):
    code = (
        "import os, time; block = bytearray(b'x' * 200_000_000)\n"
        "[os.fork() == 0 and time.sleep(60) for _ in range(3)]; time.sleep(60)"
    )
    assert 200 < take_for(watch(code), 1.5).rss_mb < 350


#: A limit of 2 GB, of which 1.5 GB are in use, 0.9 GB of that by files.
V2 = {
    "memory.max": "2000000000",
    "memory.current": "1500000000",
    "memory.stat": "inactive_file 400000000\nactive_file 500000000\nanon 1",
}
V1 = {
    "memory.limit_in_bytes": "2000000000",
    "memory.usage_in_bytes": "1500000000",
    "memory.stat": "inactive_file 0\ntotal_inactive_file 400000000\ntotal_active_file 500000000",
}


@pytest.mark.parametrize(
    ("own", "groups", "is_limited"),
    [
        ("0::/user.slice/run.scope", {"user.slice": V2}, True),  # of a slice above
        ("0::/", {".": V2}, True),  # as in a container
        ("5:cpu:/x\n4:memory:/docker/0abc\n0::/", {"memory": V1}, True),  # ... by version 1
        ("4:memory:/lab/x", {"memory/lab/x": V1}, True),
        ("0::/user.slice", {"user.slice": V2 | {"memory.max": "max"}}, False),
        ("4:memory:/", {"memory": V1 | {"memory.limit_in_bytes": str(2**63 - 4096)}}, False),
        ("0::/user.slice", {"other.slice": V2}, False),
        (None, {".": V2}, False),  # as on macOS
    ],
)
def test_memory_is_that_of_a_container_or_slice(tmp_path, monkeypatch, own, groups, is_limited):
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "OWN", tmp_path / "own")
    node = SimpleNamespace(available=9e9, total=10e9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: node)
    if own is not None:
        (tmp_path / "own").write_text(f"{own}\n")
    for folder, files in groups.items():
        (tmp_path / "groups" / folder).mkdir(parents=True)
        for name, text in files.items():
            (tmp_path / "groups" / folder / name).write_text(f"{text}\n")
    monkeypatch.setenv(sentinel.RUN_IN, "7 - - -")
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # as in salloc
    assert memory.read() == ((1.4e9, 2e9) if is_limited else (9e9, 10e9))
    monkeypatch.setenv("SLURM_JOB_ID", "8")  # the limit is this job's, and no other's
    assert memory.read() == (9e9, 10e9)


@pytest.mark.parametrize("is_allowed", [True, False])
def test_process_of_macos(is_allowed):
    """There psutil counts page faults, no bytes; memory with mapped files where it may not look."""

    class Process:
        pid = 4_000_000_000  # Linux has none of it
        oneshot = staticmethod(contextlib.nullcontext)
        status = staticmethod(lambda: psutil.STATUS_RUNNING)
        cpu_times = staticmethod(lambda: SimpleNamespace(user=1.0, system=1.0))
        memory_info = staticmethod(lambda: SimpleNamespace(rss=900, vms=1000, pfaults=5000))

        def memory_full_info(self):
            if not is_allowed:
                raise psutil.AccessDenied
            return SimpleNamespace(uss=300)

    counted = sample._count(Process(), is_alone=True)
    assert (counted.faults, counted.own_bytes) == (5000, 300 if is_allowed else 900)


def test_disk(watch, tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 3_000_000)
    (tmp_path / "small").write_bytes(b"x")
    gone = tmp_path / "gone"
    sampler = watch("import time; time.sleep(60)", folders=[gone])
    sample = sampler.take()
    assert sample.disk_mb == pytest.approx(3.0, abs=0.1)
    assert sample.free_mb[str(gone)] is None
    free_mb = psutil.disk_usage(str(tmp_path)).free / 1e6
    assert sample.free_mb[str(tmp_path)] == pytest.approx(free_mb, rel=0.05)


def test_largest_files_are_named(watch, tmp_path):
    for number in range(7):
        (tmp_path / f"file{number}").write_bytes(b"x" * 1_000_000 * (number + 1))
    largest = watch("import time; time.sleep(60)").take().largest
    assert len(largest) == 5
    assert largest[0] == f"{tmp_path}/file6: 7 MB"


def test_child_that_has_ended(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert Sampler(process.pid, tmp_path).take().rss_mb == 0


@pytest.fixture
def driver(monkeypatch):
    """Script what NVIDIA's driver would say of two GPUs."""
    running = {0: [], 1: []}
    answers = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetComputeRunningProcesses": lambda device: running[device],
        "nvmlDeviceGetName": lambda _: "RTX",
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(used=6e9, total=8e9, free=2e9),
        "nvmlDeviceGetTemperature": lambda *_: 71,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    gpus._nvml.cache_clear()
    yield running
    gpus._nvml.cache_clear()


def test_gpu_of_the_tree(watch, driver):
    sampler = watch("import time; time.sleep(60)")
    driver[0] = [SimpleNamespace(pid=1, usedGpuMemory=1e9)]
    driver[1] = [
        SimpleNamespace(pid=1, usedGpuMemory=1e9),
        SimpleNamespace(pid=sampler.pid, usedGpuMemory=4e9),
    ]
    assert sampler.take().gpus == (gpus.Gpu("GPU 1 (RTX)", 6_000.0, 8_000.0, 4_000.0, 71.0),)


def test_gpu_without_figures(watch, driver, monkeypatch):
    def refuse(*_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    sampler = watch("import time; time.sleep(60)")
    driver[0] = [SimpleNamespace(pid=sampler.pid, usedGpuMemory=None)]  # as on Windows
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", refuse)
    assert sampler.take().gpus == (gpus.Gpu("GPU 0 (RTX)", 6_000.0, 8_000.0, 0.0, None),)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", refuse)
    time.sleep(sample.SLOW_S)
    assert sampler.take().gpus == ()


def test_gpu_that_tells_no_memory(watch, driver, monkeypatch):
    """A GPU that shares the host's memory refuses; a virtual one says 0; NaN is no number."""

    def refuse(_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    nan = float("nan")
    answers = [
        refuse,
        lambda _: SimpleNamespace(used=0, total=0, free=0),
        lambda _: SimpleNamespace(used=nan, total=nan, free=nan),
    ]
    for answer in answers:
        monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", answer)
        assert gpus.memories() == []
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", refuse)
    sampler = watch("import time; time.sleep(60)")
    driver[0] = [SimpleNamespace(pid=sampler.pid, usedGpuMemory=None)]
    (gpu,) = sampler.take().gpus
    assert (gpu.total_mb, gpu.temperature_c) == (0.0, 71.0)


def test_cpu_time_that_is_no_number_is_life(watch, monkeypatch):
    sampler = watch("import time; time.sleep(60)")
    real = sample._count
    count = lambda process, **how: replace(real(process, **how), cpu_s=float("nan"))  # noqa: E731
    monkeypatch.setattr(sample, "_count", count)
    assert take_for(sampler, 2.0).idle_s < 1.0


def test_cost_of_polling(watch):
    """Two samples a second take less than 1 % of a core."""
    sampler = watch("import time; time.sleep(60)")
    sampler.take()
    before = time.process_time()
    for _ in range(20):
        sampler.take()
        time.sleep(0.1)
    per_sample_s = (time.process_time() - before) / 20
    print(f"{1000 * per_sample_s:.2f} ms a sample")
    assert 2 * per_sample_s < 0.01
