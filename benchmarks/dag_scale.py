"""What the gate costs: our DAG against a plain static one of the same size.

The scripts of canary and sort are replaced by ones that only write their outputs, in a
copy of this repository; the static DAG has three rules with the same scripts: canary,
sort, summary. Both run alternately; time and peak memory are of the snakemake process.

    python benchmarks/dag_scale.py dry [100 1000 10000] [--rounds 3]
    python benchmarks/dag_scale.py full [100 300 1000] [--rounds 1]
    python benchmarks/dag_scale.py grow [1000] ten recordings more, the others done
"""

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("Snakefile", "rules", "scripts", "config", "envs", "profiles")

#: Writes what the real scripts write, as quickly as possible.
CANARY = """
import json
from pathlib import Path
record = {record}
record["recording"] = snakemake.wildcards.recording
record["settings"] = snakemake.params.get("given", {{}}).get("settings", {{}})
Path(snakemake.output.sentinel).write_text(json.dumps(record))
"""
SORT = """
import json
from pathlib import Path
record = {record}
record["recording"] = snakemake.wildcards.recording
record["outcome"] = "sorted"
record["settings"] = snakemake.params.get("given", {{}}).get("settings", {{}})
Path(snakemake.output.sorting).mkdir()
Path(snakemake.output.record).write_text(json.dumps(record))
"""
RECORD = {
    "schema_version": 1,
    "verdict": "proceed",
    "outcome": "passed",
    "reason": "nothing done",
    "started_at": "2026-01-01T00:00:00+00:00",
    "finished_at": "2026-01-01T00:01:00+00:00",
    "duration_s": 600.0,
    "n_channels": 4,
}

#: Ten recordings beside finished ones may take so much more than alone: reading their records.
GROW_MOST = 1.25

STATIC = """
RECORDINGS = open("names.txt").read().split()

rule all:
    input: "results/summary.tsv"

rule canary:
    input: "x.raw"
    output: sentinel="results/{recording}/canary.json"
    log: "logs/canary/{recording}.log"
    script: "canary.py"

rule sort:
    input: sentinel=ancient("results/{recording}/canary.json"), recording="x.raw"
    output:
        sorting=directory("results/{recording}/sorting"),
        record="results/{recording}/sort.json",
    log: "logs/sort/{recording}.log"
    script: "sort.py"

rule summary:
    input: expand("results/{recording}/sort.json", recording=RECORDINGS)
    output: "results/summary.tsv"
    shell: "touch {output}"
"""


def digest_of_sorter(ours: Path) -> str:
    """Return the parameters digest that the copy's config has."""
    sys.path.insert(0, str(ours / "scripts"))
    from spikecanary import sorters
    from spikecanary.config import Config
    from spikecanary.recordings import Recording

    task = sorters.make_task(Recording(id="x", paths=("x.raw",), reader="binary"), Config())
    return task.digest()


def make(folder: Path, n: int) -> tuple[Path, Path]:
    """Write both projects of n recordings; return their folders."""
    ours, static = folder / "ours", folder / "static"
    for each in (ours, static):
        each.mkdir(exist_ok=True)
        (each / "x.raw").write_bytes(b"\0" * 1000)
        old = time.time() - 1000
        os.utime(each / "x.raw", (old, old))
    for name in COPIED:
        source, target = ROOT / name, ours / name
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    # As the static DAG: jobs on one core each, nothing after the sort.
    config = ours / "config/config.yaml"
    text = config.read_text().replace("\n  threads: 4\n", "\n  threads: 1\n")
    config.write_text(text + "\noutputs: []\n")
    record = RECORD | {"sorter": {"name": "none", "params_digest": digest_of_sorter(ours)}}
    for target in (ours / "scripts", static):
        (target / "canary.py").write_text(CANARY.format(record=record))
        (target / "sort.py").write_text(SORT.format(record=record))
    (static / "Snakefile").write_text(STATIC)
    add(ours, static, n)
    return ours, static


def add(ours: Path, static: Path, n: int) -> None:
    """Make it n recordings."""
    options = '{"sampling_frequency": 30000, "dtype": "int16", "num_channels": 4}'
    rows = [f"rec{number:05d}\tx.raw\tbinary\t{options}" for number in range(n)]
    table = ["recording\tpath\treader\treader_options", *rows]
    (ours / "config/recordings.tsv").write_text("\n".join(table) + "\n")
    (static / "names.txt").write_text("\n".join(row.split("\t")[0] for row in rows))


def run(folder: Path, *arguments: str) -> tuple[float, float]:
    """Run snakemake; return its wall time in s and its peak memory in MB."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all", *arguments]
    with (folder / "output.txt").open("w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        took_s = time.perf_counter() - started
    if status:
        sys.exit(f"snakemake failed in {folder}:\n{(folder / 'output.txt').read_text()[-3000:]}")
    return took_s, usage.ru_maxrss / 1000


def clear(*folders: Path) -> None:
    """Remove what a run left."""
    for folder in folders:
        for name in ("results", "logs", "benchmarks", ".snakemake"):
            shutil.rmtree(folder / name, ignore_errors=True)


def compare(sizes: list[int], rounds: int, *arguments: str) -> dict[int, float]:
    """Run both of each size alternately; print and return our time over the static one's."""
    ratios, times = {}, {}
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            both = make(Path(folder), n)
            taken = []
            for number in range(rounds):
                clear(*both)
                order = both if number % 2 else both[::-1]
                found = {each: run(each, *arguments) for each in order}
                taken.append([found[each] for each in both])
            ratios[n] = statistics.median(ours[0] / static[0] for ours, static in taken)
            times[n] = statistics.median(ours[0] for ours, _ in taken)
            static_s = statistics.median(static[0] for _, static in taken)
            (_, ours_mb), (_, static_mb) = taken[-1]
            print(
                f"{n:6} recordings: ours {times[n]:7.1f} s {ours_mb:6.0f} MB, "
                f"static {static_s:7.1f} s {static_mb:6.0f} MB, ratio {ratios[n]:.2f}",
                flush=True,
            )
    if len(times) > 1:
        print(f"exponent of our time: {exponent(times):.2f}")
    return ratios


def exponent(times: dict[int, float]) -> float:
    """Return the slope of a straight line through log time over log size."""
    points = [(math.log(n), math.log(took)) for n, took in times.items()]
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def grow(sizes: list[int], rounds: int) -> float:
    """Add ten recordings to many that are done, and to none; return the worst median ratio."""
    worst = 0.0
    for n in sizes:
        ratios = []
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
            many, static = make(Path(folder), n)
            run(many)
            for number in range(1, rounds + 1):
                add(many, static, n + 10 * number)
                more_s, _ = run(many)
                few, _ = make(Path(other), 10)
                clear(few)
                alone_s, _ = run(few)
                ratios.append(more_s / alone_s)
                print(f"ten recordings: alone {alone_s:.1f} s, beside {n} done {more_s:.1f} s")
        worst = max(worst, statistics.median(ratios))
        print(f"median ratio {worst:.2f}")
    return worst


def main() -> int:
    """Measure; exit status 1 where our time is more than allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["dry", "full", "grow"])
    parser.add_argument("sizes", type=int, nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "grow":
        return int(grow(arguments.sizes or [1000], arguments.rounds) > GROW_MOST)
    dry = arguments.what == "dry"
    sizes = arguments.sizes or ([100, 1000, 10_000] if dry else [100, 300, 1000])
    ratios = compare(sizes, arguments.rounds, *(["--dry-run"] if dry else []))
    return int(max(ratios.values()) > (1.5 if dry else 2.0))


if __name__ == "__main__":
    sys.exit(main())
