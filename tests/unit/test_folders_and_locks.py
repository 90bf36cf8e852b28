"""Work folders and locks, between real processes."""

import os
import socket
import subprocess
import sys
import threading
import time

import filelock
import psutil
import pytest

from spikecanary import sentinel
from spikecanary.failures import ConcurrentSortError
from spikecanary.supervise import folders

HOST = socket.gethostname()


@pytest.fixture
def other():
    """Run Python code in another process until it prints something."""
    started = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        started.append(process)
        assert process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def holding(path):
    return (
        "import time; from pathlib import Path; from spikecanary.supervise import folders\n"
        f"with folders.hold(Path({str(path)!r}), 'sorts'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)"
    )


def test_wiping_is_strict_before_and_best_effort_after(tmp_path, monkeypatch):
    def busy(path, *, ignore_errors=False):
        if not ignore_errors:
            raise OSError(16, "Device or resource busy", str(path))

    monkeypatch.setattr(folders.shutil, "rmtree", busy)
    path = tmp_path / ".canary"
    with folders.work_folder(path):
        pass
    assert path.exists()
    with (
        pytest.raises(folders.LeftoverError, match=f"{path}, which an earlier job left, cannot"),
        folders.work_folder(path),
    ):
        pytest.fail("worked in a folder that is not empty")


def test_sweep_takes_what_is_dead_and_only_that(tmp_path):
    pid = dead_pid()
    dead = [tmp_path / f".sort-{HOST}-{pid}", tmp_path / f".canary-{HOST}-{pid}"]
    alive = [folders.work_path(tmp_path, "sort"), tmp_path / f".sort-elsewhere-{pid}"]
    for folder in [*dead, *alive, tmp_path / "sorting"]:
        (folder / "work").mkdir(parents=True)
    torn = tmp_path / f".canary.json~{HOST}~{pid}.tmp"
    torn.touch()
    (tmp_path / "canary.json").touch()
    removed = folders.sweep(tmp_path)
    assert sorted(removed) == sorted([*dead, torn])
    assert sorted(tmp_path.iterdir()) == sorted(
        [*alive, tmp_path / "sorting", tmp_path / "canary.json"]
    )


@pytest.mark.parametrize("host", ["n1.lab.org", "node-01"])
def test_sweep_of_outputs_on_hosts_of_any_name(tmp_path, monkeypatch, host):
    monkeypatch.setattr(folders.socket, "gethostname", lambda: host)
    monkeypatch.setattr(folders.os, "getpid", dead_pid)
    made = [
        folders.work_path(tmp_path, name) for name in ("figures", "export_phy", "canary_figure")
    ]
    file = folders.work_path(tmp_path, "export_nwb")
    made.append(file.with_name(f"{file.name}.nwb"))
    for folder in made[:-1]:
        folder.mkdir()
    made.append(sentinel._temporary(tmp_path / "canary.json"))
    for file in made[-2:]:
        file.touch()
    assert {*folders.sweep(tmp_path)} == {*made}


def test_sweep_of_another_host_waits_for_an_hour_of_silence(tmp_path):
    folder = tmp_path / ".sort-elsewhere-17"
    (folder / "work/try-1").mkdir(parents=True)
    (folder / "work/link").symlink_to("no such file")
    long_ago = time.time() - 2 * folders.ABANDONED_S
    for path in (folder / "work/link", folder / "work", folder):
        os.utime(path, (long_ago, long_ago), follow_symlinks=False)
    assert folders.sweep(tmp_path) == []  # a folder in it was touched
    os.utime(folder / "work/try-1", (long_ago, long_ago))
    assert folders.sweep(tmp_path) == [folder]


def test_sweep_of_a_number_that_was_given_again(tmp_path):
    folder = folders.work_path(tmp_path, "sort")
    folder.mkdir()
    before = psutil.Process().create_time() - 60
    os.utime(folder, (before, before))
    assert folders.sweep(tmp_path) == []  # of a file server whose clock is behind
    os.utime(folder, (before - 100, before - 100))
    assert folders.sweep(tmp_path) == [folder]


def test_sweep_ends_what_still_runs_there(tmp_path, other):
    folder = tmp_path / f".sort-{HOST}-{dead_pid()}"
    (folder / "sub").mkdir(parents=True)
    code = (
        "import os, sys; os.environ['SPIKECANARY_WORK'] = sys.argv[1]; os.setsid()\n"
        "os.execv('/bin/sh', ['sh', '-c', 'echo ready; sleep 300'])"
    )
    stray = other(f"import sys; sys.argv.append({str(folder / 'sub')!r})\n{code}")
    folders.sweep(tmp_path)
    assert stray.wait(timeout=5) != 0
    assert not folder.exists()


def test_sweep_where_nothing_is(tmp_path):
    assert folders.sweep(tmp_path / "none") == []


def test_lock_names_its_holder(tmp_path, other):
    path = tmp_path / "x/.sort.lock"
    holder = other(holding(path))
    with pytest.raises(ConcurrentSortError) as caught, folders.hold(path, "sorts this recording"):
        pass
    text = str(caught.value)
    today = time.strftime("%Y-%m-%d")
    assert text.startswith(f"process {holder.pid} on host {HOST}, last seen {today}")
    assert f"remove {path}" in text
    assert caught.value.category == "environment"
    holder.kill()
    holder.wait()
    with folders.hold(path, "sorts this recording"):  # taken over
        assert path.exists()
    assert not path.exists()


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Write the lock of a process on another host, which cannot be seen from here."""
    monkeypatch.setattr(folders, "LEASE_S", 2.0)
    path = tmp_path / ".sort.lock"
    path.write_text("filelock/2\npid=17\nhost=elsewhere\nmode=lease\ntoken=a\nduration=2.0\n")
    return path


def test_lock_of_another_host_is_taken_over_where_nobody_renews_it(elsewhere):
    """As of a node that lost power."""
    with folders.hold(elsewhere, "sorts"):
        assert HOST in elsewhere.read_text()
    assert not elsewhere.exists()


def test_lock_of_another_host_that_is_renewed_is_held(elsewhere):
    ended = threading.Event()

    def renew():
        while not ended.wait(0.2):
            os.utime(elsewhere)

    thread = threading.Thread(target=renew)
    thread.start()
    told = "process 17 on host elsewhere, last seen 20"
    with pytest.raises(ConcurrentSortError, match=told), folders.hold(elsewhere, "sorts"):
        pass
    ended.set()
    thread.join()


@pytest.mark.parametrize("text", ["17\nelsewhere\n", ""])
def test_lock_that_nobody_renews_is_never_taken_over(tmp_path, text):
    """One of an earlier version, or an empty file after a loss of power: the message helps."""
    path = tmp_path / ".sort.lock"
    path.write_text(text)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    held = folders.hold(path, "sorts")
    with (
        pytest.raises(ConcurrentSortError, match="another process, last seen 2023-11-") as caught,
        held,
    ):
        pass
    assert f"If that process has ended (this host cannot see another's), remove {path}" in str(
        caught.value
    )
    assert path.exists()


def test_what_people_keep_in_hidden_folders_stays(tmp_path):
    for name in (".backup-2026-11", ".notes-of-anna-12", ".phy-anna-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "by_hand.csv").write_text("x")
        for path in (tmp_path / name / "by_hand.csv", tmp_path / name):
            os.utime(path, (0, 0))
    dead = tmp_path / f".sort-{HOST}-999999999"
    dead.mkdir()
    assert folders.sweep(tmp_path) == [dead]
    assert len(list(tmp_path.iterdir())) == 3


def test_lock_of_a_dead_process_is_taken_over_on_a_network_file_system(tmp_path, monkeypatch):
    """Filelock takes over by exchanging two files, which NFS and SMB refuse."""
    monkeypatch.setattr(filelock.SoftFileLease, "_take_over", lambda *_: None)
    path = tmp_path / ".sort.lock"
    owner = f"pid={dead_pid()}\nhost={HOST}"
    path.write_text(f"filelock/2\n{owner}\nmode=lease\ntoken=a\nduration={folders.LEASE_S}\n")
    with folders.hold(path, "sorts"):
        assert path.exists()
