"""What Slurm's executor costs: whole batches on a cluster here, and a bare array of as many jobs.

The cluster is that of tests/slurm: three nodes on this machine (root, slurm-wlm, munge). Scripts
only write their outputs (benchmarks/dag_scale.py), so what is measured is Snakemake, its executor
and Slurm: jobs, submissions, wall time. The second batch puts canaries into groups of one job each.

    python benchmarks/slurm.py [30] [--components 10]
"""

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, run
from dag_scale import Batch

sys.path.insert(0, str(ROOT / "tests/slurm"))

from cluster import Cluster, wait_until, why_not

MEM_MB = 500
#: Nothing here is far away, so nobody has to wait for it.
QUICK = ["--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "2"]


def list_jobs(cluster: Cluster) -> list[dict[str, str]]:
    """Return every job that the cluster knows, as what ``scontrol show job`` prints of it."""
    lines = cluster.run("scontrol", "--oneliner", "show", "job").splitlines()
    found = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
    return [job for job in found if "JobId" in job]


def show(what: str, cluster: Cluster, seen: set[str], took_s: float) -> None:
    """Print the jobs and submissions that are new, and what they took."""
    new = [job for job in list_jobs(cluster) if job["JobId"] not in seen]
    seen |= {job["JobId"] for job in new}
    submissions = {job.get("ArrayJobId", job["JobId"]) for job in new}
    print(f"{what:30} {len(new):4} jobs, {len(submissions):4} submissions, {took_s:6.0f} s")


def run_batch(cluster: Cluster, folder: Path, n: int, *further: str) -> float:
    """Run a batch through the profile; return its wall time in s."""
    batch = Batch(folder, argparse.Namespace(outputs="none", files=0, wave_size=50))
    batch.grow(n)
    batch.engine.config["job"] = {
        "threads": 1,
        "mem_mb": MEM_MB,
        "canary_runtime_min": 5,
        "sort_runtime_min": 5,
    }
    profile = ["--profile", str(ROOT / "profiles/slurm"), "--slurm-no-account", *QUICK]
    command = batch.engine.command(*profile, *further)
    return run(command, batch.ours, env=cluster.environment)[0]


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n", type=int, nargs="?", default=30)
    parser.add_argument("--components", type=int, default=10)
    arguments = parser.parse_args()
    if reason := why_not():
        sys.exit(reason)
    groups = ["--groups", "canary=canaries", "--group-components"]
    groups += [f"canaries={arguments.components}", "--resources", f"mem_mb={MEM_MB}"]
    with tempfile.TemporaryDirectory() as name, Cluster(Path(name, "cluster")) as cluster:
        seen: set[str] = set()
        started = time.perf_counter()
        cluster.run(
            *("sbatch", f"--array=1-{2 * arguments.n}", f"--mem={MEM_MB}", "--output=/dev/null"),
            *("--wrap", "true"),
        )
        wait_until(lambda: not cluster.run("squeue", "--noheader"), 600)
        show("sbatch --array", cluster, seen, time.perf_counter() - started)
        for what, further in (
            ("canaries as an array", ["--slurm-array-jobs", "canary"]),
            ("canaries in groups", groups),
        ):
            show(what, cluster, seen, run_batch(cluster, Path(name, what), arguments.n, *further))
    return 0


if __name__ == "__main__":
    sys.exit(main())
