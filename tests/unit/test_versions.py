"""What seeded recordings become, by version: a change without a bump fails here.

A version in ``spikecanary.reruns`` is what makes finished jobs run again after an update. So what
they make is noted in ``versions.json``, beside the version that made it. After a bump:

    python tests/unit/test_versions.py
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pynwb
import pytest
from scipy.io import loadmat
from spikeinterface.core import load
from spikeinterface.generation import generate_ground_truth_recording

from spikecanary import canary, reruns, sentinel, sorter, summary
from spikecanary.config import CanarySettings, Config, ExportSettings, SorterSettings
from spikecanary.outputs import analysis, curation, exports, figures
from spikecanary.sentinel import Part
from spikecanary.sorter import SortTask, registry, sorteroutput
from spikecanary.supervise.job import Job
from spikecanary.table import Recording
from workbench import ROOT, make_record, steps_in_process

NOTED = Path(__file__).with_name("versions.json")
PLUGIN = str(ROOT / "tests/quick_sorter.py")
OPTIONS = {
    "sampling_frequency": 30_000.0,
    "num_channels": 4,
    "gain_to_uV": 1.0,
    "offset_to_uV": 0.0,
}


def versions() -> dict[str, int]:
    """Return the present version of each kind of result."""
    kinds = {"canary": reruns.CANARY_VERSION, "sort": reruns.SORT_VERSION}
    return kinds | reruns.OUTPUT_VERSIONS


def write(folder: Path, name: str, traces: np.ndarray) -> Recording:
    """Write a binary recording of 4 channels."""
    path = folder / f"{name}.raw"
    traces.tofile(path)
    options = OPTIONS | {"dtype": str(traces.dtype)}
    return Recording(id=name, paths=(str(path),), reader="binary", reader_options=options)


def noise(seconds: float = 6.0) -> np.ndarray:
    """Return seeded noise, int16."""
    rng = np.random.default_rng(1)
    return rng.normal(0.0, 8.0, (int(seconds * 30_000), 4)).astype("int16")


def spikes() -> np.ndarray:
    """Return noise with twenty spikes a second on each channel, int16."""
    traces, rng = noise().astype(float), np.random.default_rng(2)
    for channel in range(4):
        for start in rng.integers(0, len(traces) - 30, 120):
            traces[start : start + 12, channel] -= 150.0 * np.hanning(12)
    return traces.astype("int16")


def describe_handed(task: SortTask, folder: Path) -> dict:
    """Sort, and describe the traces and parameters that the sorter was handed."""
    folder.mkdir()
    sorter.sort(task, folder, lambda **_: None)
    work = folder / "sorter"
    traces = load(work / "spikeinterface_recording.json").get_traces()
    params = json.loads((work / "spikeinterface_params.json").read_text())
    return {
        "params": params["sorter_params"],
        "dtype": str(traces.dtype),
        "shape": list(traces.shape),
        "std": [round(float(each), 2) for each in traces.std(axis=0)],
        "samples": [round(float(each), 1) for each in traces[1000:1004].ravel()],
    }


def make_sort(folder: Path) -> dict:
    """Describe what a sorter is handed of a plain recording, and of one with everything."""
    row = write(folder, "plain", spikes())
    settings = SorterSettings(name="quick", plugin=PLUGIN, params={"threshold": 6.0})
    plain = SortTask(row=row, sorter=settings)
    parts = row.model_copy(update={"paths": row.paths * 2, "start_s": 1.0, "end_s": 8.0})
    steps = {"common_reference": {}, "bandpass_filter": {"freq_min": 300.0, "freq_max": 6000.0}}
    cut = SortTask(row=parts, sorter=settings, preprocessing=steps, window_s=(0.5, 3.0))
    return {
        "plain": describe_handed(plain, folder / "one"),
        "cut": describe_handed(cut, folder / "two"),
        "device": registry.with_device({"torch_device": "auto"}, SorterSettings(device="cpu")),
        "copies": list(sorteroutput.COPIES),
    }


def make_canary(folder: Path) -> dict:
    """Describe the verdicts on seeded recordings, good and bad."""
    broken = spikes().astype("float32")
    broken[90_000:90_100] = np.nan
    rows = {
        "active": write(folder, "active", spikes()),
        "silent": write(folder, "silent", noise()),
        "flat": write(folder, "flat", np.zeros_like(noise())),
        "nan": write(folder, "nan", broken),
        "missing": Recording(id="missing", paths=("/no/such.raw",), reader="binary"),
    }
    found = {}
    for name, row in rows.items():
        place = folder / "results" / name
        with steps_in_process():
            record = canary.run(
                SortTask(row=row, sorter=SorterSettings(name="quick", plugin=PLUGIN)),
                CanarySettings(window_s=2, min_recording_s=4),
                place,
                Job(log=folder / "log.txt"),
            )
        failure = record.failure.class_name if record.failure else None
        windows = [(window.start_s, window.end_s, window.why) for window in record.windows]
        found[name] = [record.verdict, record.outcome, failure, windows]
    return found


def make_outputs(folder: Path) -> dict:
    """Describe what each output of a seeded sorting is made of."""
    recording, sorting = generate_ground_truth_recording(
        durations=[10.0], num_channels=8, num_units=4, seed=7
    )
    recording.save(folder=folder / "recording", dtype="int16")
    sorting.save(folder=folder / "sorting")
    row = Recording(
        id="x",
        paths=(str(folder / "recording"),),
        reader="spikeinterface",
        metadata={"session_start_time": "2026-01-02T03:04:05+00:00"},
    )
    config = Config()
    task = sorter.make_task(row, config).model_copy(update={"n_jobs": 1})
    part = Part(file="x.raw", start_sample=0, n_samples=250_000, t_start_s=0.0)
    sentinel.write_record(folder / "sort.json", make_record(parts=[part]))
    analysis.run(task, config.analysis, folder)
    curation.run(config.curation, folder)
    figures.run(task, config.analysis, config.curation, folder)
    for name in ("phy", "nwb", "npz", "mat", "report"):
        exports.run(name, ExportSettings(), folder, row=row)
    metrics = pd.read_csv(folder / "metrics.tsv", sep="\t")
    units = pd.read_csv(folder / "units.tsv", sep="\t")
    with np.load(folder / "spikes.npz") as npz:
        arrays = {name: [str(npz[name].dtype), list(npz[name].shape)] for name in sorted(npz.files)}
    matlab = loadmat(folder / "spikes.mat")
    with pynwb.NWBHDF5IO(folder / "units.nwb", "r") as file:
        nwb = file.read()
        tables = (nwb.units, nwb.electrodes, nwb.epochs)
        columns = [sorted(table.colnames) for table in tables]
    return {
        "analyze": {
            "columns": list(metrics.columns),
            "spikes": metrics["num_spikes"].tolist(),
            "rates": [round(rate, 2) for rate in metrics["firing_rate"]],
            "extensions": sorted(path.name for path in (folder / "analyzer/extensions").iterdir()),
        },
        "curate": [list(units.columns), sorted(load(folder / "curated").get_property_keys())],
        "figures": sorted(path.name for path in (folder / "figures").iterdir()),
        "phy": sorted(path.name for path in (folder / "phy").iterdir()),
        "nwb": columns,
        "npz": arrays,
        "mat": {
            name: list(value.shape) for name, value in sorted(matlab.items()) if name[0] != "_"
        },
        "report": sorted(path.name for path in (folder / "report").iterdir()),
        "summary": list(summary.SUMMARY_COLUMNS),
    }


def make_all(folder: Path) -> dict:
    """Make everything that has a version, as plain data."""
    for name in ("sort", "canary", "outputs"):
        (folder / name).mkdir()
    made = {
        "sort": make_sort(folder / "sort"),
        "canary": make_canary(folder / "canary"),
        **make_outputs(folder / "outputs"),
    }
    return json.loads(json.dumps(made))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_all(tmp_path_factory.mktemp("versions"))


#: Pictures, and a page of a template: their versions are for the judgement of who changes them.
BY_EYE = {"canary_figure", "page"}


@pytest.mark.parametrize("kind", sorted(versions()))
def test_what_is_made_is_that_of_its_version(request, kind):
    noted = json.loads(NOTED.read_text())
    version = versions()[kind]
    note = "then note it: python tests/unit/test_versions.py"
    assert noted[kind]["version"] == version, f"the version of {kind} was bumped: {note}"
    if kind not in BY_EYE:
        made = request.getfixturevalue("made")
        text = f"what {kind} makes has changed: bump its version in reruns.py, {note}"
        assert made[kind] == noted[kind]["made"], text


def write_notes() -> None:
    """Note what is made now; refuse where something changed and its version did not."""
    noted = json.loads(NOTED.read_text()) if NOTED.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        made = make_all(Path(folder))
    new = {
        kind: {"version": version, "made": made.get(kind)} for kind, version in versions().items()
    }
    for kind, now in new.items():
        before = noted.get(kind, now)
        if before["version"] == now["version"] and before["made"] != now["made"]:
            sys.exit(f"{kind} has changed and its version has not: bump it in reruns.py first")
    NOTED.write_text(json.dumps(new, indent=1) + "\n")


if __name__ == "__main__":
    os.environ["PYTHONWARNINGS"] = "ignore"
    write_notes()
