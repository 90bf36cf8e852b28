"""What tests share: a project folder as a user has one, snakemake in it, records."""

import contextlib
import copy
import faulthandler
import functools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import prepared
from spikecanary import sentinel
from spikecanary.failures import Category
from spikecanary.recording import layout
from spikecanary.sentinel import Failure, Record, SorterInfo
from spikecanary.sorter import SortTask
from spikecanary.supervise import child, processes
from spikecanary.supervise import run as supervision

ROOT = Path(__file__).resolve().parents[1]
#: Units of the sortings of which outputs are made.
N_UNITS = (8, 1, 0)
COLUMNS = ("recording", "path", "reader", "reader_options", "probe", "stream_id", "sorter")


@dataclass
class Project:
    """A working directory with a config and a table."""

    folder: Path
    write_binary: Callable[..., Path]
    options: str
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, str]] = field(default_factory=list)

    def add(self, recording: str, kind: str = "active", **columns: Any) -> None:
        """Add a row: a seeded recording, unless a path is given."""
        duration_s = columns.pop("duration_s", 8.0)
        row = {"recording": recording, "reader": "binary", "reader_options": self.options}
        if "path" not in columns:
            row["path"] = str(self.write_binary(kind, duration_s))
        self.rows.append(row | columns)

    def copied(self, folder: Path) -> "Project":
        """Copy the project with all times and with what Snakemake remembers of it."""
        beside = copy.deepcopy(self)
        beside.folder = folder
        shutil.copytree(self.folder, folder, symlinks=True)
        return beside

    def write(self) -> None:
        """Write config and table."""
        table = pd.DataFrame(self.rows).fillna("")
        table.to_csv(self.folder / "recordings.tsv", sep="\t", index=False)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config), encoding="utf-8")

    def arguments(self, *further: str) -> list[str]:
        """Return snakemake's arguments in this project."""
        return ["--configfile", "config.yaml", "--snakefile", str(ROOT / "Snakefile"), *further]

    def run(self, *arguments: str, write: bool = True) -> "Run":
        """Run snakemake to its end."""
        if write:
            self.write()
        return snakemake(self.folder, *self.arguments(*arguments))

    def result(self, *parts: str) -> Path:
        """Return a path below the results folder."""
        return self.folder.joinpath("results", *parts)

    def sentinel(self, recording: str) -> dict[str, Any]:
        """Return a recording's sentinel."""
        loaded: dict[str, Any] = json.loads(self.result(recording, "canary.json").read_text())
        return loaded

    def sort_record(self, recording: str) -> dict[str, Any]:
        """Return a recording's sort record."""
        loaded: dict[str, Any] = json.loads(self.result(recording, "sort.json").read_text())
        return loaded

    def summary(self) -> pd.DataFrame:
        """Return the summary, indexed by recording."""
        table = pd.read_csv(self.result("summary.tsv"), sep="\t", dtype=str, keep_default_na=False)
        return table.set_index("recording")


def new_project(
    folder: Path, write_binary: Callable[..., Path], reader_options: dict[str, Any]
) -> Project:
    """Return a project for the quick sorter, without recordings."""
    config = {
        "recordings": "recordings.tsv",
        "sorter": {"name": "quick", "plugin": str(ROOT / "tests" / "quick_sorter.py")},
        "canary": {"window_s": 2, "min_recording_s": 4},
        "job": {"threads": 1},
        "outputs": [],
    }
    return Project(folder, write_binary, json.dumps(reader_options), config)


def snakemake_command(*arguments: str) -> list[str]:
    """Return the command line of snakemake on two cores, which names each job."""
    return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments, "--quiet", "host"]


def environment() -> dict[str, str]:
    """Return the environment of a run: unless a test says so, numba compiles nothing."""
    own = {"SPIKECANARY_SNAKEFILE": str(ROOT / "Snakefile")}
    return {**prepared.UNCOMPILED, **os.environ, **own}


def snakemake(folder: Path, *arguments: str) -> "Run":
    """Run snakemake in a folder to its end."""
    return Run(*prepared.run(snakemake_command(*arguments), folder, environment(), 900))


@dataclass(frozen=True)
class Run:
    """How a run of snakemake ended."""

    returncode: int
    output: str

    def jobs(self) -> Counter[str]:
        """Count the jobs that were started (or planned), by rule; rule all is left out."""
        rules = re.findall(
            r"^(?:local)?(?:rule|checkpoint) (\w+):$", self.output, flags=re.MULTILINE
        )
        return Counter(rule for rule in rules if rule != "all")

    def recordings(self, rule: str) -> list[str]:
        """Return the recordings for which a rule was started (or planned), sorted."""
        blocks = re.findall(
            rf"^(?:local)?rule {rule}:\n(?:    .*\n)*?    wildcards: recording=(.+)$",
            self.output,
            flags=re.MULTILINE,
        )
        return sorted(blocks)

    @property
    def nothing_to_do(self) -> bool:
        """Whether snakemake found everything up to date."""
        return "Nothing to be done" in self.output


def make_record(**fields: Any) -> Record:
    """Return a record; a passed canary, unless fields say otherwise."""
    now = sentinel.now()
    defaults: dict[str, Any] = {
        "recording": "one",
        "verdict": "proceed",
        "outcome": "passed",
        "reason": "8 units in 30 s",
        "sorter": SorterInfo(name="quick", version="1.0", params_digest="0123"),
        "started_at": now,
        "finished_at": now,
    }
    return Record(**defaults | fields)


def stopped(category: Category) -> Record:
    """Return the sentinel of a canary that stopped."""
    failure = Failure(class_name="X", category=category, message="m")
    return make_record(verdict="stop", outcome="stopped", failure=failure)


def write_spikeglx(
    folder: Path,
    name: str = "run_g0_t0.imec0.ap",
    *,
    duration_s: float = 2.5,
    created: str = "2023-12-22T11:53:44",
    announced: int | None = None,
) -> None:
    """Write one file of a SpikeGLX run, 4 channels and SYNC, with the header that belongs to it."""
    samples = np.zeros((int(duration_s * (2_500 if name.endswith("lf") else 30_000)), 5), "int16")
    samples[:, :4] = np.random.default_rng(0).normal(0, 30, (len(samples), 4))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.bin").write_bytes(samples.tobytes())
    describe = runpy.run_path(str(ROOT / "config/demo/spikeglx.py"))["describe"]
    (folder / f"{name}.meta").write_text(describe(name, len(samples), 4, created, announced))


def write_open_ephys(
    recording: Path,
    streams: dict[str, tuple[list[str], int]],
    *,
    duration_s: float = 2.5,
    jump: int = 0,
    short: int = 0,
) -> None:
    """Write one recording of Open Ephys; streams: names of channels, rate in Hz.

    ``jump`` samples are lost at half time, and the last ``short`` ones are not in the file.
    """
    described = []
    for name, (channels, rate_hz) in streams.items():
        folder = recording / "continuous" / name
        folder.mkdir(parents=True)
        samples = np.random.default_rng(0).normal(0, 30, (int(duration_s * rate_hz), len(channels)))
        samples[: len(samples) - short].astype("int16").tofile(folder / "continuous.dat")
        numbers = np.arange(len(samples)) + 1000
        numbers[len(numbers) // 2 :] += jump
        np.save(folder / "sample_numbers.npy", numbers)
        np.save(folder / "timestamps.npy", numbers / rate_hz)
        described.append(
            {
                "folder_name": f"{name}/",
                "sample_rate": rate_hz,
                "source_processor_name": name.split("-")[0],
                "source_processor_id": 100,
                "recorded_processor": "Record Node",
                "recorded_processor_id": 101,
                "stream_name": name,
                "num_channels": len(channels),
                "channels": [
                    {"bit_volts": 0.195, "units": "uV", "history": "", "channel_name": channel}
                    for channel in channels
                ],
            }
        )
    structure = {"GUI version": "0.6.7", "continuous": described, "events": [], "spikes": []}
    (recording / "structure.oebin").write_text(json.dumps(structure))


class _Here:
    """Stands in for a child process: what it would do is done in this process, when it starts."""

    pid = os.getpid()

    def __init__(self, command: list[str], *, stdout: Any, **_: Any) -> None:
        *_, request, events, lifeline = command
        with (
            Path(stdout.name).open("a", buffering=1, encoding="utf-8") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            self.returncode = child.main(request, events, lifeline)


@functools.cache
def _find_layout(path: str, changed_ns: int, *declared: Any, find: Callable[..., Any]) -> Any:
    return find(path, *declared)


@contextlib.contextmanager
def steps_in_process() -> Iterator[None]:
    """Do the steps of canaries and full sorts in this process, which takes a tenth of the time.

    All else is as it is with a child: what it is sent and sends back, its log, how it is judged.
    The layout of a file, which takes most of a canary's time, is checked once.
    """
    find = layout.find_better

    def find_once(path: str, *declared: Any) -> Any:
        return _find_layout(path, Path(path).stat().st_mtime_ns, *declared, find=find)

    with pytest.MonkeyPatch.context() as patch:
        started_here = SimpleNamespace(**vars(subprocess) | {"Popen": _Here})
        patch.setattr(supervision, "subprocess", started_here)
        patch.setattr(processes, "end_child", lambda *_: None)  # which would end this process
        patch.setattr(layout, "find_better", find_once)
        patch.setattr(child, "hang_on", lambda _: None)
        patch.setattr(faulthandler, "enable", lambda: None)
        patch.setattr(sys, "path", sys.path.copy())
        yield


def with_params(task: SortTask, **params: Any) -> SortTask:
    """Return the task with these parameters of its sorter."""
    return task.model_copy(update={"sorter": task.sorter.model_copy(update={"params": params})})


def with_traces(
    task: SortTask,
    traces: np.ndarray,
    path: Path,
    steps: dict[str, Any] | None = None,
    **options: Any,
) -> SortTask:
    """Return the task for a file of these traces."""
    traces.tofile(path)
    options = task.row.reader_options | {"dtype": str(traces.dtype)} | options
    row = task.row.model_copy(update={"paths": (str(path),), "reader_options": options})
    return task.model_copy(update={"row": row, "preprocessing": steps or {}})


def frame(where: str, source: str = "x = f(y)") -> str:
    """Return one frame of a traceback."""
    path, function = where.split(":")
    return f'  File "/env/{path}.py", line 1, in {function}\n    {source}\n'
