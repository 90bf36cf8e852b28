"""Containers of a sort, against a scripted Docker daemon: there is no engine here."""

import json
import re
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer

import pytest

from spikecanary.supervise import containers
from spikecanary.supervise.sample import Sampler


@pytest.fixture
def daemon(tmp_path, monkeypatch):
    """Answer the requests of Docker's client as its daemon does; note removals."""
    mounts = {"ours": str(tmp_path / "work"), "theirs": "/somewhere/else"}
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    removed = []

    class Handler(BaseHTTPRequestHandler):
        def address_string(self):
            return "client"

        def log_message(self, *_):
            pass

        def answer(self, content, status=200):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Api-Version", "1.44")
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            path = re.sub(r"^/v[\d.]+", "", self.path.split("?")[0])
            if path == "/version":
                self.answer({"ApiVersion": "1.44"})
            elif path == "/containers/json":
                self.answer([{"Id": name} for name in mounts if name not in removed])
            elif path.endswith("/top"):
                lines = [["root", str(process.pid), "matlab"]]
                self.answer({"Titles": ["UID", "PID", "CMD"], "Processes": lines})
            else:
                name = path.split("/")[2]
                self.answer({"Id": name, "Mounts": [{"Source": mounts[name]}]})

        def do_DELETE(self):
            removed.append(re.sub(r"^/v[\d.]+", "", self.path.split("?")[0]).split("/")[2])
            self.answer({}, 204)

    socket = tmp_path / "docker.sock"
    server = ThreadingUnixStreamServer(str(socket), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    yield process, removed
    server.shutdown()
    server.server_close()
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("cgroup", "is_here"),
    [
        ("0::/system.slice/docker-ours.scope", True),
        ("4:memory:/docker/ours", True),
        ("0::/user.slice/session-2.scope", False),  # its number is of a virtual machine
        (None, False),  # as on macOS
    ],
)
def test_processes_of_a_sorts_containers(daemon, tmp_path, monkeypatch, cgroup, is_here):
    process, _ = daemon
    monkeypatch.setattr(containers, "PROC", tmp_path / "proc")
    if cgroup:
        (tmp_path / "proc" / str(process.pid)).mkdir(parents=True)
        (tmp_path / "proc" / str(process.pid) / "cgroup").write_text(f"{cgroup}\n")
    found, unseen = containers.processes_of(tmp_path / "work")
    assert [each.pid for each in found] == [process.pid] * is_here
    assert unseen == (not is_here)
    assert containers.processes_of(tmp_path / "other") == ([], False)
    sampler = Sampler(process.pid, tmp_path / "work", with_containers=True)
    sampler.take()
    time.sleep(1.0)
    assert (sampler.take().idle_s > 0.5) == is_here  # what is not seen may be at work


def test_containers_of_a_sort_are_removed(daemon, tmp_path):
    _, removed = daemon
    containers.remove(tmp_path / "work")
    assert removed == ["ours"]


def test_without_a_daemon(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert containers.processes_of(tmp_path) == ([], False)
    containers.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []
