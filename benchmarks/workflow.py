"""What the whole workflow costs: its wall time over the same library calls in one script.

Seeded recordings go from raw data to the report: canary, sort (Kilosort 4 on the CPU),
analyzer, labels, figures, Phy and NWB. The bare side makes the same calls one after the other in
one Python process: the window's and the whole recording's run_sorter, then the outputs.
Alternating pairs; the median of their ratios is the result. The labelled units of both are
compared with the ground truth too.

    python benchmarks/workflow.py [--recordings 1] [--minutes 2] [--channels 32] [--pairs 3]
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RATE_HZ = 30_000.0
WINDOW_S = 30.0
MOST = 1.15
OUTPUTS = ("figures", "phy", "nwb")

BARE = """
import json, sys
from pathlib import Path
from spikecanary import analysis, curation, exports, figures, outputs, recordings, sorters
from spikecanary.config import Config
from spikecanary.recordings import Recording
from spikeinterface.core import set_global_job_kwargs
from spikeinterface.sorters import run_sorter

config = Config.model_validate(json.loads(Path("config.yaml").read_text()))
set_global_job_kwargs(n_jobs=2, progress_bar=False)
for row in recordings.read_table("recordings.tsv"):
    task = sorters.make_task(row, config).model_copy(update={"n_jobs": 2})
    folder = Path("bare", row.id)
    recording = recordings.open_recording(row)
    arguments = dict(verbose=True, torch_device="cpu", **config.sorter.params)
    window = recording.frame_slice(0, round(config.canary.window_s * recording.sampling_frequency))
    run_sorter("kilosort4", window, folder=folder / "window", **arguments)
    sorting = run_sorter("kilosort4", recording, folder=folder / "sorter", **arguments)
    sorting.save(folder=folder / "sorting")
    at = dict(analyzer_path=folder / "analyzer", units_path=folder / "units.tsv")
    metrics = folder / "metrics.tsv"
    analysis.run(
        task, config.analysis, sorting_path=folder / "sorting", metrics_path=metrics,
        analyzer_path=at["analyzer_path"],
    )
    curation.run(config.curation, metrics_path=metrics, **at)
    figures.run(task, config.analysis, config.curation, folder=folder / "figures", **at)
    for name in ("phy", "nwb"):
        path = folder / outputs.FILES[name]
        exports.run(name, row, config.exports, path=path, **at)
"""


def write_project(folder: Path, arguments: argparse.Namespace) -> None:
    """Write recordings with their ground truth, a table and a config."""
    from spikeinterface.core import set_global_job_kwargs
    from spikeinterface.generation import generate_ground_truth_recording

    set_global_job_kwargs(progress_bar=False)
    lines = ["recording\tpath\treader"]
    for number in range(arguments.recordings):
        recording, truth = generate_ground_truth_recording(
            durations=[60.0 * arguments.minutes],
            sampling_frequency=RATE_HZ,
            num_channels=arguments.channels,
            num_units=arguments.channels // 2,
            noise_kwargs={"noise_levels": 5.0, "strategy": "on_the_fly"},
            seed=20 + number,
        )
        recording.save(folder=folder / f"data/r{number}", dtype="int16")
        truth.save(folder=folder / f"truth/r{number}")
        lines.append(f"r{number}\t{folder}/data/r{number}\tspikeinterface")
    (folder / "recordings.tsv").write_text("\n".join(lines) + "\n")
    config = {
        "recordings": "recordings.tsv",
        "sorter": {"name": "kilosort4", "device": "cpu", "params": {"nblocks": 0}},
        "canary": {"window_s": WINDOW_S, "min_recording_s": WINDOW_S},
        "forecast": {"second_window": False},
        "outputs": ["units", *OUTPUTS],
        "job": {"threads": 2, "output_threads": 2},
    }
    (folder / "config.yaml").write_text(json.dumps(config))


def time_s(folder: Path, command: list[str]) -> float:
    """Run a command; return its wall time in s."""
    with (folder / "output.txt").open("w") as output:
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, stdout=output, stderr=output, check=False)
        took_s = time.perf_counter() - started
    if done.returncode:
        sys.exit((folder / "output.txt").read_text()[-3000:])
    return took_s


def accuracy(folder: Path, made: str) -> list[float]:
    """Return the median accuracy of the true units of each recording, good units alone."""
    from spikeinterface.comparison import compare_sorter_to_ground_truth
    from spikeinterface.core import load

    from spikecanary import curation

    found = []
    for place in sorted((folder / made).glob("r[0-9]*")):
        units = curation.read_units(place / "units.tsv")
        good = set(units.index[units["label"] == "good"])
        sorting = load(place / "sorting")
        kept = sorting.select_units([unit for unit in sorting.unit_ids if str(unit) in good])
        compared = compare_sorter_to_ground_truth(load(folder / "truth" / place.name), kept)
        found.append(round(float(compared.get_performance()["accuracy"].median()), 3))
    return found


def main() -> int:
    """Measure and print; exit status 1 where the median ratio is too high."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    ours = [sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile"]
    ours += [str(ROOT / "Snakefile"), "--configfile", "config.yaml"]
    bare = [sys.executable, "-c", BARE]
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, arguments)
        for pair in range(arguments.pairs):
            for left in ("results", "bare", ".snakemake", "logs", "benchmarks"):
                shutil.rmtree(folder / left, ignore_errors=True)
            order = [ours, bare] if pair % 2 else [bare, ours]
            took = {command is ours: time_s(folder, command) for command in order}
            ratios.append(took[True] / took[False])
            print(
                f"pair {pair + 1}: bare {took[False]:.0f} s, workflow {took[True]:.0f} s, "
                f"ratio {ratios[-1]:.3f}; median accuracy of good units bare "
                f"{accuracy(folder, 'bare')}, workflow {accuracy(folder, 'results')}",
                flush=True,
            )
    median = statistics.median(ratios)
    print(f"median ratio {median:.3f} (at most {MOST})")
    return int(median > MOST)


if __name__ == "__main__":
    sys.exit(main())
