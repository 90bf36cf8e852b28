"""What the gate costs: our DAG against a plain static one of as many jobs.

In a copy of this repository the scripts of all jobs are replaced by ones that only write their
outputs. The static DAG has rules of the same number, with the same scripts and raw files as inputs:
a canary, a sort, the default outputs, one summary. Both run alternately with the default profile;
time and peak memory are of the snakemake process.

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
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("Snakefile", "rules", "scripts", "config", "envs", "profiles")
OPTIONS = '{"sampling_frequency": 30000, "dtype": "int16", "num_channels": 4}'
#: Our dry and full runs may take so many times the static DAG's, and ten rows more so many
#: times its dry run.
MOST = {"dry": 1.3, "full": 1.3, "grow": 4.0}

#: The parameters of kilosort4 with their defaults are what makes a sort's record large.
RECORD = {
    "schema_version": 1,
    "verdict": "proceed",
    "outcome": "passed",
    "reason": "nothing done",
    "started_at": "2026-01-01T00:00:00+00:00",
    "finished_at": "2026-01-01T00:01:00+00:00",
    "duration_s": 600.0,
    "n_channels": 4,
    "n_units": 3,
    "measured": {"wall_s": 60.0, "stages_s": {"load": 1.0, "preprocess": 1.0, "sort": 58.0}},
    "versions": {"spikeinterface": "0.105.3", "kilosort": "4.1.7", "torch": "2.13.0"},
    "log": "logs/canary/x.log",
}
CANARY = """
import json
from pathlib import Path
params = snakemake.params
record = {record} | {{"recording": snakemake.wildcards.recording}}
if "settings" in params.keys():
    record["settings"] = {{n: params[n] for n in ("task", "data", "settings")}}
Path(snakemake.output.sentinel).write_text(json.dumps(record))
"""
SORT = """
import json
from pathlib import Path
params = snakemake.params
canary = json.loads(Path(snakemake.input.sentinel).read_text())
record = canary | {{"outcome": "sorted", "sorter": {sorter}}}
if "data" in params.keys():
    record["settings"] = {{n: params[n] for n in ("version", "task", "data")}}
    record["canary_settings"] = canary["settings"] | {{"attempt": 0}}
Path(snakemake.output.sorting).mkdir()
Path(snakemake.output.record).write_text(json.dumps(record))
"""
OUTPUT = """
from pathlib import Path
for path in map(Path, snakemake.output):
    is_file = path.suffix or path.name == ".exported"
    path.write_text("unit") if is_file else path.mkdir()
"""
STATIC = """
RECORDINGS = open("names.txt").read().split()
MADE = {made}

rule all:
    input: "results/summary.tsv"

rule canary:
    input: "raw/{{recording}}"
    output: sentinel="results/{{recording}}/canary.json"
    log: "logs/canary/{{recording}}.log"
    script: "canary.py"

rule sort:
    input: sentinel=ancient("results/{{recording}}/canary.json"), recording="raw/{{recording}}"
    output:
        sorting=directory("results/{{recording}}/sorting"),
        record="results/{{recording}}/sort.json",
    log: "logs/sort/{{recording}}.log"
    script: "sort.py"

rule summary:
    input: expand("results/{{recording}}/{{name}}", recording=RECORDINGS, name=MADE)
    output: "results/summary.tsv"
    shell: "touch {{output}}"
"""
STATIC_OUTPUTS = """
rule analyze:
    input: sorting="results/{recording}/sorting", record="results/{recording}/sort.json"
    output: directory("results/{recording}/analyzer"), "results/{recording}/metrics.tsv"
    log: "logs/analyze/{recording}.log"
    script: "output.py"

rule curate:
    input: "results/{recording}/analyzer", "results/{recording}/metrics.tsv"
    output: "results/{recording}/units.tsv"
    log: "logs/curate/{recording}.log"
    script: "output.py"

rule export_phy:
    input: "results/{recording}/analyzer", "results/{recording}/units.tsv"
    output: directory("results/{recording}/phy")
    log: "logs/phy/{recording}.log"
    script: "output.py"

rule export_nwb:
    input: "results/{recording}/analyzer", "results/{recording}/units.tsv"
    output: "results/{recording}/units.nwb"
    log: "logs/nwb/{recording}.log"
    script: "output.py"

rule figures:
    input: "results/{recording}/analyzer", "results/{recording}/units.tsv"
    output: directory("results/{recording}/figures")
    log: "logs/figures/{recording}.log"
    script: "output.py"
"""


def describe_sorter() -> dict[str, Any]:
    """Return what a record says of kilosort4, all parameters in full."""
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
        (self.static / "raw").mkdir(parents=True)
        self.ours.mkdir()
        (self.ours / "raw").symlink_to(self.static / "raw")
        for name in COPIED:
            source, target = ROOT / name, self.ours / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        made = ["sort.json"]
        config = {"job": {"threads": 1}}
        config["gate"] = {"wave_size": arguments.wave_size}
        if arguments.outputs == "none":
            config["outputs"] = []
            (self.static / "Snakefile").write_text(STATIC.format(made=made))
        else:
            made += ["units.tsv", "phy", "units.nwb", "figures"]
            (self.static / "Snakefile").write_text(STATIC.format(made=made) + STATIC_OUTPUTS)
        (self.ours / "more.yaml").write_text(yaml.safe_dump(config))
        (self.static / "more.yaml").write_text("{}")
        shutil.copytree(ROOT / "profiles", self.static / "profiles")
        sorter = describe_sorter()
        small = {name: value for name, value in sorter.items() if name != "params"}
        for target in (self.ours / "scripts", self.static):
            (target / "canary.py").write_text(CANARY.format(record=RECORD | {"sorter": small}))
            (target / "sort.py").write_text(SORT.format(sorter=sorter))
            for name in ("output", "analyze", "curate", "export", "figures"):
                (target / f"{name}.py").write_text(OUTPUT)

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

    def clear(self) -> None:
        """Remove what runs left."""
        for folder in (self.ours, self.static):
            for name in ("results", "logs", "benchmarks", ".snakemake"):
                shutil.rmtree(folder / name, ignore_errors=True)


def run(folder: Path, *arguments: str) -> tuple[float, float]:
    """Run snakemake; return its wall time in s and its peak memory in MB."""
    given = [*arguments, "--cores", "2", "--quiet", "all", "--configfile", "more.yaml"]
    command = [sys.executable, "-m", "snakemake", *given]
    with (folder / "output.txt").open("w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        took_s = time.perf_counter() - started
    if status:
        sys.exit(f"snakemake failed in {folder}:\n{(folder / 'output.txt').read_text()[-3000:]}")
    return took_s, usage.ru_maxrss / 1000


def compare(n: int, arguments: argparse.Namespace) -> float:
    """Run both alternately; print and return our time over the static one's, the median."""
    further = ["--dry-run"] if arguments.what == "dry" else []
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        batch = Batch(Path(folder), arguments)
        batch.grow(n)
        both = (batch.ours, batch.static)
        for number in range(arguments.rounds):
            batch.clear()
            found = {each: run(each, *further) for each in (both if number % 2 else both[::-1])}
            taken.append([found[each] for each in both])
            (ours_s, ours_mb), (static_s, static_mb) = taken[-1]
            print(
                f"{n:6} recordings: ours {ours_s:7.1f} s {ours_mb:6.0f} MB, "
                f"static {static_s:7.1f} s {static_mb:6.0f} MB, ratio {ours_s / static_s:.2f}",
                flush=True,
            )
    median = statistics.median(ours[0] / static[0] for ours, static in taken)
    print(f"{n:6} recordings: median ratio {median:.2f}")
    return median


def grow(n: int, arguments: argparse.Namespace) -> float:
    """Add ten rows to finished ones, really run; return its time over a static dry run's."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        batch = Batch(Path(folder), arguments)
        batch.grow(n)
        first_s, static_first_s = run(batch.ours)[0], run(batch.static)[0]
        print(f"{n:6} recordings, full run: ours {first_s:.0f} s, static {static_first_s:.0f} s")
        for number in range(1, arguments.rounds + 1):
            batch.grow(n + 10 * number)
            ours_s, _ = run(batch.ours)
            static_s, _ = run(batch.static, "--dry-run")
            run(batch.static)
            ours_dry_s, _ = run(batch.ours, "--dry-run")
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
    measure = grow if arguments.what == "grow" else compare
    return int(max(measure(n, arguments) for n in sizes) > MOST[arguments.what])


if __name__ == "__main__":
    sys.exit(main())
