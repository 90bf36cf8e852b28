"""Does the forecast know what will not fit? Real sorts under artificial limits.

Four recordings (1 and 2 minutes x 16 and 32 channels), each canaried once without a limit,
then sorted by Kilosort 4 on the CPU under a limit of memory, of time and of disk (a small
tmpfs, so this needs root): twelve combinations. What the capacity check says before is
compared with how the sort ends.

    python benchmarks/capacity.py [--memory 850] [--time 45] [--disk 110]
"""

import argparse
import contextlib
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common import write_recording
from forecast import make_sort, run_canary

from spikecanary import forecast, fullsort, preflight
from spikecanary.config import WatchdogSettings
from spikecanary.sorter import SortTask
from spikecanary.supervise.job import Job

WINDOW_S = 15.0
#: Filtered, so that Kilosort 4 is given a copy of the whole recording: disk that grows.
PREPROCESSING = {"bandpass_filter": {"freq_min": 300.0, "freq_max": 6000.0}}


@contextlib.contextmanager
def small_disk(folder: Path, size_mb: float | None) -> Iterator[Path]:
    """Yield a folder on a disk of a size; None: on the disk there is."""
    folder.mkdir()
    if size_mb is not None:
        options = f"size={size_mb * 1e6:.0f}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        if size_mb is not None:
            subprocess.run(["umount", "--lazy", folder], check=True)


def sort(task: SortTask, folder: Path, sentinel: Path, limits: dict[str, float]) -> str:
    """Sort under limits; return how that ended."""
    with small_disk(folder, limits.get("disk_mb")) as results:
        (results / "x").mkdir()
        shutil.copy(sentinel, results / "x/canary.json")
        job = Job(
            log=folder.with_suffix(".log"),
            watchdogs=WatchdogSettings(min_free_disk_mb=2),
            mem_mb=limits.get("mem_mb"),
            runtime_min=limits["wall_s"] / 60 if "wall_s" in limits else None,
        )
        try:
            fullsort.run(task, results / "x", job)
        except fullsort.SortFailedError as err:
            return f"failed: {str(err).split(': ', 2)[2][:60]}"
        return "sorted"


def main() -> int:
    """Measure; exit status 1 where a sort that fits was to be stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=float, default=850.0)
    parser.add_argument("--time", type=float, default=45.0)
    parser.add_argument("--disk", type=float, default=110.0)
    arguments = parser.parse_args()
    preflight.MIN_FREE_DISK_MB = 0.0  # the small disk is to be found by the forecast
    limits = {"mem_mb": arguments.memory, "wall_s": arguments.time, "disk_mb": arguments.disk}
    counts = Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory() as name:
        for minutes, n_channels in itertools.product((1, 2), (16, 32)):
            folder = Path(name) / f"{minutes}-{n_channels}"
            write_recording(folder / "recording", minutes, n_channels, 60 * minutes + n_channels)
            task = make_sort(folder / "recording", "kilosort4", preprocessing=PREPROCESSING)
            verdict = run_canary(task, folder, WINDOW_S)
            for cost, limit in limits.items():
                failure, warnings = forecast.check_capacity(verdict.forecast, {cost: limit}, task)
                said = "stop" if failure else "warn" if warnings else "fits"
                ended = sort(task, folder / cost, folder / "x/canary.json", {cost: limit})
                counts[said, ended.partition(":")[0]] += 1
                expected = verdict.forecast[cost]
                print(
                    f"{minutes} min {n_channels} ch, {cost} {limit:.0f}: forecast "
                    f"{expected.low:.0f} to {expected.high:.0f} ({expected.likely:.0f}): {said}; "
                    f"{ended}",
                    flush=True,
                )
    print(*(f"{said}, {ended}: {n}" for (said, ended), n in sorted(counts.items())), sep="\n")
    return int(counts["stop", "sorted"] > 0)


if __name__ == "__main__":
    sys.exit(main())
