"""A ledger of the faults that were injected; its table ends the run (../conftest.py)."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from spikeinterface.core import load

from spikecanary import sentinel
from spikecanary.supervise import processes
from spikecanary.supervise.processes import MARK


@dataclass
class Ledger:
    """What one test injected, and what survived."""

    folder: Path
    properties: list

    def note(self, fault, survived, lost=(), wrong=()):
        """Note one fault; what was lost or judged wrongly, and what still runs, is counted."""
        lost, wrong, left = list(lost), list(wrong), processes_left(self.folder)
        row = [fault, survived, len(lost), len(left), len(wrong)]
        self.properties.append(("injected fault", row))
        print(f"injected: {fault}; survived: {survived}; {lost=} {left=} {wrong=}")
        assert (lost, left, wrong) == ([], [], []), fault


def processes_left(folder: Path):
    """Return the processes that a sort below a folder left running."""
    left = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK)
        except psutil.Error:
            continue
        if mark and Path(mark).is_relative_to(folder) and processes.is_alive(process):
            left.append(process)
    return left


@pytest.fixture
def ledger(request, tmp_path):
    """Return the ledger of this test; its rows travel with the test's report."""
    return Ledger(tmp_path, request.node.user_properties)


class Watcher(threading.Thread):
    """Reads every record and sorting of a results folder, all the time."""

    def __init__(self, results: Path):
        super().__init__(daemon=True)
        self.results = results
        self.invalid = []
        self.n_read = 0
        self.ending = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.join()

    def run(self):
        while not self.ending.is_set():
            for path in [*self.results.glob("*/canary.json"), *self.results.glob("*/sort.json")]:
                self.read(path, sentinel.read_record)
            for path in self.results.glob("*/sorting"):
                self.read(path, lambda folder: load(folder).unit_ids)
            time.sleep(0.02)

    def read(self, path: Path, reader):
        """Read one; what is removed in the meantime is no error."""
        try:
            before = path.stat().st_ino
            reader(path)
            self.n_read += 1
        except Exception as err:  # noqa: BLE001 - whatever it is, the file was not whole
            if path.exists() and path.stat().st_ino == before:
                self.invalid.append((str(path), repr(err)))


@pytest.fixture
def watcher():
    """Return the class that watches a results folder."""
    return Watcher
