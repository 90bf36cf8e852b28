"""Fixtures: seeded recordings, the real ones, a project folder to run snakemake in."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from probeinterface import generate_tetrode, write_probeinterface
from spikeinterface.sorters import sorter_dict
from xdist.scheduler import LoadScopeScheduling

from workbench import Project, new_project

TESTS = Path(__file__).resolve().parent
RATE_HZ = 30_000.0
N_CHANNELS = 4
#: Files whose tests one worker runs, one after the other: they share what takes long to make or to
#: compile, or they look at the processes, the disk and the cores of the whole machine.
GROUPS = {
    "test_canary.py": "canary",
    "test_canary_signals.py": "canary",
    "test_curation.py": "analyzer",
    "test_figures.py": "analyzer",
    "test_fullsort.py": "canary",
    "test_nwb.py": "analyzer",
    "test_outputs.py": "analyzer",
    "test_versions.py": "analyzer",
    "test_batch.py": "batch",
    "test_docs.py": "docs",
    "test_postprocess.py": "postprocess",
    "test_quality.py": "canary",
    "test_reruns.py": "reruns",
    "test_scratch.py": "canary",
    "test_interrupts.py": "serial",
    "test_kills.py": "kills",
    "test_machine.py": "serial",
    "test_reading.py": "serial",
    "test_slurm.py": "slurm",
    "test_sorts.py": "serial",
}
#: These begin, and then the groups, so that no worker is left alone with one.
LONGEST = tuple(
    f"tests/{name}.py" for name in ("workflow/test_real_sorters", "workflow/test_fault_bench")
)
#: Longer than a unit test may take: `make check` leaves them to `make test`.
MEDIUM = ("tests/unit/test_page.py::test_thousand",)
FAULT_COLUMNS = ("fault", "survived", "files lost", "processes left", "wrong verdicts")

# Under nohup, and in a shell's background, these would be ignored, here and in what tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
# Several workers share the cores: threads that wait for each other would take them.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))


class Groups(LoadScopeScheduling):
    """Give tests to workers one by one, and those of a group to one worker.

    Written here because the marks of ``--dist loadgroup`` (xdist 3.8.0) are lost in pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", maxsplit=1)[0].rsplit("/", 1)[-1]
        return GROUPS.get(file, nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Choose the scheduler, which takes the tests in the order in which they are collected."""
    config.option.loadscopereorder = False
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the unit tests that take long, others where they stand; begin with the longest."""
    items.sort(key=lambda item: (not item.nodeid.startswith(LONGEST), item.path.name not in GROUPS))
    for item in items:
        if item.nodeid.startswith(MEDIUM):
            item.add_marker(pytest.mark.medium)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests hand over with their reports, from all workers."""
    reports = [each for some in terminalreporter.stats.values() for each in some]
    calls = [each for each in reports if getattr(each, "when", None) == "call"]
    handed = [each for report in calls for each in report.user_properties]
    for text in (value for name, value in handed if name == "fault bench"):
        terminalreporter.section("fault bench")
        terminalreporter.write_line(text)
    told = [value for name, value in handed if name == "bad input"]
    if told:
        terminalreporter.section("bad input")
        held = told.count("held")
        terminalreporter.write_line(
            f"{len(told) - held} kinds tried, {held} held, {len(told) - 2 * held} failed"
        )
    rows = [value for name, value in handed if name == "injected fault"]
    if rows:
        table = pd.DataFrame(rows, columns=list(FAULT_COLUMNS))
        terminalreporter.section("injected faults")
        terminalreporter.write_line(table.to_string(index=False))
        total = table.drop(columns=["fault", "survived"]).sum().to_dict()
        terminalreporter.write_line(f"{len(table)} faults, {total}")


@pytest.fixture(scope="session")
def data() -> Path:
    """Find the real recordings; skipped without them, but not in CI."""
    folder = Path(os.environ.get("SPIKECANARY_DATA", TESTS.parents[1] / "shared" / "data"))
    if not folder.is_dir():
        if os.environ.get("SPIKECANARY_REQUIRE_DATA") == "1":
            pytest.fail(f"SPIKECANARY_REQUIRE_DATA is set, but {folder} is not there")
        pytest.skip(f"no real recordings in {folder} (set SPIKECANARY_DATA)")
    return folder


@pytest.fixture(scope="session")
def write_binary(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a seeded binary recording of 4 channels, once per length and kind."""
    folder = tmp_path_factory.mktemp("recordings")

    def write(kind: str = "active", duration_s: float = 8.0) -> Path:
        path = folder / f"{kind}_{duration_s:g}.raw"
        if path.exists():
            return path
        rng = np.random.default_rng(1)
        n_samples = int(duration_s * RATE_HZ)
        traces = rng.normal(0.0, 8.0, (n_samples, N_CHANNELS))
        if kind == "active":
            for channel in range(N_CHANNELS):
                for start in rng.integers(0, n_samples - 30, int(20 * duration_s)):
                    traces[start : start + 12, channel] -= 150.0 * np.hanning(12)
        traces.astype("int16").tofile(path)
        return path

    return write


@pytest.fixture(scope="session")
def reader_options() -> dict[str, Any]:
    """Reader options of what write_binary writes; its microvolts are one per count."""
    return {
        "sampling_frequency": RATE_HZ,
        "dtype": "int16",
        "num_channels": N_CHANNELS,
        "gain_to_uV": 1.0,
        "offset_to_uV": 0.0,
    }


@pytest.fixture(scope="session")
def tetrode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a probeinterface file of a tetrode."""
    path = tmp_path_factory.mktemp("probe") / "tetrode.json"
    probe = generate_tetrode()
    probe.set_device_channel_indices(range(N_CHANNELS))
    write_probeinterface(path, probe)
    return path


@pytest.fixture
def project(
    tmp_path: Path, write_binary: Callable[..., Path], reader_options: dict[str, Any]
) -> Project:
    """Make an empty working directory with a config for the quick sorter."""
    return new_project(tmp_path, write_binary, reader_options)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have numba compile in runs of snakemake, as for a user: Kilosort 4 needs it."""
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")


@pytest.fixture(autouse=True)
def _keep_sorters() -> Iterator[None]:
    """Take sorters out again that a plugin registered in this process."""
    before = dict(sorter_dict)
    yield
    sorter_dict.clear()
    sorter_dict.update(before)
