"""Sorters that hang, flood, eat and die: what the supervised sort makes of them."""

import threading
import time

import pytest

from spikecanary import fullsort, sentinel, sorter
from spikecanary.config import Config, SorterSettings
from spikecanary.sentinel import read_journal
from spikecanary.supervise.job import Job
from spikecanary.table import Recording
from workbench import ROOT, make_record, steps_in_process

pytestmark = pytest.mark.medium
#: What the full sort is to say of each fault: the failure's class, None: not classified,
#: or how many units were found all the same.
FULL = {
    "hang": "SorterTimeoutError",
    "chatter": "SorterTimeoutError",
    "hog": "HostMemoryWatchdogError",
    "segv": None,  # SIGKILL and an exit: test_supervisor, test_batch
    "family": None,
    "flood": 4,
    "garbage": 4,
}
#: And the canary: verdict and class.
CANARY = {
    # Limits of the canary's own job, its time and memory, which the full sort does not have.
    "hang": ("proceed", "SorterTimeoutError"),
    "chatter": ("proceed", "SorterTimeoutError"),
    "hog": ("proceed", "HostMemoryWatchdogError"),
    "segv": ("proceed", "ProcessDied"),
    "family": ("proceed", "SpikeSortingError"),
    "flood": ("proceed", None),
    "garbage": ("proceed", None),
}


@pytest.fixture
def faulty(project):
    """Make a batch with tight limits; its first recording is healthy."""
    project.config["watchdogs"] = {"inactivity_base_s": 8}
    project.config["job"] |= {"mem_mb": 1500, "canary_runtime_min": 1}
    project.config["forecast"] = {"max_mem_mb": 1500, "max_runtime_min": 1}
    project.add("healthy")
    return project


@pytest.mark.slow
def test_full_sorts(faulty, ledger):
    for how in FULL:
        faulty.add(how, sorter=f"{how}_full")
    faulty.config["canary"]["window_s"] = 0  # no canaries
    run = faulty.run("--set-resources", "sort:mem_mb=1500", "sort:runtime=1")
    assert run.returncode == 1
    assert faulty.summary().loc["healthy", "sort"] == "sorted"
    for how, expected in FULL.items():
        last = read_journal(faulty.result(how, "attempts.jsonl"))[-1]
        said = last["failure"]["class"] if last["failure"] else last["n_units"]
        standing = {path.name for path in faulty.result(how).iterdir()}
        whole = {"canary.json", "attempts.jsonl"}
        if isinstance(expected, int):
            whole |= {"sort.json", "sorting", "sorter_output"}
        log = (faulty.folder / f"logs/sort/{how}.log").read_bytes()
        lost = [] if len(log) < 110_000_000 and (standing == whole) else [standing]
        assert f"logs/sort/{how}.log" in run.output
        ledger.note(f"full sort: {how}", last["reason"], lost, [said] * (said != expected))
    flood = (faulty.folder / "logs/sort/flood.log").read_bytes()
    assert b"that was a GB" in flood
    assert b"the output was cut here" in flood
    assert b"that was no text" in (faulty.folder / "logs/sort/garbage.log").read_bytes()


@pytest.mark.slow
def test_canaries(faulty, ledger):
    for how in CANARY:
        faulty.add(how, sorter=f"{how}_window")
    canaries = [f"results/{how}/canary.json" for how in CANARY]
    assert faulty.run(*canaries).returncode == 0
    for how, expected in CANARY.items():
        verdict = faulty.sentinel(how)
        failure = verdict["failure"]
        said = (verdict["verdict"], failure["class"] if failure else None)
        ledger.note(f"canary: {how}", verdict["reason"], wrong=[said] * (said != expected))


@pytest.fixture
def sort(tmp_path, write_binary, reader_options):
    """Run one full sort of a copied recording in this process; return its record."""
    path = tmp_path / "recording.raw"
    path.write_bytes(write_binary("active", 8.0).read_bytes())
    sentinel.write_record(tmp_path / "x/canary.json", make_record(recording="x"))

    def start(**params):
        row = Recording(id="x", paths=(str(path),), reader="binary", reader_options=reader_options)
        plugin = str(ROOT / "tests/quick_sorter.py")
        settings = SorterSettings(name="quick", plugin=plugin, params=params)
        task = sorter.make_task(row, Config(sorter=settings))
        return fullsort.run(task, tmp_path / "x", Job(log=tmp_path / "log.txt"))

    return start


def when_sorting(log, act):
    """Do something as soon as the sorter runs."""

    def wait():
        while not (log.exists() and "quick sorter" in log.read_text()):
            time.sleep(0.05)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_recording_truncated_during_the_sort(sort, tmp_path, ledger):
    path = tmp_path / "recording.raw"
    when_sorting(tmp_path / "log.txt", lambda: path.write_bytes(path.read_bytes()[:10_000]))
    with pytest.raises(fullsort.SortFailedError, match="the recording shrank while"):
        sort(sleep_s=2.0)
    last = read_journal(tmp_path / "x/attempts.jsonl")[-1]
    wrong = [last] * (last["failure"]["class"] != "RecordingUnreadableError")
    ledger.note("recording truncated during the sort", last["reason"], wrong=wrong)


def test_recording_that_grows(sort, tmp_path, ledger):
    path = tmp_path / "recording.raw"

    def grow():
        with path.open("ab") as file:
            file.write(b"\0" * 1000)

    when_sorting(tmp_path / "log.txt", grow)
    with steps_in_process():
        record = sort(sleep_s=1.0)
    assert "the recording changed while it was sorted" in record.warnings[0]
    ledger.note("recording grows during the sort", record.reason)
