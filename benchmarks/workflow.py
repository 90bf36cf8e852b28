"""What the whole workflow costs: its wall time over the same library calls in one script.

Seeded recordings go from raw data to the report: canary, sort (Kilosort 4 on the CPU),
analyzer, labels, and every output. The bare side makes the same calls one after the other in one
Python process: the window's and the whole recording's run_sorter, then the outputs; a recording
on which one fails is left there. Alternating pairs; the median of their ratios is the result. The
good units of both are compared with the ground truth, the verdicts with what is expected, and
each output is opened by its own tool, once both are done.

    python benchmarks/workflow.py [--recordings 1] [--faults] [--minutes 2] [--channels 32]
        [--threads 2] [--pairs 3]

--faults adds a recording of each of five faults: with seven healthy ones a batch of twelve.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import ROOT, compare, run, snakemake, write_recording

WINDOW_S = 30.0
MOST = 1.15
OUTPUTS = ("figures", "phy", "nwb", "npz", "mat", "report")
#: Of all recordings: NWB's inspector finds a file without a subject critical.
METADATA = {
    "NWBFile": {"session_start_time": "2026-01-02T03:04:05+00:00"},
    "Subject": {"subject_id": "m1", "species": "Mus musculus", "sex": "F", "age": "P90D"},
}
#: Verdict of the canary of a recording with each fault, and the class of its failure.
FAULTS = {
    "missing": ("stop", "RecordingUnreadableError"),
    "silent": ("stop", "InsufficientActivityError"),
    "railed": ("stop", "SaturatedSignalError"),
    "nan": ("stop", "NonFiniteSignalError"),
    "half_dead": ("proceed", ""),
}

BARE = """
import json, traceback
from pathlib import Path
from spikecanary.recording import open_recording
from spikecanary.outputs import analysis, curation, exports, figures
from spikecanary import sentinel, table, sorter
from spikecanary.config import Config
from spikeinterface.core import set_global_job_kwargs
from spikeinterface.sorters import run_sorter

def process(row):
    task = sorter.make_task(row, config).model_copy(update={"n_jobs": 2})
    folder = Path("bare", row.id)
    parts = []
    recording = open_recording(row, parts=parts)
    arguments = dict(verbose=True, torch_device="cpu", **config.sorter.params)
    window = recording.frame_slice(0, round(config.canary.window_s * recording.sampling_frequency))
    run_sorter("kilosort4", window, folder=folder / "window", **arguments)
    sorting = run_sorter("kilosort4", recording, folder=folder / "sorter", **arguments)
    sorting.save(folder=folder / "sorting")
    info = sentinel.SorterInfo(name="kilosort4", params_digest="")
    record = sentinel.Record(
        recording=row.id, verdict="proceed", outcome="sorted", reason="", sorter=info, parts=parts,
        started_at=sentinel.now(), finished_at=sentinel.now(),
    )
    sentinel.write_record(folder / "sort.json", record)
    analysis.run(task, config.analysis, folder)
    curation.run(config.curation, folder)
    figures.run(
        task, config.analysis, config.curation, folder, n_pages=config.exports.unit_pages
    )
    for name in [each for each in config.outputs if each not in ("units", "figures")]:
        exports.run(name, config.exports, folder, row=row)

config = Config.model_validate(json.loads(Path("config.yaml").read_text()))
set_global_job_kwargs(n_jobs=2, progress_bar=False)
for row in table.read_table("recordings.tsv"):
    try:
        process(row)
    except Exception:
        traceback.print_exc()
"""


def write_project(folder: Path, arguments: argparse.Namespace) -> None:
    """Write recordings with their ground truth, a table and a config."""
    names = [f"r{number}" for number in range(arguments.recordings)]
    names += FAULTS if arguments.faults else []
    for number, name in enumerate(names):
        if name != "missing":
            fault, seed = name if name in FAULTS else "", 20 + number
            data = folder / "data" / name
            truth = write_recording(data, arguments.minutes, arguments.channels, seed, fault)
            truth.save(folder=folder / "truth" / name)
    rows = [f"{name}\t{folder}/data/{name}\tspikeinterface\n" for name in names]
    (folder / "recordings.tsv").write_text("".join(["recording\tpath\treader\n", *rows]))
    config = {
        "recordings": "recordings.tsv",
        "sorter": {"name": "kilosort4", "device": "cpu", "params": {"nblocks": 0}},
        "canary": {"window_s": WINDOW_S, "min_recording_s": WINDOW_S},
        "outputs": ["units", *OUTPUTS],
        "exports": {"nwb": METADATA},
        "job": {"threads": arguments.threads},
    }
    (folder / "config.yaml").write_text(json.dumps(config))


def accuracy(folder: Path, made: str) -> dict[str, float]:
    """Return the median accuracy of the true units of each recording, good units alone."""
    from spikeinterface.comparison import compare_sorter_to_ground_truth
    from spikeinterface.core import load

    from spikecanary.outputs import curation

    found = {}
    for place in sorted(path.parent for path in (folder / made).glob("*/units.tsv")):
        units = curation.read_units(place / "units.tsv")
        good = set(units.index[units["label"] == "good"])
        sorting = load(place / "sorting")
        kept = sorting.select_units([unit for unit in sorting.unit_ids if str(unit) in good])
        compared = compare_sorter_to_ground_truth(load(folder / "truth" / place.name), kept)
        found[place.name] = round(float(compared.get_performance()["accuracy"].median()), 3)
    return found


def check(folder: Path) -> None:
    """Check the verdicts, and that each output of what was sorted opens in its own tool."""
    import pynwb
    from nwbinspector import Importance, inspect_nwbfile
    from phylib.io.model import load_model
    from PIL import Image
    from scipy.io import loadmat
    from spikeinterface.core import load_sorting_analyzer

    for name in [line.split("\t")[0] for line in (folder / "recordings.tsv").open()][1:]:
        place = folder / "results" / name
        canary = json.loads((place / "canary.json").read_text())
        verdict = (canary["verdict"], (canary["failure"] or {}).get("class", ""))
        assert verdict == FAULTS.get(name, ("proceed", "")), (name, verdict)
        if canary["verdict"] == "stop":
            if canary["failure"]["category"] == "biological":
                assert Image.open(place / "canary.png").width, place
            continue
        units = load_sorting_analyzer(place / "analyzer").unit_ids
        assert load_model(place / "phy/params.py").n_templates == len(units), place
        nwb = place / "units.nwb"
        said = list(inspect_nwbfile(nwb, importance_threshold=Importance.CRITICAL))
        assert not said, said
        with pynwb.NWBHDF5IO(nwb, "r") as file:
            assert len(file.read().units) == len(units), place
        n_spikes = np.load(place / "spikes.npz")["spike_times_s"].size
        assert loadmat(place / "spikes.mat")["spike_times_s"].size == n_spikes, place
        assert list((place / "report").glob("*.csv")), place
        drawn = list((place / "figures").glob("*.png"))
        assert drawn, place
        assert all(Image.open(png).width for png in drawn), place
    assert (folder / "results/report.html").exists()


def main() -> int:
    """Measure and print; exit status 1 where the median ratio is too high."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=1)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2, help="of a job; 1: two jobs at a time")
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, arguments)

        def clear(*names: str) -> None:
            for each in names:
                shutil.rmtree(folder / each, ignore_errors=True)

        def run_workflow() -> tuple[float, float]:
            clear("results", ".snakemake", "logs", "benchmarks")
            how = ["--cores", "2", "--snakefile", str(ROOT / "Snakefile")]
            return snakemake(folder, *how, "--configfile", "config.yaml")

        def run_bare() -> tuple[float, float]:
            clear("bare")
            return run([sys.executable, "-c", BARE], folder)

        median = compare("pair", {"workflow": run_workflow, "bare": run_bare}, arguments.pairs)
        bare, ours = accuracy(folder, "bare"), accuracy(folder, "results")
        print(f"median accuracy of good units: bare {bare}, workflow {ours}")
        assert set(bare) >= set(ours)
        check(folder)
    return int(median > MOST)


if __name__ == "__main__":
    sys.exit(main())
