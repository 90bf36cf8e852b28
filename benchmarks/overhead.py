"""What the canary costs beside the sorter: its wall time over a bare ``run_sorter``.

Both sort the same 30 s of 32 channels with Kilosort 4 on the CPU, each in a new Python
process, in alternating pairs; the median of the pairs' ratios is the result. With
``--recording-s 600`` the window is one of a recording of ten minutes.

    python benchmarks/overhead.py [--pairs 5] [--recording-s 35] [--most 1.0]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
WINDOW_S = 30.0
N_CHANNELS = 32
RATE_HZ = 30_000.0

BARE = """
import sys
from spikeinterface.core import load, set_global_job_kwargs
from spikeinterface.sorters import run_sorter

recording, folder, threads = sys.argv[1:]
set_global_job_kwargs(n_jobs=int(threads), progress_bar=False)
window = load(recording).frame_slice(0, round({window_s} * {rate_hz}))
run_sorter("kilosort4", window, folder=folder + "/sorter", verbose=True, torch_device="cpu")
"""

CANARY = """
import sys
from pathlib import Path
from spikecanary import canary
from spikecanary.supervise import log
from spikecanary.config import CanarySettings, SorterSettings
from spikecanary.supervise.job import Job
from spikecanary.table import Recording
from spikecanary.sorter import SortTask

recording, folder, threads = sys.argv[1:]
folder = Path(folder)
log.configure(folder / "log.txt")
record = canary.run(
    SortTask(
        row=Recording(id="x", paths=(recording,), reader="spikeinterface"),
        sorter=SorterSettings(name="kilosort4", device="cpu"),
        n_jobs=int(threads),
    ),
    CanarySettings(window_s={window_s}, min_recording_s={window_s}),
    folder,
    Job(log=folder / "log.txt", mem_mb=24_000, runtime_min=60),
)
assert record.outcome == "passed", record.reason
"""


def write_recording(folder: Path, duration_s: float) -> Path:
    """Write a seeded recording."""
    from spikeinterface.core import set_global_job_kwargs
    from spikeinterface.generation import generate_ground_truth_recording

    set_global_job_kwargs(progress_bar=False)
    recording, _ = generate_ground_truth_recording(
        durations=[duration_s],
        sampling_frequency=RATE_HZ,
        num_channels=N_CHANNELS,
        num_units=20,
        seed=3,
    )
    recording.save(folder=folder / "recording", dtype="int16")
    return folder / "recording"


def time_s(code: str, recording: Path, threads: int) -> float:
    """Run code in a new Python process; return its wall time in s."""
    text = code.format(window_s=WINDOW_S, rate_hz=RATE_HZ)
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "output.txt").open("w") as out:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", text, str(recording), folder, str(threads)],
            check=True,
            stdout=out,
            stderr=out,
            env={
                "PYTHONPATH": str(SCRIPTS),
                "OMP_NUM_THREADS": str(threads),
                "PATH": "/usr/bin:/bin",
            },
        )
        return time.perf_counter() - started


def main() -> int:
    """Measure and print; exit status 1 where the median ratio is above ``--most``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--recording-s", type=float, default=WINDOW_S + 5)
    parser.add_argument("--most", type=float, default=1.0)
    arguments = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        recording = write_recording(Path(folder), arguments.recording_s)
        time_s(BARE, recording, arguments.threads)  # compiles and fills the page cache
        for pair in range(1, arguments.pairs + 1):
            order = [BARE, CANARY] if pair % 2 else [CANARY, BARE]
            took = {code: time_s(code, recording, arguments.threads) for code in order}
            ratios.append(took[CANARY] / took[BARE])
            print(
                f"pair {pair}: bare run_sorter {took[BARE]:.1f} s, canary {took[CANARY]:.1f} s, "
                f"ratio {ratios[-1]:.3f}",
                flush=True,
            )
    median = statistics.median(ratios)
    print(f"median ratio {median:.3f} (at most {arguments.most})")
    return int(median > arguments.most)


if __name__ == "__main__":
    sys.exit(main())
