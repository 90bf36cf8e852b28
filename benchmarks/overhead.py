"""What the canary costs beside the sorter: its wall time over a bare ``run_sorter``.

Both sort the same 30 s of 32 channels with Kilosort 4 on the CPU, each in a new Python
process, in alternating pairs; the median of the pairs' ratios is the result. With
``--recording-s 600`` the window is one of a recording of ten minutes.

    python benchmarks/overhead.py [--pairs 5] [--recording-s 35] [--most 1.0]
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from common import RATE_HZ, ROOT, compare, run, write_recording

WINDOW_S = 30.0
N_CHANNELS = 32

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


def time_code(code: str, recording: Path, threads: int) -> tuple[float, float]:
    """Run code in a new Python process, of which nothing is set but threads."""
    text = code.format(window_s=WINDOW_S, rate_hz=RATE_HZ)
    n = str(threads)
    scripts = str(ROOT / "scripts")
    env = {"PYTHONPATH": scripts, "OMP_NUM_THREADS": n, "PATH": "/usr/bin:/bin"}
    with tempfile.TemporaryDirectory() as folder:
        return run([sys.executable, "-c", text, str(recording), folder, n], Path(folder), env=env)


def main() -> int:
    """Measure and print; exit status 1 where the median ratio is above ``--most``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--recording-s", type=float, default=WINDOW_S + 5)
    parser.add_argument("--most", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder, "recording")
        write_recording(recording, arguments.recording_s / 60, N_CHANNELS, seed=3)
        codes = {"canary": CANARY, "bare run_sorter": BARE}
        sides = {
            name: partial(time_code, code, recording, arguments.threads)
            for name, code in codes.items()
        }
        sides["bare run_sorter"]()  # compiles and fills the page cache
        median = compare("pair", sides, arguments.pairs)
    return int(median > arguments.most)


if __name__ == "__main__":
    sys.exit(main())
