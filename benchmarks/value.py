"""What the gate is worth: a batch in which some sorts fail, with canaries and without.

Twelve small seeded recordings go through the workflow with Kilosort 4 on the CPU. Four fail: one is
silent, one has flat channels only, and the sorter of two lacks a module that it imports after the
sort, as the reader of a result may (a plugin: Kilosort 4 with that import at its end). Gated is the
default; the other side has `canary.window_s: 0`. Measured of each: when the last failure was known,
what was spent in sorts that failed, and the whole time.

    python benchmarks/value.py [--minutes 3] [--cores 2]
"""

import argparse
import tempfile
import time
from datetime import datetime
from pathlib import Path

import yaml
from common import ROOT, snakemake, write_recording

from spikecanary.sentinel import read_journal

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
    """Write the recordings, a table and a plugin."""
    rows = ["recording\tpath\treader\tsorter"]
    for number in range(12):
        fault = FAULTS.get(number, "")
        lacks_module = fault == "lacks_module"
        name = "-".join(filter(None, [f"r{number + 1:02d}", fault]))
        write_recording(folder / "raw" / name, minutes, 16, number, "" if lacks_module else fault)
        sorter = "kilosort4_lacks_module" if lacks_module else ""
        rows.append(f"{name}\t{folder}/raw/{name}\tspikeinterface\t{sorter}")
    (folder / "recordings.tsv").write_text("\n".join(rows) + "\n")
    (folder / "plugin.py").write_text(PLUGIN)


def run_batch(folder: Path, name: str, window_s: float, cores: int) -> str:
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
    began = time.time()
    took_s, _ = snakemake(place, *snakefile, "--cores", str(cores), may_fail=True)
    journals = place.glob("results/*/attempts.jsonl")
    ends = [line for journal in journals for line in read_journal(journal)]
    failures = [line for line in ends if line["outcome"] in ("stopped", "failed", "unsortable")]
    last = max(datetime.fromisoformat(line["finished_at"]).timestamp() for line in failures)
    failing_s = sum(line["measured"]["wall_s"] for line in failures if line["kind"] == "sort")
    return (
        f"{sum(line['outcome'] == 'sorted' for line in ends)} sorted, {len(failures)} failures, "
        f"the last known after {last - began:.0f} s; {failing_s:.0f} s in sorts that failed; whole "
        f"run {took_s:.0f} s"
    )


def main() -> None:
    """Measure both sides, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_batch(folder, arguments.minutes)
        for side, window_s in {"gated": 20.0, "without canaries": 0.0}.items():
            told = run_batch(folder, side.split()[0], window_s, arguments.cores)
            print(f"{side:16} {told}", flush=True)


if __name__ == "__main__":
    main()
