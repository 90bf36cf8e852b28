"""Watchdogs: one sample in; nothing, a warning or a failure out."""

import pytest

from spikecanary import sentinel
from spikecanary.config import WatchdogSettings
from spikecanary.failures import ClassifiedSortFailure
from spikecanary.sentinel import SCHEDULERS
from spikecanary.supervise import watchdogs
from spikecanary.supervise.gpus import Gpu
from spikecanary.supervise.job import job_limit
from spikecanary.supervise.watchdogs import Sample, make_watchdogs

LIMITS = {"inactivity_s": 120.0, "wall_s": 3600.0, "mem_mb": 1000.0}
WARNING = "a warning"
MEMORY = "HostMemoryWatchdogError"
NAN = float("nan")


def gpu(used_mb=100.0, temperature_c=40.0):
    return Gpu("GPU 0 (X)", used_mb, 8000.0, used_mb / 2, temperature_c)


def judge(sample, settings=None, limits=LIMITS):
    """Return what all watchdogs say of a sample: names of failures, or that it is a warning."""
    found = [dog(sample) for dog in make_watchdogs(settings or WatchdogSettings(), **limits)]
    return [
        type(each).__name__ if isinstance(each, ClassifiedSortFailure) else WARNING
        for each in found
        if each is not None
    ]


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (Sample(), []),
        (Sample(idle_s=120.0), []),
        (Sample(idle_s=120.6), ["SorterTimeoutError"]),
        (Sample(silent_s=360.0), []),
        (Sample(silent_s=361.0), ["SorterTimeoutError"]),
        # Idle by now, which has its own limit; users may have switched that off.
        (Sample(silent_s=450.0, idle_s=100.0), []),
        (Sample(elapsed_s=3600.5), ["SorterTimeoutError"]),
        (Sample(rss_mb=899.0), []),
        (Sample(rss_mb=900.0), [WARNING]),
        (Sample(rss_mb=1000.0), ["HostMemoryWatchdogError"]),
        (Sample(rss_mb=600.0, total_ram_mb=1_000.0, free_ram_mb=5_000.0), []),
        (Sample(rss_mb=600.0, total_ram_mb=1_000.0, free_ram_mb=4_999.0), [WARNING]),
        (Sample(rss_mb=600.0, total_ram_mb=1_000.0, free_ram_mb=499.0), [MEMORY]),
        # A node of 1 TB, 95.2 % of it used by others.
        (Sample(rss_mb=800.0, total_ram_mb=1e6, free_ram_mb=48_000.0), []),
        (Sample(rss_mb=800.0, total_ram_mb=1e6, free_ram_mb=100.0), []),
        (Sample(free_mb={"/a": 6_000.0, "/b": 5_000.0}), []),
        (Sample(free_mb={"/a": 6_000.0, "/b": 4_999.0}), [WARNING]),
        (Sample(free_mb={"/a": 6_000.0, "/b": 499.0}), ["DiskExhaustionError"]),
        (Sample(free_mb={"/a": None, "/b": 6_000.0}), ["FolderNotWritableError"]),
        (Sample(gpus=(gpu(),)), []),
        (Sample(gpus=(gpu(), gpu(used_mb=7_700.0))), [WARNING]),
        # 99.2 % reserved by PyTorch's allocator, as in a healthy sort.
        (Sample(gpus=(gpu(used_mb=7_936.0),)), [WARNING]),
        (Sample(gpus=(gpu(temperature_c=86.0),)), [WARNING]),
        (Sample(gpus=(gpu(temperature_c=99.0),)), [WARNING]),
        (Sample(gpus=(gpu(temperature_c=None),)), []),
        # What a driver, a container or a virtual machine does not tell.
        (Sample(gpus=(Gpu("GPU 0 (vGPU)", 0.0, 0.0, 0.0, None),)), []),
        (Sample(gpus=(gpu(used_mb=NAN, temperature_c=NAN),)), []),
        (Sample(rss_mb=NAN, free_ram_mb=NAN), []),
        (Sample(rss_mb=600.0, total_ram_mb=0.0, free_ram_mb=0.0), []),
        (Sample(rss_mb=600.0, total_ram_mb=NAN, free_ram_mb=0.0), []),
        (Sample(rss_mb=NAN, total_ram_mb=1_000.0, free_ram_mb=0.0), []),
        (Sample(free_mb={"/a": NAN}), []),
        (Sample(free_mb={"/a": NAN, "/b": 499.0}), ["DiskExhaustionError"]),
        (Sample(elapsed_s=NAN, idle_s=NAN, silent_s=NAN, stalled_s=NAN), []),
        (Sample(stalled_s=300.0), []),
        (Sample(stalled_s=301.0), ["IOStallError"]),
    ],
)
def test_one_sample(sample, said):
    assert judge(sample) == said


def test_gpus_end_a_sort_only_where_asked_for():
    asked = WatchdogSettings(gpu_memory_abort_percent=99, gpu_abort_c=95)
    full = Sample(gpus=(gpu(used_mb=7_936.0),))
    assert judge(full, asked) == ["GpuMemoryWatchdogError"]
    assert judge(Sample(gpus=(gpu(temperature_c=95.0),)), asked) == ["GpuThermalWatchdogError"]


def test_limits_below_those_of_a_warning_count():
    low = WatchdogSettings(gpu_memory_abort_percent=50, gpu_abort_c=60)
    assert judge(Sample(gpus=(gpu(used_mb=3_900.0, temperature_c=59.0),)), low) == []
    hot = Sample(gpus=(gpu(used_mb=4_100.0, temperature_c=61.0),))
    assert judge(hot, low) == ["GpuMemoryWatchdogError", "GpuThermalWatchdogError"]


def test_each_can_be_switched_off():
    off = ("inactivity_base_s", "min_free_ram_mb", "min_free_disk_mb", "io_stall_s")
    settings = WatchdogSettings(**dict.fromkeys(off))
    worst = Sample(
        elapsed_s=1e6,
        rss_mb=1e6,
        idle_s=1e6,
        silent_s=3e6,
        stalled_s=1e6,
        free_ram_mb=0.0,
        total_ram_mb=1e6,
        free_mb={"/a": 0.0},
        gpus=(gpu(used_mb=8_000.0, temperature_c=120.0),),
    )
    job = {"inactivity_s": 1.0}
    assert judge(worst, settings, job) == [WARNING, WARNING]  # of the GPU
    assert judge(Sample(free_mb={"/a": None}), settings, job) == ["FolderNotWritableError"]
    assert judge(Sample(silent_s=1e6), WatchdogSettings(silence_times=None)) == []
    assert len(judge(worst)) == 9


def test_failure_of_the_disk_lists_the_largest_files():
    full = Sample(free_mb={"/w": 1.0}, disk_mb=20.0, largest=("/w/big: 19 MB",))
    failure = watchdogs.check_free_disk(full, limit=500.0)
    assert failure.evidence == {"path": "/w", "free_mb": 1.0, "largest": ["/w/big: 19 MB"]}
    assert str(failure) == (
        "1 MB free for /w, 20 MB used by this sort; 500 MB are to stay free "
        "(watchdogs.min_free_disk_mb)"
    )


@pytest.mark.parametrize(
    ("window_s", "limit_s"), [(10.0, 120.0), (30.0, 120.0), (60.0, 240.0), (600.0, 300.0)]
)
def test_inactivity_of_a_canary(window_s, limit_s):
    assert watchdogs.canary_inactivity_s(window_s) == limit_s


@pytest.mark.parametrize(
    ("duration_s", "limit_s"), [(0.0, 600.0), (600.0, 700.0), (36_000.0, 3_600.0)]
)
def test_inactivity_of_a_full_sort(duration_s, limit_s):
    assert watchdogs.inactivity_limit_s(WatchdogSettings(), duration_s) == limit_s


@pytest.mark.parametrize(
    ("requested", "here", "on_a_cluster"), [(12.0, 12.0, 12.0), (3.0, 9.0, 3.0), (None, 9.0, None)]
)
def test_limit_of_a_job(monkeypatch, requested, here, on_a_cluster):
    """A rule whose resources an importer replaced may request nothing."""
    for name in SCHEDULERS:
        monkeypatch.delenv(name, raising=False)
    assert job_limit(requested, most=9.0) == here
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert job_limit(requested, most=9.0) == on_a_cluster
    monkeypatch.setenv(sentinel.RUN_BEGAN, "")
    monkeypatch.setenv(sentinel.RUN_IN, "")
    sentinel.begin_run()  # snakemake runs in that job, and sorts on this machine
    assert job_limit(requested, most=9.0) == here
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    assert job_limit(requested, most=9.0) == on_a_cluster
