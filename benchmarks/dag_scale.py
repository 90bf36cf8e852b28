"""What the gate costs: our DAG against a plain static one of as many jobs.

In a copy of this repository the scripts of all jobs are those of tests/stubs, which only write
their outputs. The static DAG has rules of the same number, with such a script and raw files as
inputs: a canary, a sort, the default outputs, one summary. Both run alternately with the default
profile; time and peak memory are of the snakemake process.

    python benchmarks/dag_scale.py dry [1000 10000] [--rounds 3]
    python benchmarks/dag_scale.py full [1000] [--rounds 1]
    python benchmarks/dag_scale.py grow [1000]    ten rows more, to a dry run

``--outputs none`` leaves out what is made of a sorting. ``--files 1000`` makes each recording a
folder of so many files. ``--wave-size 50``: the size of a wave.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from common import ROOT, compare, run

sys.path.insert(0, str(ROOT / "tests"))

from engine import OPTIONS, Engine
from spikecanary.config import Config

#: Our dry and full runs may take so many times the static DAG's, and ten rows more so many
#: times its dry run.
MOST = {"dry": 1.3, "full": 1.3, "grow": 4.0}

OUTPUT = """
from pathlib import Path
for path in map(Path, snakemake.output):
    is_file = path.suffix or path.name == ".exported"
    path.write_text("unit") if is_file else path.mkdir()
"""
STATIC = """
RECORDINGS = open("names.txt").read().split()

rule all:
    input: "results/summary.tsv"

rule canary:
    input: "raw/{recording}"
    output: sentinel="results/{recording}/canary.json"
    log: "logs/canary/{recording}.log"
    script: "script.py"

rule sort:
    input: sentinel=ancient("results/{recording}/canary.json"), recording="raw/{recording}"
    output:
        sorting=directory("results/{recording}/sorting"),
        record="results/{recording}/sort.json",
    log: "logs/sort/{recording}.log"
    script: "script.py"

rule summary:
    input: expand("results/{recording}/{name}", recording=RECORDINGS, name=MADE)
    output: "results/summary.tsv"
    shell: "touch {output}"
"""
STATIC_OUTPUTS = """
rule analyze:
    input: sorting="results/{recording}/sorting", record="results/{recording}/sort.json"
    output: directory("results/{recording}/analyzer"), "results/{recording}/metrics.tsv"
    log: "logs/analyze/{recording}.log"
    script: "script.py"

rule curate:
    input: "results/{recording}/analyzer", "results/{recording}/metrics.tsv"
    output: "results/{recording}/units.tsv"
    log: "logs/curate/{recording}.log"
    script: "script.py"

for made in ("phy", "figures", "units.nwb"):
    rule:
        name: f"export_{made.removeprefix('units.')}"
        input: "results/{recording}/analyzer", "results/{recording}/units.tsv"
        output: (str if "." in made else directory)("results/{recording}/" + made)
        log: f"logs/{made}/{{recording}}.log"
        script: "script.py"
"""


def describe_sorter() -> dict[str, Any]:
    """Return what a record says of kilosort4: all its parameters, which make a record large."""
    from spikeinterface.sorters import sorter_dict

    text = json.dumps(sorter_dict["kilosort4"].default_params(), default=str)
    params = json.loads(text, parse_constant=str)
    return {"name": "kilosort4", "version": "4.1.7", "params_digest": "0", "params": params}


class Batch:
    """Both projects with the same raw files."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self.ours, self.static = folder / "ours", folder / "static"
        self.n_files = arguments.files
        self.n = 0
        self.ours.mkdir(parents=True)
        (self.static / "raw").mkdir(parents=True)
        shutil.copytree(ROOT / "profiles", self.static / "profiles")
        (self.static / "script.py").write_text(OUTPUT)
        made, text, config = ["sort.json"], STATIC, {"gate": {"wave_size": arguments.wave_size}}
        if arguments.outputs == "none":
            config["outputs"] = []
        else:
            made += ["units.tsv", "phy", "units.nwb", "figures"]
            text += STATIC_OUTPUTS
            config["outputs"] = Config().outputs
        (self.static / "Snakefile").write_text(text.replace("MADE", str(made)))
        self.engine = Engine(self.ours, "", **config)
        (self.ours / "raw").symlink_to(self.static / "raw")
        stub = self.ours / "scripts/canary.py"
        small = '{"name": "stub", "params_digest": "0"}'
        stub.write_text(stub.read_text().replace(small, repr(describe_sorter())))
        for name in ("analyze", "curate", "export", "figures"):
            (self.ours / f"scripts/{name}.py").write_text(OUTPUT)

    def grow(self, n: int) -> None:
        """Make it n recordings."""
        names = [f"rec{number:05d}" for number in range(n)]
        when = time.time() - 10_000
        for name in names[self.n :]:
            raw = self.static / "raw" / name
            paths = [raw]
            if self.n_files:
                raw.mkdir()
                paths = [raw / f"CSC{number}.ncs" for number in range(self.n_files)]
            for path in paths:
                path.touch()
                os.utime(path, (when, when))
            os.utime(raw, (when, when))
        self.n = n
        reader = "neuralynx\t" if self.n_files else f"binary\t{OPTIONS}"
        rows = [f"{name}\traw/{name}\t{reader}" for name in names]
        table = ["recording\tpath\treader\treader_options", *rows]
        (self.ours / "config/recordings.tsv").write_text("\n".join(table) + "\n")
        (self.static / "names.txt").write_text("\n".join(names))

    def run_ours(self, *arguments: str, new: bool = False) -> tuple[float, float]:
        """Run our project; return its wall time in s and its peak memory in MB."""
        command = self.engine.command("--quiet", "all", *arguments, cores=2)
        return self._run(self.ours, command, new=new)

    def run_static(self, *arguments: str, new: bool = False) -> tuple[float, float]:
        """Run the static project; return its wall time in s and its peak memory in MB."""
        command = [sys.executable, "-m", "snakemake", "--quiet", "all", "--cores", "2", *arguments]
        return self._run(self.static, command, new=new)

    def _run(self, folder: Path, command: list[str], *, new: bool) -> tuple[float, float]:
        for name in ("results", "logs", "benchmarks", ".snakemake") if new else ():
            shutil.rmtree(folder / name, ignore_errors=True)
        return run(command, folder)


def compare_both(n: int, arguments: argparse.Namespace) -> float:
    """Run both alternately; return our time over the static one's, the median."""
    further = ["--dry-run"] if arguments.what == "dry" else []
    with tempfile.TemporaryDirectory() as folder:
        batch = Batch(Path(folder), arguments)
        batch.grow(n)
        both = {"ours": batch.run_ours, "static": batch.run_static}
        sides = {name: partial(side, *further, new=True) for name, side in both.items()}
        return compare(f"{n:6} recordings", sides, arguments.rounds)


def grow(n: int, arguments: argparse.Namespace) -> float:
    """Add ten rows to finished ones, really run; return its time over a static dry run's."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        batch = Batch(Path(folder), arguments)
        batch.grow(n)
        first_s, static_first_s = batch.run_ours()[0], batch.run_static()[0]
        print(f"{n:6} recordings, full run: ours {first_s:.0f} s, static {static_first_s:.0f} s")
        for number in range(1, arguments.rounds + 1):
            batch.grow(n + 10 * number)
            ours_s, _ = batch.run_ours()
            static_s, _ = batch.run_static("--dry-run")
            batch.run_static()
            ours_dry_s, _ = batch.run_ours("--dry-run")
            ratios.append(ours_s / static_s)
            print(
                f"{n:6} finished, ten more: run {ours_s:.1f} s, static dry run {static_s:.1f} s, "
                f"ratio {ratios[-1]:.2f}; our dry run of all that is finished {ours_dry_s:.1f} s",
                flush=True,
            )
    print(f"{n:6} finished, ten more: median ratio {statistics.median(ratios):.2f}")
    return statistics.median(ratios)


def main() -> int:
    """Measure; exit status 1 where our time is more than allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=list(MOST))
    parser.add_argument("sizes", type=int, nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--outputs", choices=["default", "none"], default="default")
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--wave-size", type=int, default=50)
    arguments = parser.parse_args()
    sizes = arguments.sizes or ([1000, 10_000] if arguments.what == "dry" else [1000])
    measure = grow if arguments.what == "grow" else compare_both
    return int(max(measure(n, arguments) for n in sizes) > MOST[arguments.what])


if __name__ == "__main__":
    sys.exit(main())
