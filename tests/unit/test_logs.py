"""Logs of attempts: each its own, the rule's log the newest."""

import subprocess
import sys

import pytest

from spikecanary.supervise import log


def attempt(path, text):
    log.new_log(path)
    with path.open("a") as file:
        file.write(text)


def test_each_attempt_has_a_log_of_its_own(tmp_path):
    path = tmp_path / "canary/a.log"
    for text in ("one", "two", "three"):
        attempt(path, text)
    assert path.read_text() == "three"
    found = {each.name: each.read_text() for each in (tmp_path / "canary/a.logs").iterdir()}
    assert found == {"canary.1.log": "one", "canary.2.log": "two", "canary.3.log": "three"}


def test_file_of_a_person_beside_the_logs_costs_no_job(tmp_path):
    path = tmp_path / "canary/a.log"
    attempt(path, "one")
    (tmp_path / "canary/a.logs/canary.old.log").touch()
    attempt(path, "two")
    assert (tmp_path / "canary/a.logs/canary.2.log").read_text() == "two"


def test_names_of_recordings_that_look_like_numbered_logs(tmp_path):
    for name in ("a.log", "a", "a.1", "a.1.log", "a.logs", "a.log"):
        attempt(tmp_path / f"sort/{name}.log", name)
        assert (tmp_path / f"sort/{name}.log").read_text() == name
    assert (tmp_path / "sort/a.logs/sort.1.log").read_text() == "a"
    assert (tmp_path / "sort/a.1.logs/sort.1.log").read_text() == "a.1"


def test_log_that_is_a_file_is_kept(tmp_path):
    path = tmp_path / "canary/a.log"
    path.parent.mkdir()
    path.write_text("before")
    attempt(path, "now")
    assert path.read_text() == "now"
    assert (tmp_path / "canary/a.logs/canary.1.log").read_text() == "before"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("open('/no/such')", "ERROR [Errno 2] No such file or directory: '/no/such'\n"),
        ("assert 0, 'no snr:\\nnone'", "CRITICAL AssertionError: no snr: none\n"),
    ],
)
def test_an_error_is_one_line_on_the_screen(tmp_path, code, said):
    path = tmp_path / "a.log"
    code = f"import sys; from spikecanary.supervise import log; log.configure(sys.argv[1]); {code}"
    done = subprocess.run([sys.executable, "-c", code, path], check=False, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.decode() == said
    assert "Traceback" in path.read_text()
