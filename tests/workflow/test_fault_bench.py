"""The fault bench: recordings and settings that break for real, with real Kilosort 4.

For each: the canary's verdict, and that the full sort of the same thing, forced, ends the
same way. A stop must be true: that is the measure of wrong stops. Its table ends the run.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from probeinterface import generate_linear_probe, write_probeinterface
from spikeinterface.core import NumpySorting
from spikeinterface.generation import generate_ground_truth_recording

from workbench import ROOT, Project

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled")]
N_CHANNELS = 8
RATE_HZ = 20_000.0
DURATION_S = 35.0
WINDOW_S = 6.0
#: With batches of 1 s, of which it learns from those at 0 s and at 25 s.
PARAMS = {"nblocks": 0, "batch_size": int(RATE_HZ)}
KS4 = {"name": "kilosort4", "device": "cpu", "params": PARAMS}
OPTIONS = {
    "sampling_frequency": RATE_HZ,
    "dtype": "int16",
    "num_channels": N_CHANNELS,
    "gain_to_uV": 1.0,
    "offset_to_uV": 0.0,
}


def generate(when: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
    """Return the ground-truth generator's traces, in uV, with the spikes of these times only."""
    arguments: dict[str, Any] = {
        "durations": [DURATION_S],
        "sampling_frequency": RATE_HZ,
        "num_channels": N_CHANNELS,
        "num_units": 6,
        "noise_kwargs": {"noise_levels": 5.0, "strategy": "on_the_fly"},
        "seed": 7,
    }
    recording, sorting = generate_ground_truth_recording(**arguments)
    if when is not None:
        trains = {unit: sorting.get_unit_spike_train(unit) for unit in sorting.unit_ids}
        kept = {unit: train[when(train / RATE_HZ)] for unit, train in trains.items()}
        sorting = NumpySorting.from_unit_dict(kept, RATE_HZ)
        recording, _ = generate_ground_truth_recording(sorting=sorting, **arguments)
    return recording.get_traces()


PERIODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "noise": lambda s: s < 0.0,
    "artefacts": lambda s: s < 0.0,
    "second_half": lambda s: s > DURATION_S / 2,
    "late_start": lambda s: s > 1.25,
    "after_window": lambda s: s > WINDOW_S + 1,
    "bursts": lambda s: (s % 6.5) > 5.5,
}


def make(kind: str) -> np.ndarray:
    """Return the traces of one kind of recording, in counts of one uV."""
    shape = (int(DURATION_S * RATE_HZ), N_CHANNELS)
    if kind == "zeros":
        return np.zeros(shape)
    if kind == "constant":
        return np.full(shape, 117.0)
    if kind == "railed":
        return np.where(np.random.default_rng(5).random(shape) > 0.5, 32767.0, -32768.0)
    traces = generate(PERIODS.get(kind))
    if kind == "artefacts":
        traces[: int(1.5 * RATE_HZ) : 2000] += 4000.0
    if kind == "nan":
        traces[int(1.0 * RATE_HZ) :: int(3.0 * RATE_HZ)] = np.nan
    if kind == "half_dead":
        traces[:, N_CHANNELS // 2 :] = 0.0
    if kind == "one_alive":
        traces[:, 1:] = 0.0
    return traces


@dataclass(frozen=True)
class Case:
    """One fault: a row of the table and what is expected of its canary."""

    name: str
    expected: str
    kind: str = "active"
    sorter: str = ""
    columns: dict[str, str] = field(default_factory=dict)


#: Expected: the class of the failure for a stop, else the outcome.
OF_DATA = [
    Case("active", "passed"),
    Case("noise", "InsufficientActivityError", "noise"),
    Case("zeros", "SaturatedSignalError", "zeros"),
    Case("constant", "SaturatedSignalError", "constant"),
    Case("railed", "SaturatedSignalError", "railed"),
    Case("nan", "NonFiniteSignalError", "nan"),
    Case("half_dead", "proceed", "half_dead"),
    Case("one_alive", "consistent", "one_alive"),
    Case("second_half", "passed", "second_half"),
    Case("late_start", "passed", "late_start"),
    Case("bursts", "passed", "bursts"),
    Case("after_window", "passed", "after_window"),
    Case("artefacts", "consistent", "artefacts"),
]
OF_SET_UP = [
    Case("missing", "RecordingUnreadableError", columns={"path": "/no/such/recording.raw"}),
    Case("truncated", "RecordingUnreadableError", columns={"path": "truncated.nwb"}),
    Case("no_stream", "RecordingUnreadableError", columns={"path": "empty", "reader": "spikeglx"}),
    Case("no_probe", "SorterParameterError", columns={"probe": ""}),
    Case("not_installed", "SorterUnavailableError", sorter="kilosort2_5"),
    Case("unregistered", "SorterUnavailableError", sorter="never_defined_anywhere"),
    Case("bug", "unexpected", sorter="bug_always"),
]


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    path = tmp_path_factory.mktemp("probe") / "linear.json"
    linear = generate_linear_probe(N_CHANNELS, ypitch=20)
    linear.set_device_channel_indices(range(N_CHANNELS))
    write_probeinterface(path, linear)
    return path


def fill(project: Project, probe: Any, cases: list[Case]) -> None:
    """Write the cases' recordings and rows, and the config."""
    (project.folder / "empty").mkdir()
    (project.folder / "truncated.nwb").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    for case in cases:
        floats = case.kind == "nan"
        path = project.folder / f"{case.kind}.raw"
        if "path" not in case.columns and not path.exists():
            make(case.kind).astype("float32" if floats else "int16").tofile(path)
        reader = case.columns.get("reader") or ("nwb" if case.name == "truncated" else "binary")
        options = json.dumps(OPTIONS | ({"dtype": "float32"} if floats else {}))
        project.rows.append(
            {
                "recording": case.name,
                "path": str(path),
                "probe": str(probe),
                "sorter": case.sorter,
                **case.columns,
                "reader": reader,
                "reader_options": options if reader == "binary" else "",
            }
        )
    project.config["sorter"] = {**KS4, "plugin": str(ROOT / "tests/quick_sorter.py")}
    project.config["canary"] = {"window_s": WINDOW_S, "min_recording_s": 10}
    project.config["job"] = {"threads": 1}  # two at a time


def bench(project: Project, cases: list[Case]) -> pd.DataFrame:
    """Run the canaries, then force every sort; tell how both ended."""
    assert project.run().returncode in (0, 1)
    project.config["canary"]["force"] = [case.name for case in cases]
    project.run()
    forced = project.summary()
    rows = []
    for case in cases:
        canary = project.sentinel(case.name)
        failure = canary["failure"] or {}
        stopped = canary["verdict"] == "stop"
        full = forced.loc[case.name, "sort"]
        biological = failure.get("category") == "biological"
        # Kilosort's own words for what it cannot learn from are biological.
        same = full == "unsortable" or (full == "failed" and not biological)
        rows.append(
            {
                "fault": case.name,
                "expected": case.expected,
                "verdict": canary["verdict"],
                "outcome": canary["outcome"],
                "class": failure.get("class", ""),
                "full sort": full,
                "n_units": forced.loc[case.name, "n_units"],
                "wrong stop": stopped and not same,
            }
        )
    return pd.DataFrame(rows).set_index("fault")


def check(table: pd.DataFrame, record_property: Callable[[str, object], None]) -> None:
    """Hand the table over; no stop may be wrong, and each canary must say what is expected."""
    total = f"wrong stops: {table['wrong stop'].sum()} of {len(table)}"
    record_property("fault bench", f"{table.to_string()}\n{total}")
    assert not table["wrong stop"].any()
    for name, row in table.iterrows():
        if row["expected"] == "consistent":
            continue
        said = row["class"] if row["verdict"] == "stop" else row["outcome"]
        assert row["expected"] in (said, row["verdict"]), name


def test_faults_of_the_data(project, probe, record_property):
    fill(project, probe, OF_DATA)
    check(bench(project, OF_DATA), record_property)


def test_faults_of_the_set_up(project, probe, record_property):
    fill(project, probe, OF_SET_UP)
    check(bench(project, OF_SET_UP), record_property)


def expect_stop(project: Project, failure: str, evidence: dict[str, str]) -> None:
    """Run the canary of `active`, then its sort, forced: both must name the failure."""
    assert project.run().returncode == 1
    canary = project.sentinel("active")
    assert (canary["verdict"], canary["failure"]["class"]) == ("stop", failure)
    assert evidence.items() <= canary["failure"]["evidence"].items()
    project.config["canary"]["force"] = ["active"]
    forced = project.run("results/active/sorting")
    assert forced.returncode == 1
    assert "ERROR active: the sort failed: " in forced.output
    assert canary["failure"]["remedy"] in forced.output


@pytest.mark.parametrize(
    ("settings", "failure", "evidence"),
    [
        ({"device": "cuda"}, "GPUUnavailableError", {"device": "cuda"}),
        ({"container": "singularity"}, "ContainerEnvironmentError", {"reason": "runtime_missing"}),
        ({"plugin": "broken_plugin.py", "name": "mine"}, "DependencyError", {"module": "no_such"}),
    ],
    ids=["cuda", "singularity", "broken_plugin"],
)
def test_settings_that_cannot_work_here(project, probe, settings, failure, evidence):
    fill(project, probe, [Case("active", failure)])
    (project.folder / "broken_plugin.py").write_text("# defines mine\nimport no_such\n")
    project.config["sorter"] = KS4 | settings
    if settings.get("name"):
        project.config["sorter"]["params"] = {}
    expect_stop(project, failure, evidence)


@pytest.mark.parametrize(("client", "reason"), [(False, "client_missing"), (True, "daemon_down")])
def test_docker(project, probe, monkeypatch, client, reason):
    """No docker client; a client (scripted, since none may be here) without a daemon."""
    real = shutil.which("docker")
    kept = [
        folder for folder in os.environ["PATH"].split(":") if real is None or folder not in real
    ]
    if client:
        (project.folder / "bin").mkdir()
        (project.folder / "bin/docker").write_text("#!/bin/sh\necho Docker version 28.2.2\n")
        (project.folder / "bin/docker").chmod(0o755)
        kept.insert(0, str(project.folder / "bin"))
    elif real is not None and Path(real).parent in (Path("/usr/bin"), Path("/bin")):
        pytest.skip(f"{real} cannot be taken off the path")
    monkeypatch.setenv("PATH", ":".join(kept))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project.folder}/no.sock")
    fill(project, probe, [Case("active", "")])
    project.config["sorter"] = KS4 | {"container": "docker"}
    expect_stop(project, "ContainerEnvironmentError", {"reason": reason})


def test_parameter_of_another_version(project, probe):
    """A parameter that this version does not have is bad input, before any job."""
    fill(project, probe, [Case("active", "")])
    project.config["sorter"] = KS4 | {"params": {"Th": 8}}
    run = project.run()
    assert run.returncode == 1
    assert "kilosort4 has no parameter 'Th'" in run.output


def test_active_recordings_are_never_stopped(project):
    """Ground-truth recordings of few and many channels (of 8 above; of 16 the demo)."""
    counts = (4, 64)
    for n_channels in counts:
        recording, _ = generate_ground_truth_recording(
            durations=[13.0],
            sampling_frequency=RATE_HZ,
            num_channels=n_channels,
            num_units=max(4, n_channels // 3),
            noise_kwargs={"noise_levels": 5.0, "strategy": "on_the_fly"},
            seed=n_channels,
        )
        path = project.folder / f"n{n_channels}"
        recording.save(folder=path, dtype="int16", progress_bar=False)
        project.rows.append({"recording": path.name, "path": str(path), "reader": "spikeinterface"})
    project.config["sorter"] = KS4
    project.config["canary"] = {"window_s": WINDOW_S, "min_recording_s": 10}
    run = project.run(*(f"results/n{n_channels}/canary.json" for n_channels in counts))
    assert run.returncode == 0, run.output
    for n_channels in counts:
        verdict = project.sentinel(f"n{n_channels}")
        assert (verdict["outcome"], verdict["n_channels"]) == ("passed", n_channels), verdict
