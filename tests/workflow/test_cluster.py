"""Jobs that read the rules again, as on a cluster: through an executor that runs them here."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from engine import Engine
from spikecanary.forecast import FinishedSort, history_path
from spikecanary.sorter import SortTask

HOUR = timedelta(hours=1)
pytestmark = pytest.mark.slow
REMOTE = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", "bash submit.sh")
REMOTE = (*REMOTE, "--jobs", "1", "--latency-wait", "1", "--max-status-checks-per-second", "100")


@pytest.fixture
def submit(tmp_path):
    """Return a function that says what is done before each job begins."""

    def write(commands=""):
        (tmp_path / "submit.sh").write_text(f'{commands}\nbash "$1"\n')

    write()
    return write


def test_settings_that_are_edited_while_a_batch_runs(tmp_path, submit):
    engine = Engine(tmp_path, "a")
    given = ("--config", "preprocessing={common_reference: {}}", "sorter={device: cpu}")
    run = engine.run("results/a/canary.json", *REMOTE, *given)
    assert run.done() == "canary: a; exit 0", run.output
    submit("echo 'preprocessing: {common_reference: {}}' >> more.yaml")
    run = engine.run("results/a/sort.json", *REMOTE)
    assert run.done() == "exit 1"
    assert "was changed while snakemake runs" in run.output


def test_sort_is_held_to_what_was_submitted(tmp_path, submit):
    """Others have ended while it waited, and by their history it would need less."""
    engine = Engine(tmp_path, "a")
    assert engine.run("results/gates/1.tsv").status == 0
    path = engine.result("a/canary.json")
    record, when = json.loads(path.read_text()), path.stat()
    path.write_text(json.dumps({**record, "duration_s": 3600.0}))
    os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))
    task = SortTask.model_validate(record["settings"]["task"])
    history = history_path(engine.result(), task.digest())
    ended = {"duration_s": 3600.0, "actual": {"wall_s": 9.0}, "at": datetime.now(UTC) + HOUR}
    quick = FinishedSort(recording="x", **ended)
    (tmp_path / "quick.jsonl").write_text(quick.model_dump_json() + "\n")
    submit(f"mkdir -p {history.parent}; cp quick.jsonl {history}")
    run = engine.run(*REMOTE)
    assert run.done() == "sort: a; exit 0", run.output
    assert (tmp_path / "logs/sort/a.log").read_text() == "1440 min"
