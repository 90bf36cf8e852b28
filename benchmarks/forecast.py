"""How good the forecast is: forecast over actual, on real sorts.

Healthy seeded recordings of several lengths and channel counts are canaried and sorted
with real sorters on the CPU; what was measured is kept in a file, from which the figures
are worked out: without history, and after one sort of history (each of the others in turn,
of the same sorter).

    python benchmarks/forecast.py measure FILE [--minutes 1 2 4 8] [--channels 16 32]
        [--sorters kilosort4 spykingcircus2] [--window 30]
    python benchmarks/forecast.py show FILE
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, write_recording

sys.path.insert(0, str(ROOT / "scripts"))

from spikecanary import canary, forecast, fullsort
from spikecanary.config import CanarySettings, Config, ForecastSettings, SorterSettings
from spikecanary.forecast import FinishedSort
from spikecanary.sentinel import Record
from spikecanary.sorter import SortTask, make_task
from spikecanary.supervise import log
from spikecanary.supervise.job import Job
from spikecanary.table import Recording

#: Parameters that fit recordings of a short probe.
PARAMS = {"kilosort4": {"nblocks": 0}, "spykingcircus2": {}}
#: The median error of the time that is allowed.
MOST = {"without history": 0.5, "after one sort": 0.25}


def make_sort(recording: Path, sorter: str, **config: Any) -> SortTask:
    """Return the full sort of a recording on the CPU, two cores of it."""
    settings = SorterSettings(name=sorter, device="cpu", params=PARAMS[sorter])
    row = Recording(id="x", paths=(str(recording),), reader="spikeinterface")
    return make_task(row, Config(sorter=settings, **config)).model_copy(update={"n_jobs": 2})


def run_canary(task: SortTask, folder: Path, window_s: float) -> Record:
    """Run the canary of a sort, without limits; its results are in ``x`` of the folder."""
    log.configure(folder / "log.txt")
    settings = CanarySettings(window_s=window_s, min_recording_s=window_s)
    return canary.run(task, settings, folder / "x", Job(log=folder / "log.txt"))


def measure_one(recording: Path, folder: Path, sorter: str, window_s: float) -> dict:
    """Canary and sort one recording; return what was measured."""
    task = make_sort(recording, sorter)
    verdict = run_canary(task, folder, window_s)
    record = fullsort.run(task, folder / "x", Job(log=folder / "log.txt"))
    return {
        "sorter": sorter,
        "duration_s": record.duration_s,
        "n_channels": record.n_channels,
        "canary": verdict.model_dump(
            mode="json", by_alias=True, exclude={"settings", "signal_map", "versions"}
        ),
        "actual": forecast.costs_of(record.measured),
        "stages_s": record.measured.stages_s,
        "n_spikes": record.n_spikes,
    }


def measure(arguments: argparse.Namespace) -> None:
    """Measure all combinations; each is a line of the file."""
    lines = arguments.file.read_text().splitlines() if arguments.file.exists() else []
    done = {(e["sorter"], e["duration_s"], e["n_channels"]) for e in map(json.loads, lines)}
    for minutes, n_channels in itertools.product(arguments.minutes, arguments.channels):
        wanted = [s for s in arguments.sorters if (s, 60.0 * minutes, n_channels) not in done]
        with tempfile.TemporaryDirectory() as folder:
            if wanted:
                seed = int(60 * minutes) + n_channels
                write_recording(Path(folder) / "recording", minutes, n_channels, seed)
            for sorter in wanted:
                work = Path(folder) / sorter
                found = measure_one(Path(folder) / "recording", work, sorter, arguments.window)
                with arguments.file.open("a") as file:
                    file.write(json.dumps(found) + "\n")
                print(sorter, minutes, n_channels, found["actual"], flush=True)


def predict(entry: dict, history: list[FinishedSort]) -> forecast.Forecast:
    """Forecast one of the measured sorts."""
    return forecast.forecast_sort(Record.model_validate(entry["canary"]), history)


def as_finished(entry: dict) -> FinishedSort:
    """Return one of the measured sorts as history."""
    return FinishedSort(
        recording="x",
        duration_s=entry["duration_s"],
        actual=entry["actual"],
        window=forecast.measure_growth(Record.model_validate(entry["canary"])),
    )


def show(arguments: argparse.Namespace) -> int:
    """Print forecast over actual; exit status 1 where the targets are missed."""
    entries = [json.loads(line) for line in arguments.file.read_text().splitlines()]
    entries.sort(key=lambda e: (e["sorter"], e["n_channels"], e["duration_s"]))
    errors: dict[tuple[str, str], list[float]] = {}
    short = 0
    print("forecast over actual, without history and after one sort (median of the others)")
    for entry in entries:
        others = [e for e in entries if e["sorter"] == entry["sorter"] and e is not entry]
        row = f"{entry['sorter']:15} {entry['duration_s'] / 60:4.1f} min {entry['n_channels']:3} ch"
        alone = predict(entry, [])
        learned = [predict(entry, [as_finished(other)]) for other in others]
        for cost, actual in entry["actual"].items():
            ratios = [each[cost].likely / actual for each in learned]
            without = alone[cost].likely / actual
            errors.setdefault((cost, "without history"), []).append(abs(without - 1))
            errors.setdefault((cost, "after one sort"), []).extend(abs(r - 1) for r in ratios)
            row += f" | {cost} {actual:7.0f}: {without:4.2f} {statistics.median(ratios):4.2f}"
        print(row)
        used = {"runtime": entry["actual"]["wall_s"] / 60} | {
            name: entry["actual"][name] for name in ("mem_mb", "disk_mb")
        }
        for each in [alone, *learned]:
            asked = forecast.request(ForecastSettings(), each)
            for name in (name for name in asked if asked[name] < used[name]):
                short += 1
                print(f"  asked for {name} {asked[name]}, used {used[name]:.1f}")
    missed = short
    for (cost, known), found in errors.items():
        median = statistics.median(found)
        print(f"{cost} {known}: median absolute error {100 * median:.0f} %")
        missed += cost == "wall_s" and median > MOST[known]
    print(f"requests below what was used: {short}")
    return int(missed > 0)


#: No minimum of time and memory that would hide a request that is too small.
forecast.LEAST_REQUEST.update(runtime=1, mem_mb=1)


def main() -> int:
    """Measure or show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["measure", "show"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--sorters", nargs="+", default=list(PARAMS))
    parser.add_argument("--window", type=float, default=30.0)
    arguments = parser.parse_args()
    if arguments.what == "measure":
        measure(arguments)
        return 0
    return show(arguments)


if __name__ == "__main__":
    sys.exit(main())
