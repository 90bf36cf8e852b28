"""Child processes: results, errors, deaths, measurements, a clean end. Nothing is mocked."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from spikecanary.failures import SorterTimeoutError
from spikecanary.supervise import log, processes, sample
from spikecanary.supervise import run as supervision
from spikecanary.supervise.folders import work_folder, work_path
from spikecanary.supervise.run import Supervision, supervise

#: Functions for the child process; written to a module that it imports.
CHILD = """
import os, signal, subprocess, sys, time

def good(x, tell):
    tell(stage="load")
    tell(header={"rate": 30000.0})
    time.sleep(0.3)
    tell(stage="sort")
    print("line for the log", flush=True)
    block = bytearray(200_000_000)
    time.sleep(2.4)
    tell(compile_s=1.0)
    tell(compile_s="no number")
    return {"x": x + 1}

def bad(tell):
    tell(stage="sort")
    try:
        {}["key"]
    except KeyError as err:
        raise ValueError("no key, \\u00b5V") from err

def die(how, tell):
    tell(stage="sort")
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, how))

def leave(tell):
    tell(stage="sort")
    sys.exit("the licence is missing")

def import_queue():
    import queue
    import helper_of_a_plugin
    return [queue.__file__, helper_of_a_plugin.__file__]

def full_disk(fails, tell):
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    tell(stage="sort")
    if fails:
        raise ValueError("no key")
    return "done"

def family():
    ignore = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(300.%d)"
    subprocess.Popen([sys.executable, "-c", ignore % os.getppid()])
    subprocess.Popen(["sh", "-c", f"sleep 301.{os.getppid()} & wait"])
    time.sleep(300)

def orphan():
    subprocess.Popen(["sh", "-c", f"sleep 302.{os.getppid()} & exit"])
    return "done"

def flood(megabytes, tell):
    tell(stage="sort")
    line = b"x" * 999 + b"\\n"
    for _ in range(megabytes * 1000):
        sys.stdout.buffer.write(line)
    print("the last line")
    return "done"

def threads():
    return [os.environ.get(name) for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT")]

def kill_after_silence(tell):
    tell(stage="sort")
    print("ValueError: No spikes detected, cannot continue sorting.", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)

def vanish(folder):
    import shutil
    shutil.rmtree(folder)
    return "still here"

def fill(folder):
    with open(folder + "/big", "wb") as file:
        file.write(b"x" * 30_000_000)
        file.flush()
        time.sleep(1.2)
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Supervise a function of CHILD."""
    (tmp_path / "children.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "children", raising=False)
    children = importlib.import_module("children")
    monkeypatch.setattr(processes, "GRACE_S", 1.0)
    (tmp_path / "work").mkdir()

    def start(function, watchdogs=(), **arguments):
        return supervise(
            getattr(children, function),
            arguments,
            folder=tmp_path / "work",
            supervision=Supervision(
                log=tmp_path / "log.txt",
                watchdogs=watchdogs,
                folders=[tmp_path / "results"],
            ),
        )

    return start


def running(text):
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if text in " ".join(process.info["cmdline"] or []) and processes.is_alive(process)
    ]


def test_result_stages_and_measurements(run, tmp_path):
    ended = run("good", x=1)
    assert ended.result == {"x": 2}
    assert ended.error is None
    assert ended.facts["header"] == {"rate": 30000.0}
    stages = ended.measured.stages_s
    assert list(stages) == ["start", "load", "sort", "exit", "compile"]
    assert 0.3 <= stages["load"] < 3.0
    assert 1.2 <= stages["sort"] < 6.0
    assert stages["compile"] == 1.0  # of the time of the sort
    assert sum(stages.values()) == pytest.approx(ended.measured.wall_s, abs=0.01)
    assert 200 < ended.measured.peak_rss_mb < 1000
    assert "line for the log" in (tmp_path / "log.txt").read_text()


def test_threads_are_limited_and_soon_sleep_unless_the_user_says_otherwise(run, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert run("threads").result == ["1", "1000"]
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    assert run("threads").result == ["1", "5"]


def test_error_comes_back_with_its_chain(run):
    ended = run("bad")
    assert ended.describe() == "ValueError: no key, \u00b5V"
    assert ended.error["name"] == "ValueError"
    assert "KeyError: 'key'\n\nThe above exception was the direct cause" in ended.error["text"]
    assert ended.facts["stage"] == "sort"


def test_log_that_cannot_be_written_costs_no_result_and_no_error(run):
    assert run("full_disk", fails=False).result == "done"
    ended = run("full_disk", fails=True)
    assert (ended.describe(), ended.facts["stage"]) == ("ValueError: no key", "sort")


def test_sorter_that_leaves_python_tells_why(run):
    assert run("leave").describe() == "SystemExit: the licence is missing"


def test_files_of_the_working_directory_hide_no_module(run, monkeypatch, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    for name in ("queue.py", "helper_of_a_plugin.py"):
        (here / name).touch()
    monkeypatch.chdir(here)
    own, helper = run("import_queue").result
    assert own != helper == str(here / "helper_of_a_plugin.py")
    assert not own.startswith(str(here))


@pytest.mark.parametrize(
    ("how", "description"),
    [
        (
            "SIGKILL",
            "the process was killed by SIGKILL, as the kernel does where memory runs out",
        ),
        ("SIGSEGV", "the process was killed by SIGSEGV"),
        ("exit", "the process ended with exit status 3 without a result"),
    ],
)
def test_death_without_a_word(run, how, description):
    ended = run("die", how=how)
    assert ended.describe() == description
    assert ended.result is None
    assert ended.facts["stage"] == "sort"


@pytest.mark.parametrize(
    ("said", "described"),
    [
        ("ValueError: no\nhint: x is (1, 2)", "ValueError: no"),
        ("a.b.AError: CUDA error\nCompile with DSA.", "a.b.AError: CUDA error"),
        ("KeyError: 1\n\nDuring handling:\n\nIndexError: 2", "IndexError: 2"),
        ("a sorter's own words", "a sorter's own words"),
    ],
)
def test_reason_of_a_sort_is_the_line_that_names_its_exception(said, described):
    trace = f'  File "x.py", line 1, in f\n    raise Error(x)\n{said}\n\nSpike sorting failed.'
    ended = supervision.Ended(error={"name": "SpikeSortingError", "message": trace})
    assert ended.describe() == described


def test_watchdog_ends_the_whole_tree(run):
    def impatient(sample):
        if sample.elapsed_s > 1.5:
            return SorterTimeoutError("too slow", limit_s=1.5)
        return None

    ended = run("family", watchdogs=[impatient])
    assert isinstance(ended.stopped_by, SorterTimeoutError)
    assert ended.describe() == "too slow"
    assert running(f"time.sleep(300.{os.getpid()})") == []
    assert running(f"sleep 301.{os.getpid()}") == []


def test_orphans_of_a_child_are_ended(run):
    assert run("orphan").result == "done"
    assert running(f"sleep 302.{os.getpid()}") == []


def test_disk_is_measured(run, tmp_path):
    ended = run("fill", folder=str(tmp_path / "work"))
    assert 29 < ended.measured.disk_mb < 40


def test_work_folder_is_wiped_before_and_after(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "stale").touch()
    with work_folder(folder):
        assert list(folder.iterdir()) == []
        (folder / "new").touch()
    assert not folder.exists()


def test_warnings_are_told_once_and_end_nothing(run):
    def anxious(sample):
        return f"{sample.elapsed_s:.0f} s already"

    ended = run("good", x=1, watchdogs=[anxious])
    assert ended.result == {"x": 2}
    assert ended.warnings == ("0 s already",)


def test_progress_tells_stage_and_last_line(run, monkeypatch, caplog):
    monkeypatch.setattr(supervision, "PROGRESS_S", 1.0)
    caplog.set_level("INFO")
    run("good", x=1)
    told = [record.getMessage() for record in caplog.records if "stage" in record.getMessage()]
    assert told
    assert told[-1].startswith("stage sort, ")
    assert told[-1].endswith("last line: line for the log")
    assert " MB of memory" in told[-1]


def test_progress_touches_the_folder_by_which_others_know_of_the_job(run, monkeypatch, tmp_path):
    """The work folder itself may be elsewhere (job.scratch)."""
    monkeypatch.setattr(supervision, "PROGRESS_S", 0.0)
    mine, other = work_path(tmp_path / "results", "canary"), tmp_path / "results/.sort-n2-17"
    for folder in (mine, other):
        folder.mkdir(parents=True)
        os.utime(folder, (0, 0))
    run("good", x=1)
    assert (mine.stat().st_mtime > 0, other.stat().st_mtime) == (True, 0)


def test_flood_of_output_is_cut_in_the_middle(run, tmp_path, monkeypatch):
    monkeypatch.setattr(supervision, "MAX_LOG_BYTES", 1_000_000)
    (tmp_path / "log.txt").write_text("before\n")
    ended = run("flood", megabytes=40)
    assert ended.result == "done"
    log = (tmp_path / "log.txt").read_text()
    assert len(log) < 1_200_000
    assert log.startswith("before\nspikecanary: stage")
    assert "the output was cut here" in log
    assert log.endswith("the last line\n")
    assert ended.log.endswith("the last line\n")


def test_long_walk_over_the_work_folder_holds_nothing_up(run, monkeypatch):
    def walk(_):
        time.sleep(4)
        return []

    quick = run("orphan").measured.wall_s
    monkeypatch.setattr(sample, "_files", walk)
    assert run("orphan").measured.wall_s < quick + 2


def test_own_lines_are_no_sign_of_life(run, monkeypatch, tmp_path):
    monkeypatch.setattr(supervision, "PROGRESS_S", 0.5)
    log.configure(tmp_path / "log.txt")

    def impatient(sample):
        return SorterTimeoutError("idle", limit_s=2.0) if sample.idle_s > 2 else None

    ended = run("family", watchdogs=[impatient])
    assert ended.describe() == "idle"
    assert (tmp_path / "log.txt").read_text().count("last line:") > 2


def test_removed_work_folder_costs_no_result(run, tmp_path):
    ended = run("vanish", folder=str(tmp_path / "work"))
    assert ended.result == "still here"


@pytest.fixture
def parent(tmp_path):
    """Start a process that supervises a family; return it and its tree of four at least."""
    (tmp_path / "children.py").write_text(CHILD)
    (tmp_path / "work").mkdir()
    code = (
        "from pathlib import Path\n"
        "import children\n"
        "from spikecanary.supervise import processes, run\n"
        "processes.GRACE_S = 1.0\n"
        "processes.exit_on_signals()\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "run.supervise(children.family, {}, folder=folder / 'work', "
        "supervision=run.Supervision(log=folder / 'log'))\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    end = time.monotonic() + 20
    tree = []
    while len(tree) < 4 and time.monotonic() < end:
        time.sleep(0.1)
        tree = psutil.Process(process.pid).children(recursive=True)
    assert len(tree) >= 4
    return process, tree


def test_supervisor_killed_takes_its_child_along(parent):
    process, tree = parent
    process.kill()
    process.wait()
    psutil.wait_procs(tree, timeout=3)
    assert [each for each in tree if processes.is_alive(each)] == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_tree_and_process(parent, signum):
    process, tree = parent
    process.send_signal(signum)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)  # a second one does not cut the clean-up short
    assert process.wait(timeout=20) == 128 + signum
    assert [each for each in tree if processes.is_alive(each)] == []


CALLS_BACK = """
import ctypes, sys, time
from spikecanary.supervise import processes
processes.exit_on_signals()

@ctypes.CFUNCTYPE(None)
def back():
    print("ready", flush=True)
    time.sleep(1)

back()
time.sleep(60)
"""


def test_signal_that_snakemake_ignores_is_ignored():
    """A script's `snakemake &` ignores SIGINT, which a terminal sends to its jobs, too."""
    code = (
        "import os, signal; from spikecanary.supervise import processes\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN); processes.exit_on_signals()\n"
        "os.kill(os.getpid(), signal.SIGINT); print('lives', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert (done.stdout, done.returncode) == (b"lives\n", 128 + signal.SIGTERM)


def test_signal_in_a_callback_of_c_code_ends_the_process():
    path = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", CALLS_BACK],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 128 + signal.SIGINT


def test_result_counts_whatever_the_last_sample_says(run):
    def late(sample):
        return SorterTimeoutError("late", limit_s=0.1) if sample.elapsed_s > 0.1 else None

    assert run("orphan").result == "done"
    ended = run("orphan", watchdogs=[lambda sample: late(sample) if sample.rss_mb == 0 else None])
    assert ended.result == "done"


def test_what_is_no_event_is_ignored_and_logged(caplog):
    good = {"stage": "sort", "at": 1.5}
    bad = ["[1]", "{", '"x"', '{"at": "now"}', '{"stage": 3}', '{"error": "x"}', "[" * 100_000]
    assert list(supervision._read_events([*bad, json.dumps(good), '{"n_units": 3}'])) == [
        good,
        {"n_units": 3},
    ]
    assert len(caplog.records) == len(bad)


def test_package_of_the_rules_goes_before_an_installed_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    (tmp_path / "spikecanary").mkdir()
    (tmp_path / "spikecanary/__init__.py").write_text("")
    processes.import_first(tmp_path)
    found = subprocess.check_output(
        [sys.executable, "-c", "import spikecanary; print(spikecanary.__file__)"], text=True
    )
    assert found.strip() == str(tmp_path / "spikecanary/__init__.py")
    assert os.environ["PYTHONPATH"].endswith(":/elsewhere")


@pytest.mark.parametrize(
    ("command", "is_starter"),
    [
        (["/x/bin/python", "/x/bin/snakemake", "--cores", "2"], True),
        (["python", "-m", "snakemake", "--cores", "2"], True),
        (["bash", "-c", "python /w/.snakemake/scripts/tmp1.canary.py"], False),
    ],
)
def test_snakemake_that_started_a_job(monkeypatch, command, is_starter):
    parent = SimpleNamespace(cmdline=lambda: command)
    monkeypatch.setattr(psutil.Process, "parents", lambda _: [parent])
    assert (processes._find_snakemake() is parent) is is_starter


def test_child_that_was_killed_says_nothing_of_the_data(run):
    ended = run("kill_after_silence")
    assert ended.died_of == -signal.SIGSEGV
    assert ended.failure is None
