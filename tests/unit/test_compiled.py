"""What numba compiled in one process is used by the next, in real processes."""

import subprocess
import sys
from pathlib import Path

#: Prints how many functions were compiled and how many were found. Given a second name, it waits
#: in the block until that process is there too.
SCRIPT = """
import sys, time
from pathlib import Path
import numpy as np
from spikecanary import compiled
from spikeinterface.curation import curation_tools

function = curation_tools._find_duplicated_spikes_keep_first_iterative
folder = Path(sys.argv[1])
with compiled.kept(folder / compiled.FOLDER, folder / f".compile-{sys.argv[2]}"):
    while not all((folder / f".compile-{name}").exists() for name in sys.argv[2:]):
        time.sleep(0.001)
    assert list(function(np.array([1, 2, 100]), 10)) == [1]
    if sys.argv[2] == "dies":
        raise SystemExit(1)
print(sum(function.stats.cache_misses.values()), sum(function.stats.cache_hits.values()))
"""


def start(folder: Path, *names: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(folder), *names]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run(folder: Path, name: str) -> str:
    return start(folder, name).communicate(timeout=120)[0].strip()


def test_next_process_compiles_nothing(tmp_path):
    assert run(tmp_path, "first") == "1 0"
    assert run(tmp_path, "second") == "0 1"
    assert [path.name for path in tmp_path.iterdir()] == [".compiled"]


def test_process_that_fails_leaves_and_spoils_nothing(tmp_path):
    run(tmp_path, "dies")
    assert list(tmp_path.iterdir()) == []
    assert run(tmp_path, "next") == "1 0"


def test_two_at_once_and_a_damaged_folder(tmp_path):
    both = [start(tmp_path, *names) for names in (("one", "other"), ("other", "one"))]
    assert [each.communicate(timeout=120)[0].strip() for each in both] == ["1 0", "1 0"]
    for data in tmp_path.rglob("*.nbc"):
        data.unlink()
    assert run(tmp_path, "after") == "1 0"
    assert run(tmp_path, "last") == "0 1"
