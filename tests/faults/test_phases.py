"""A signal to snakemake at a random moment of each phase: a plain run goes on as if none had come.

``FAULT_SEED=2`` chooses other moments and signals, ``FAULT_SIGNALS=all`` each signal in each phase.
"""

import os
import random
import re
import signal
import subprocess
import time

import psutil
import pytest

from engine import Engine
from spikecanary.supervise.processes import is_alive
from spikecanary.table.tsv import read_tsv

pytestmark = pytest.mark.slow
IDS = "a b c d"
SEED = os.environ.get("FAULT_SEED", "1")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
COMPARED = ("recording", "verdict", "outcome", "category", "sort", "n_units", "reason")
#: After what has appeared a signal comes, by what the run is doing.
PHASES = {
    "start": "Snakefile",
    "selection": ".snakemake/log/*.log",
    "canary": "results/a/canary.json",
    "gate": "results/gates/*.tsv",
    "sort": "results/*/sort.json",
    "outputs": "results/*/metrics.tsv",
    "summary": "results/waves/*.tsv",
    "end": "results/summary.tsv",
}


def batch(folder):
    """Make a batch of stubs, one of whose recordings is stopped, with outputs."""
    folder.mkdir()
    engine = Engine(folder, IDS, outputs=["npz"])
    engine.world(b="environment")
    return engine


def outcome(engine, run):
    """Return what a run must come to: exit status, summary, sortings."""
    rows = [[row[name] for name in COMPARED] for row in read_tsv(engine.result("summary.tsv"))]
    return run.status, rows, sorted(path.parent.name for path in engine.result().glob("*/sorting"))


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Return what a run comes to that no signal disturbs."""
    engine = batch(tmp_path_factory.mktemp("undisturbed") / "batch")
    expected = outcome(engine, engine.run())
    assert expected[0] == 1
    assert expected[2] == list("acd")
    return expected


def wait_for(run, signum):
    """Wait for a run's end; kill what a SIGTERM has stopped for good, as a user would.

    While snakemake works on the DAG, its handler waits for a lock that its own thread holds
    (``JobScheduler.exit_gracefully`` of Snakemake 9.27).
    """
    try:
        run.wait(timeout=30)
    except subprocess.TimeoutExpired:
        assert signum == signal.SIGTERM
        run.kill()
        run.wait()


def chosen():
    """Return a signal for each phase, by the seed; all of them with ``FAULT_SIGNALS=all``."""
    if os.environ.get("FAULT_SIGNALS") == "all":
        return [(phase, signum) for phase in PHASES for signum in SIGNALS]
    first = int(SEED)
    return [(phase, SIGNALS[(first + at) % len(SIGNALS)]) for at, phase in enumerate(PHASES)]


@pytest.mark.parametrize(("phase", "signum"), chosen())
def test_signal(tmp_path, ledger, undisturbed, phase, signum):
    moments = random.Random(f"{SEED} {phase} {signum.name}")
    engine = batch(tmp_path / signum.name)
    output = engine.folder / "output.txt"
    with output.open("w") as file:
        run = subprocess.Popen(
            engine.command(),
            cwd=engine.folder,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    while run.poll() is None and not any(engine.folder.glob(PHASES[phase])):
        time.sleep(0.01)
    delay_s = moments.uniform(0.0, 2.0 if phase in ("start", "selection") else 0.5)
    time.sleep(delay_s)
    tree = psutil.Process(run.pid).children(recursive=True) if run.poll() is None else []
    # Ctrl-C reaches the whole group, a kill the process that is named.
    (os.killpg if signum == signal.SIGINT else os.kill)(run.pid, signum)
    wait_for(run, signum)
    _, alive = psutil.wait_procs(tree, timeout=30)
    again = engine.run()
    if re.search("--unlock", again.output):
        assert engine.run("--unlock").status == 0
        again = engine.run()
    found = outcome(engine, again)
    # While Python starts and imports, an interrupt is its own traceback.
    tracebacks = re.findall(r"^Traceback .*", again.output, re.MULTILINE)
    lost = [*filter(is_alive, alive)]
    wrong = [*([found] if found != undisturbed else []), *tracebacks]
    fault = f"{signum.name} {delay_s:.1f} s into {phase}"
    ledger.note(fault, "as an undisturbed run", lost, wrong)
