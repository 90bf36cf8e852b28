"""Check the whole path on one machine, and print a table to send.

The demo's recordings go from raw data to figures: one is sorted, one has no spikes, one is
missing. gpu.py, container.py and matlab.py do so on their machines; this one uses the CPU.

    python benchmarks/machine.py
"""

import json
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from common import ROOT, snakemake

from spikecanary import preflight, sorter
from spikecanary.config import load
from spikecanary.failures import ClassifiedSortFailure
from spikecanary.table import Recording
from spikecanary.table.tsv import read_tsv, write_tsv
from spikecanary.texts import sentences

#: A header of the demo's recordings, for the checks of the machine before they are made.
HEADER = {"n_probes": 1, "n_channels": 16, "n_samples": 1_800_000, "dtype": "int16"}
#: What is expected of the demo's recordings: category of the verdict, and what became of the sort.
EXPECTED = {
    "healthy": ("", "sorted"),
    "silent": ("biological", "stopped"),
    "missing": ("environment", "stopped"),
}
SHOWN = (
    *("recording", "category", "sort", "n_units", "canary_wall_s", "forecast_s", "sort_wall_s"),
    *("forecast_mem_mb", "sort_mem_mb", "reason", "warnings"),
)


class Machine:
    """A folder with a batch of the demo's recordings; ``settings``: the config's section sorter."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.config: dict[str, Any] = {
            "recordings": "recordings.tsv",
            "sorter": settings,
            "canary": {"window_s": 20, "min_recording_s": 30},
            "outputs": ["units", "figures", "phy", "nwb"],
        }
        self.rows: list[dict[str, str]] = []

    def find_missing(self) -> list[str]:
        """Return what the machine lacks for these settings, each with its remedy."""
        row = Recording(id="x", paths=("recordings/healthy",), reader="spikeinterface")
        task = sorter.make_task(row, load(self.config))
        try:
            preflight.check_node(task, self.folder, HEADER)
        except ClassifiedSortFailure as err:
            return [sentences(err, err.remedy)]
        return []

    def add(self, name: str, recording: str, sorter_name: str = "") -> None:
        """Add a row to the table."""
        path = f"recordings/{recording}"
        row = {"recording": name, "path": path, "reader": "spikeinterface", "sorter": sorter_name}
        self.rows.append(row)

    def run(self) -> dict[str, dict[str, str]]:
        """Sort the batch; return its summary, by recording."""
        write_tsv(self.folder / "recordings.tsv", list(self.rows[0]), self.rows)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config))
        how = ["--cores", "all", "--snakefile", str(ROOT / "Snakefile")]
        snakemake(self.folder, *how, "--configfile", "config.yaml", may_fail=True)
        return {row["recording"]: row for row in read_tsv(self.folder / "results/summary.tsv")}


def describe_machine() -> str:
    """Say which machine and which versions these are."""
    packages = ("spikecanary", "spikeinterface", "kilosort", "torch")
    said = [platform.platform(), f"Python {platform.python_version()}"]
    said += [f"{name} {version(name)}" for name in packages]
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    if shutil.which(query[0]):
        said.append(subprocess.run(query, capture_output=True, text=True, check=False).stdout)
    return ", ".join(" ".join(each.split()) for each in said)


def judge(machine: Machine, found: dict[str, dict[str, str]]) -> list[str]:
    """Return what is not as it should be."""
    wrong = []
    for name, expected in EXPECTED.items():
        row = found.get(name, {})
        if (row.get("category"), row.get("sort")) != expected:
            wrong.append(f"{name}: expected {expected}, found {row.get('reason', 'nothing')}")
    made = ("figures", "units.tsv", "units.nwb", "phy/params.py")
    lacks = [name for name in made if not (machine.folder / "results/healthy" / name).exists()]
    return wrong + [f"healthy: {name} was not made" for name in lacks]


def check(settings: dict[str, Any], further: Any = None) -> int:
    """Check one kind of sort on this machine; print a table; return the exit status.

    ``further`` does more with the machine after the batch; it returns its rows, and what is wrong.
    """
    with tempfile.TemporaryDirectory() as name:
        machine = Machine(Path(name), settings)
        if missing := machine.find_missing():
            print("This machine cannot be checked:", *missing, sep="\n  ")
            return 2
        snakemake(machine.folder, "--cores", "all", "--snakefile", str(ROOT / "rules/demo.smk"))
        for row in EXPECTED:
            machine.add(row, row)
        found = machine.run()
        wrong = judge(machine, found)
        if further and not wrong:
            rows, more = further(machine)
            found, wrong = found | rows, [*wrong, *more]
        print(describe_machine())
        print(json.dumps(settings))
        for row in found.values():
            print("; ".join(f"{column} {row[column]}" for column in SHOWN if row[column]))
        print(*(wrong or ["All is as it should be."]), sep="\n")
        if wrong:
            kept = Path.cwd() / "machine-logs"
            shutil.copytree(machine.folder / "logs", kept, dirs_exist_ok=True)
            shutil.copy(machine.folder / "output.txt", kept)
            print(f"Logs: {kept}")
        print("Please send this: docs/contributing.md")
        return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(check({"name": "kilosort4", "device": "cpu", "params": {"nblocks": 0}}))
