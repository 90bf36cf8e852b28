"""The plan, of real headers."""

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from spikecanary import inputcheck, plan, sentinel
from spikecanary.config import Config
from spikecanary.failures import IOStallError
from spikecanary.reruns import State
from spikecanary.sentinel import Failure
from spikecanary.supervise import log
from spikecanary.table import Recording
from spikecanary.texts import PlainError, duration
from workbench import ROOT, make_record


@pytest.fixture
def rows(write_binary, reader_options, tetrode):
    def row(name, **fields):
        given = {
            "paths": (str(write_binary("active", 8.0)),),
            "reader": "binary",
            "reader_options": reader_options,
            "probe": str(tetrode),
        }
        return Recording(id=name, **given | fields)

    bare = {name: value for name, value in reader_options.items() if "uV" not in name}
    return {
        "good": row("good"),
        "same": row("same"),
        "missing": row("missing", paths=("/no/such.raw",)),
        "no_probe": row("no_probe", probe=None, start_s=1.0),
        "slow": row("slow", reader_options=reader_options | {"sampling_frequency": 8000.0}),
        "loud": row("loud", reader_options=reader_options | {"gain_to_uV": 1000.0}),
        "raw": row("raw", reader_options=bare),
    }


@pytest.fixture
def config():
    sorter = {"name": "quick", "plugin": str(ROOT / "tests/quick_sorter.py")}
    canary = {"window_s": 2, "min_recording_s": 4}
    return Config.model_validate({"sorter": sorter, "canary": canary})


def test_plan_of_a_new_batch(rows, config, tmp_path):
    table = plan.make(config, list(rows.values()), tmp_path, 2).set_index("recording")
    assert table.loc["good", ["duration_s", "n_channels", "action"]].tolist() == [
        8.0,
        4,
        "canary + sort",
    ]
    assert table["problems"].to_dict() == {
        "good": "",
        "same": "the same data as good",
        "missing": "/no/such.raw does not exist (recording missing). "
        "Check path, reader, stream_id and reader_options in the recordings table.",
        "no_probe": "no probe",
        "slow": "unusual sampling rate: 8000 Hz",
        "loud": "unusual gain: 1000 to 1000 uV per count",
        "raw": "no gain to uV",
    }
    other = rows["good"].model_copy(update={"id": "other", "sorter": "simple"})
    assert plan._find_repeated([rows["good"], other]) == {}  # two sorters are compared
    assert table.loc["missing", ["action", "canary_s"]].tolist() == ["canary", 0.0]
    assert table.attrs["n_guessed"] == (table["canary_s"] > 0).sum() == 6
    assert table.loc["good", "sort_s"] == 60 + 8


def test_plan_says_what_is_switched_off_and_what_cannot_be_sorted(rows, tmp_path):
    params = {"skip_kilosort_preprocessing": True}
    config = Config(sorter={"params": params}, preprocessing={"bandpass_filter": {}})
    (row,) = plan.make(config, [rows["good"]], tmp_path, 1).itertuples()
    said = "sorter.params.skip_kilosort_preprocessing is true, and preprocessing has no step whiten"
    assert row.problems == said
    config = Config(sorter={"params": {"batch_size": 240_000}})
    (row,) = plan.make(config, [rows["good"]], tmp_path, 1).itertuples()
    assert (row.action, row.sort_s) == ("canary", 0.0)
    assert "240,000 samples are fewer than two batches of kilosort4" in row.problems
    other = rows["good"].model_copy(update={"sorter": "hdsort"})
    (row,) = plan.make(config, [other], tmp_path, 1).itertuples()
    assert row.problems == "the sorter hdsort is not installed on this machine"
    (row,) = plan.make(Config(), [rows["no_probe"]], tmp_path, 1).itertuples()
    assert (row.action, row.sort_s) == ("canary", 0.0)
    assert "kilosort4 needs the positions of the channels" in row.problems


def test_plan_of_what_stands(rows, config, tmp_path):
    few = [rows["good"]]
    short = config.model_copy(
        update={"canary": config.canary.model_copy(update={"min_recording_s": 20.0})}
    )
    new = plan.make(short, few, tmp_path, 1)
    assert new["action"].tolist() == ["sort without canary"]
    skipped = make_record(recording="good", outcome="skipped", duration_s=8.0)
    sentinel.write_record(tmp_path / "good/canary.json", skipped)
    again = plan.make(short, few, tmp_path, 1)
    assert again["disk_mb"].tolist() == new["disk_mb"].tolist() != [0.0]
    failure = Failure(class_name="InsufficientActivityError", category="biological", message="m")
    state = State(config, rows["good"], tmp_path / "good")
    settings = {k: v for k, v in state.canary_settings.items() if k != "attempt"}
    record = make_record(
        verdict="stop",
        outcome="stopped",
        failure=failure,
        settings=settings,
    )
    sentinel.write_record(tmp_path / "good/canary.json", record)
    table = plan.make(config, few, tmp_path, 1)
    assert table["action"].tolist() == ["stopped"]
    assert table["problems"].tolist() == ["stopped: InsufficientActivityError"]
    assert table["sort_s"].tolist() == [0.0]


def test_plan_names_what_has_changed_since_a_sort(rows, config, tmp_path):
    row = rows["good"]
    raw = tmp_path / "x.raw"
    raw.write_bytes(Path(row.paths[0]).read_bytes())
    row = row.model_copy(update={"paths": (str(raw),)})
    settings = State(config, row, tmp_path / "good").sort_settings
    sort = make_record(outcome="sorted", settings=settings)
    sentinel.write_record(tmp_path / "good/sort.json", sort)

    def problems(config):
        return plan.make(config, [row], tmp_path, 1)["problems"].item()

    assert problems(config) == ""
    raw.write_bytes(raw.read_bytes()[:960_000])
    assert problems(config) == (
        "sorted before, and changed since: x.raw: 1,920,000 bytes then, 960,000 now"
    )
    sorter = config.sorter.model_copy(update={"params": {"threshold": 6.0}})
    changed = problems(config.model_copy(update={"sorter": sorter}))
    assert changed.endswith("960,000 now; other settings: sorter")


def test_reader_that_crashes_costs_its_own_recording_only(rows, config, tmp_path, monkeypatch):
    real = plan.open_recording

    def crash(row, notes, **further):
        if row.id == "slow":
            import os

            os._exit(9)
        return real(row, notes, **further)

    monkeypatch.setattr(plan, "open_recording", crash)  # workers are forked with it
    headers = plan.read_headers(list(rows.values()), 2)
    assert headers["slow"] == {"problem": "the reader binary crashed on it"}
    assert headers["good"]["n_channels"] == 4
    assert len(headers) == len(rows)


def test_folder_above_those_of_spikeinterface_is_none_of_its_recordings(rows, tmp_path):
    plan.open_recording(rows["good"]).save(folder=tmp_path / "above/saved")
    row = Recording(id="x", paths=(str(tmp_path / "above"),), reader="spikeinterface")
    problem = plan.read_header(row)["problem"]
    assert problem.endswith("SpikeInterface: path must be the folder with si_folder.json.")


def test_totals(rows, config, tmp_path):
    table = plan.make(config, [rows["good"], rows["no_probe"]], tmp_path, 1)
    text = plan.describe(table)
    assert "2 recordings: 2 canary + sort" in text
    assert "At most 2 canaries, 2 sorts, and the outputs of 2 recordings." in text
    nothing_more = plan.make(config.model_copy(update={"outputs": []}), [rows["good"]], tmp_path, 1)
    assert "At most 1 canary, 1 sort. Canaries and sorts take" in plan.describe(nothing_more)
    time_s = table["canary_s"].sum() + table["sort_s"].sum()
    assert f"take {duration(time_s)} in all" in text
    assert "1 recording with problems:" in text
    assert "no_probe: no probe" in text
    assert f"{table['disk_mb'].max():.0f} MB of disk for the largest" in text
    assert "Times of 2 recordings are guessed from the length" in text
    assert "guessed" not in plan.describe(plan.make(config, [rows["missing"]], tmp_path, 1))
    alike = [rows["no_probe"].model_copy(update={"id": f"x{n}"}) for n in range(30)]
    many = plan.describe(plan.make(config, [*alike, rows["missing"]], tmp_path, 1))
    assert "  x0: no probe\n  x1, x2, x3, x4, x5, x6, x7, x8, x9, x10 and 19 more: " in many
    assert "19 more: no probe; the same data as x0\n" in many
    assert "  missing: /no/such.raw does not exist" in many  # not hidden behind them
    cut = plan.describe(plan.make(config, [*alike, rows["missing"]], tmp_path, 1), most=1)
    assert "  x0: no probe\n  ... and 30 more\n" in cut
    none = plan.describe(plan.make(config, [rows["missing"]], tmp_path, 1))
    assert "missing: /no/such.raw does not exist" in none


def wait_at(path):
    """Open a FIFO that nobody writes to, as a reader of a folder would."""
    return Path(path).read_bytes()


def test_header_that_is_never_read_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "LIMIT_S", 1)  # workers are forked with it
    os.mkfifo(tmp_path / "x")
    monkeypatch.setattr(plan, "open_recording", lambda row, *_, **__: wait_at(row.paths[0]))
    rows = [Recording(id="a", paths=(str(tmp_path / "x"),), reader="spikeglx")]
    assert plan.read_headers(rows, 1) == {
        "a": {"problem": f"not read within 1 s. {IOStallError.remedy}"}
    }


def test_workers_end_with_the_process_that_started_them(tmp_path):
    os.mkfifo(tmp_path / "x")
    code = f"""
import pathlib, os
from spikecanary import plan
def wait(_):
    pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()
    open({str(tmp_path / "x")!r}).read()
plan.map_in_processes(wait, range(40), 2)
"""
    starter = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while len(workers := list(tmp_path.glob("[0-9]*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    starter.kill()
    starter.wait()
    while any(psutil.pid_exists(int(each.name)) for each in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(workers) == 2


def end_at_once(item):
    if item == 0:
        os._exit(1)
    return item


def test_reader_that_crashes_while_others_wait_for_a_process_costs_its_own(monkeypatch):
    submit = plan.ProcessPoolExecutor.submit

    def submit_slowly(pool, *arguments):
        future = submit(pool, *arguments)
        time.sleep(0.5)
        return future

    monkeypatch.setattr(plan.ProcessPoolExecutor, "submit", submit_slowly)
    assert plan.map_in_processes(end_at_once, range(3), 2) == {1: 1, 2: 2}


def test_rows_that_differ_in_probe_or_channels_are_no_repetition(rows):
    good = rows["good"]
    other = [
        good.model_copy(update={"id": name, name: "x"})
        for name in ("probe", "wiring", "bad_channels", "stream_id")
    ]
    again = good.model_copy(update={"id": "again", "line": 9, "metadata": {"a": "b"}})
    found = plan._find_repeated([good, *other, again])
    assert found == {"again": "the same data as good"}


def test_plan_without_spikeinterface_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "configure", lambda *_, **__: None)
    monkeypatch.setattr(inputcheck, "has_spikeinterface", lambda: False)
    job = SimpleNamespace(log=[tmp_path / "plan.log"], threads=1)
    with pytest.raises(PlainError, match="it needs SpikeInterface here"):
        runpy.run_path(str(ROOT / "scripts/plan.py"), {"snakemake": job}, "__main__")
