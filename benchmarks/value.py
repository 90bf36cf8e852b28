"""What the gate is worth: a batch in which some sorts fail, with canaries and without.

Twelve small seeded recordings go through the workflow with Kilosort 4 on the CPU. Four fail: one is
silent, one has flat channels only, and the sorter of two lacks a module that it imports after the
sort, as the reader of a result may (a plugin: Kilosort 4 with that import at its end). Gated is the
default; the other side has `canary.window_s: 0`. Measured of each: when the last failure was known,
what was spent in sorts that failed, and the whole time.

    python benchmarks/value.py [--minutes 3] [--cores 2]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
RATE_HZ = 30_000.0
#: Rows of the table that fail, and how.
FAULTS = {2: "silent", 5: "lacks_module", 8: "flat", 11: "lacks_module"}

PLUGIN = """
from spikeinterface.sorters.external.kilosort4 import Kilosort4Sorter


class LacksModule(Kilosort4Sorter):
    sorter_name = "kilosort4_lacks_module"

    @classmethod
    def _run_from_folder(cls, sorter_output_folder, params, verbose):
        super()._run_from_folder(sorter_output_folder, params, verbose)
        import a_module_that_is_not_installed
"""


def write_batch(folder: Path, minutes: float) -> None:
    """Write the recordings, a table and a config without results."""
    from spikeinterface.core import NumpyRecording
    from spikeinterface.generation import generate_ground_truth_recording

    rows = ["recording\tpath\treader\tsorter"]
    for number in range(12):
        fault = FAULTS.get(number, "")
        recording, _ = generate_ground_truth_recording(
            durations=[60 * minutes],
            sampling_frequency=RATE_HZ,
            num_channels=16,
            num_units=8,
            noise_kwargs={"noise_levels": 5.0, "strategy": "on_the_fly"},
            seed=number,
        )
        if fault in ("silent", "flat"):
            shape = (recording.get_num_samples(), 16)
            level = 5.0 if fault == "silent" else 0.0
            traces = np.random.default_rng(number).normal(0.0, level, shape).astype("float32")
            probe = recording.get_probegroup()
            recording = NumpyRecording(traces, RATE_HZ)
            recording.set_probegroup(probe)
            recording.set_channel_gains(1.0)
            recording.set_channel_offsets(0.0)
        name = "-".join(filter(None, [f"r{number + 1:02d}", fault]))
        recording.save(folder=folder / "raw" / name, dtype="int16", progress_bar=False)
        sorter = "kilosort4_lacks_module" if fault == "lacks_module" else ""
        rows.append(f"{name}\t{folder}/raw/{name}\tspikeinterface\t{sorter}")
    (folder / "recordings.tsv").write_text("\n".join(rows) + "\n")
    (folder / "plugin.py").write_text(PLUGIN)


def run(folder: Path, name: str, window_s: float, cores: int) -> dict[str, Any]:
    """Run the batch; return what was measured, times in s."""
    place = folder / name
    place.mkdir()
    params = {"nblocks": 0}
    config = {
        "recordings": str(folder / "recordings.tsv"),
        "sorter": {
            "name": "kilosort4",
            "device": "cpu",
            "params": params,
            "params_of": {"kilosort4_lacks_module": params},
            "plugin": str(folder / "plugin.py"),
        },
        "canary": {"window_s": window_s, "min_recording_s": 60},
        "job": {"threads": 1},
        "outputs": [],
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    snakefile = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml"]
    command = [sys.executable, "-m", "snakemake", *snakefile, "--cores", str(cores)]
    began, clock = time.time(), time.perf_counter()
    with (place / "output.txt").open("w") as output:
        subprocess.run(command, cwd=place, stdout=output, stderr=output, check=False)
    took_s = time.perf_counter() - clock
    failures = [line for line in read_journals(place / "results") if is_failure(line)]
    ends = [datetime.fromisoformat(line["finished_at"]).timestamp() - began for line in failures]
    sorts = [line for line in failures if line["kind"] == "sort"]
    return {
        "failures": len(failures),
        "last_known_s": max(ends),
        "failing_sorts_s": sum(line["measured"]["wall_s"] for line in sorts),
        "whole_s": took_s,
        "sorted": len(list((place / "results").glob("*/sort.json"))) - len(sorts_without(sorts)),
    }


def read_journals(results: Path) -> list[dict[str, Any]]:
    """Read the journals of all recordings."""
    lines = [line for path in results.glob("*/attempts.jsonl") for line in path.open()]
    return [json.loads(line) for line in lines]


def is_failure(line: dict[str, Any]) -> bool:
    """Whether an attempt tells that a recording cannot be sorted."""
    return line["outcome"] in ("stopped", "failed", "unsortable")


def sorts_without(sorts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the sorts that ended without units to sort: they have a record, too."""
    return [line for line in sorts if line["outcome"] == "unsortable"]


def main() -> None:
    """Measure both sides, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_batch(folder, arguments.minutes)
        sides = {"gated": 20.0, "without canaries": 0.0}
        for side, window_s in sides.items():
            found = run(folder, side.split()[0], window_s, arguments.cores)
            print(
                f"{side:16} {found['sorted']} sorted, {found['failures']} failures, the last known "
                f"after {found['last_known_s']:.0f} s; {found['failing_sorts_s']:.0f} s in sorts "
                f"that failed; whole run {found['whole_s']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
