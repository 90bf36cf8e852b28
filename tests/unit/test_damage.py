"""Damaged records, tables, journals and paths: each costs its own recording alone."""

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from spikecanary import forecast, gate, inputcheck, plan, report, sentinel, summary
from spikecanary.config import Config
from spikecanary.failures import RecordingUnreadableError
from spikecanary.recording import open_recording, stamps
from spikecanary.recording.formats import walk
from spikecanary.reruns import State
from spikecanary.sentinel import RecordError
from spikecanary.summary import ending
from spikecanary.table import Recording
from spikecanary.table.tsv import TableError, read_tsv
from workbench import make_record

OPTIONS = {"sampling_frequency": 30000, "dtype": "int16", "num_channels": 4}
RECORDS = {
    "empty": b"",
    "truncated": b'{"schema_version": 1, "reco',
    "not UTF-8": b"\xff\xfe{",
    "a list": b"[1]",
    "nested deeply": b"[" * 100_000,
    "a folder": None,
    "of a newer schema": b'{"schema_version": 7}',
    "of a text as its version": b'{"schema_version": "1"}',
    "with a text as its failure": b'{"schema_version": 1, "failure": "x"}',
    "with a text as its attempt": b'{"schema_version": 1, "attempt": "x"}',
    "without fields": b'{"schema_version": 1}',
    "a FIFO": os.mkfifo,
}


def spoil(path, content):
    """Make a file of these bytes, or (None) a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.mkdir()
    elif callable(content):
        content(path)
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("name", ["canary.json", "sort.json"])
def test_record_that_cannot_be_read_costs_its_own_row(kind, name, held):
    results = Path("results")
    sentinel.write_record(results / "good/canary.json", make_record(recording="good"))
    spoil(results / "bad" / name, RECORDS[kind])
    bad, good = summary.describe(results, {"bad": {}, "good": {}})
    assert good["outcome"] == "passed"
    assert ending.needs_attention(bad)
    assert f"results/bad/{name} " in bad["reason"]
    assert "remove" in bad["reason"]
    row = Recording(id="bad", paths=("x",), reader="binary")
    state = State(inputcheck.read_inputs({"recordings": table_of(row)})[0], row, results / "bad")
    assert state.disagreement == state.problem
    if name == "canary.json":
        assert gate.read_wave([results / "bad" / name])[0]["verdict"] == ""
    held()


def table_of(row):
    """Write a table of a row."""
    Path("t.tsv").write_text(f"recording\tpath\treader\n{row.id}\tx\t{row.reader}\n")
    return "t.tsv"


@pytest.mark.parametrize(
    "kind",
    ["empty", "truncated", "not UTF-8", "a folder", "of other columns", "of more fields", "a FIFO"],
)
def test_table_of_a_wave(kind, held):
    content = {
        "empty": b"",
        "truncated": b"recording\tverd",
        "not UTF-8": b"\xff\xfe",
        "a folder": None,
        "a FIFO": os.mkfifo,
        "of other columns": b"x\ty\n1\t2\n",
        "of more fields": b"recording\tverdict\tcategory\na\tproceed\t\tx\n",
    }[kind]
    path = Path("results/gates/1.tsv")
    spoil(path, content)
    with pytest.raises(TableError, match=r"gates/1\.tsv cannot be read .+; remove it"):
        read_tsv(path, gate.COLUMNS)
    sentinel.write_record(Path("results/a/canary.json"), make_record(recording="a"))
    assert gate.split(path, [Path("results/a/canary.json")]) == ({"a"}, set())
    assert gate.find_stale(Path("results"), {"gates/1.tsv": ["a"]})
    held()


@pytest.mark.parametrize("kind", ["a folder", "a FIFO", "not UTF-8", "junk"])
def test_journal(kind, held):
    path = Path("a/attempts.jsonl")
    junk = b'[1]\n{"kind": "canary", "verdict": "stop", "failure": "x"}\n' + b"[" * 100_000
    contents = {"a folder": None, "not UTF-8": b"\xff\xfe\n", "junk": junk, "a FIFO": os.mkfifo}
    spoil(path, contents[kind])
    assert sentinel.count_retestable(path) == 0
    sentinel.append_journal(path, "canary", make_record())
    held()


def make_path(kind, path):
    """Make what is no file or folder; return its path."""
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "a loop of links":
        path.symlink_to(path)
    elif kind == "a device":
        return "/dev/zero"
    elif kind == "a link to nowhere":
        path.symlink_to("nowhere")
    return str(path)


@pytest.mark.parametrize(
    "kind",
    ["a FIFO", "a socket", "a loop of links", "a device", "a link to nowhere"],
)
def test_path_that_is_no_file_is_said_at_once(kind, held):
    path = make_path(kind, Path("x.raw"))
    row = Recording.model_construct(
        id="a", paths=(path,), reader="binary", reader_options=OPTIONS, probe=path
    )
    with pytest.raises(Exception, match=r"is no file or folder|cannot be read|does not exist"):
        open_recording(row)
    assert "(recording a)" in plan.read_headers([row], 1)["a"]["problem"]
    np.zeros(200_000, dtype="int16").tofile("sound.raw")
    with pytest.raises(RecordingUnreadableError, match=r"the probe file \S+ (is|cannot|does)"):
        open_recording(row.model_copy(update={"paths": ("sound.raw",)}))
    config, _ = inputcheck.read_inputs({"recordings": table_of(row)})
    assert State(config, row, Path("a")).data is None
    (found,) = walk(path, set())
    assert found.failed
    held()


def test_folder_without_permission(held):
    folder = Path("closed")
    folder.mkdir(mode=0o000)
    Path.cwd().chmod(0o755)
    row = Recording(id="a", paths=(str(folder.absolute()),), reader="spikeglx")
    read, write = os.pipe()
    if not (child := os.fork()):
        os.setuid(65534)
        text = plan.read_header(row)["problem"]
        os.write(write, text.encode())
        os._exit(0)
    os.waitpid(child, 0)
    folder.chmod(0o700)
    told = os.read(read, 10_000).decode()
    assert "cannot be read" in told or "Permission denied" in told
    held()


def as_nobody(function, *arguments):
    """Return what a function returns, as text, for a user without rights."""
    read, write = os.pipe()
    if not (child := os.fork()):
        os.setuid(65534)
        os.write(write, str(function(*arguments)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    return os.read(read, 10_000).decode()


def test_whole_record_that_may_not_be_read_is_not_to_be_removed(held):
    Path.cwd().chmod(0o755)
    sentinel.write_record(Path("sort.json"), make_record())
    Path("sort.json").chmod(0)

    def told():
        with pytest.raises(RecordError) as caught:
            sentinel.read_record(Path("sort.json"))
        return caught.value

    assert (
        as_nobody(told) == "sort.json cannot be read (Permission denied): mend that, and run again"
    )
    held()


def test_folder_of_spikeinterface_that_may_not_be_entered_is_away(held):
    Path.cwd().chmod(0o755)
    Path("closed/x").mkdir(parents=True)
    Path("closed").chmod(0)
    for path in (str(Path("closed/x").absolute()), "x" * 300):
        row = Recording(id="a", paths=(path,), reader="spikeinterface")
        assert as_nobody(stamps.of_recording, row, None) == "None"
    Path("closed").chmod(0o700)
    held()


@pytest.mark.parametrize(
    "line", ['{"duration_s": 0}', '{"duration_s": NaN}', "[" * 100_000, "junk", "\x00"]
)
def test_history_that_is_damaged_is_left_out(line, held):
    finished = {"recording": "a", "duration_s": 9.0, "expected": {}, "actual": {"wall_s": 3.0}}
    damaged = json.dumps(finished).replace("9.0", line.partition(": ")[2].rstrip("}") or "x")
    Path("h.jsonl").write_text(f"{line}\n{damaged}\n{json.dumps(finished)}\n")
    assert [each.duration_s for each in forecast.read_history(Path("h.jsonl"))] == [9.0]
    Path("folder").mkdir()
    os.mkfifo("fifo")
    assert forecast.read_history(Path("folder")) == forecast.read_history(Path("fifo")) == []
    held()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"at": "2126-01-01T00:00:00+00:00"}', "{", None])
def test_trial_of_a_machine_that_cannot_be_read(text, held):
    path = Path("results/.nodes/x.failed.json")
    path.parent.mkdir(parents=True)
    if text is None:
        os.mkfifo(path)
    else:
        path.write_text(text)
    assert summary.read_waiting(Path("results")) == {}
    held()


def test_time_without_zone_in_a_journal(held):
    sentinel.write_record(Path("a/canary.json"), make_record(recording="a"))
    failed = make_record(recording="a", outcome="failed", finished_at="2126-01-01T00:00:00")
    sentinel.append_journal(Path("a/attempts.jsonl"), "sort", failed)
    (row,) = summary.describe(Path(), {"a": {}})
    assert row["sort"] == "pending"
    held()


@pytest.mark.parametrize("settings", [{"task": None}, {"task": "x"}, {"data": [1]}, {"task": []}])
def test_sort_record_whose_settings_somebody_edited(settings, held):
    record = make_record(recording="a", outcome="sorted", settings={"version": 0} | settings)
    sentinel.write_record(Path("a/sort.json"), record)
    row = Recording(id="a", paths=("x.raw",), reader="binary", reader_options=OPTIONS)
    Path("x.raw").write_bytes(bytes(80))
    assert State(Config(), row, Path("a")).changes
    held()


def test_report_of_names_and_figures_that_are_none(held):
    sentinel.write_record(Path("a/canary.json"), make_record(recording="a", log="x"))
    Path("a/figures").mkdir()
    Path("a/figures/gone.png").symlink_to("nowhere")
    os.mkfifo("a/figures/fifo.png")
    Path("a/figures/folder.png").mkdir()
    Path(os.fsdecode(b"a/notiz_M\xfcller.txt")).write_text("")
    Path(os.fsdecode(b"a/figures/\xff.png")).write_text("")
    summary.write(Path("summary.tsv"), summary.describe(Path(), {"a": {}}))
    report.write(Path("report.html"), Config(), Path())
    assert "a/canary.json" in Path("report.html").read_text()
    held()
