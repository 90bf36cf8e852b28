"""What the rules ask of a batch: places, recordings, waves, and what is asked for."""

from pathlib import Path

import pytest

from spikecanary import sentinel
from spikecanary.batch import Batch, check_places
from spikecanary.config import Config
from spikecanary.table import Recording
from workbench import make_record, stopped

PLACES = ("results", "logs", "benchmarks")


@pytest.fixture
def batch(tmp_path):
    """Return a function that makes a batch of recordings a to e, two a wave, with some config."""
    rows = []
    for name in "abcde":
        (tmp_path / f"{name}.raw").write_bytes(b"data")
        rows.append(Recording(id=name, paths=(str(tmp_path / f"{name}.raw"),), reader="binary"))
    (tmp_path / "results").mkdir()

    def make(config=None, **how):
        given = {"gate": {"wave_size": 2}, "outputs": []} | (config or {})
        return Batch(Config.model_validate(given), rows, tmp_path / "results", **how)

    return make


def write_canary(batch, name, record):
    """Write a sentinel with the settings of now."""
    settings = {k: v for k, v in batch.state_of(name).canary_settings.items() if k != "attempt"}
    path = batch.results / name / "canary.json"
    sentinel.write_record(path, record.model_copy(update={"settings": settings}))


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("", "pathvars: logs: takes a folder, without ~, {, }, < and >, got ."),
        ("~/x", "pathvars: logs: takes a folder, without ~, {, }, < and >, got ~/x"),
        ("a<b", "pathvars: logs: takes a folder, without ~, {, }, < and >, got a<b"),
        ("file", "file is no folder: move it, or choose another in pathvars: logs"),
        (
            "file/x",
            "pathvars: logs: file/x does not exist: part of it is a file, no folder; choose",
        ),
        ("loop", "pathvars: logs: loop cannot be read"),
        ("none/x", ""),
    ],
)
def test_places(tmp_path, monkeypatch, place, why):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    found = check_places({"results": Path("results"), "logs": Path(place)})
    assert found.startswith(why)
    assert bool(found) == bool(why)


def test_what_is_in_the_place_of_ours_is_named(tmp_path):
    (tmp_path / "gates").touch()
    (tmp_path / "summary.tsv").mkdir()
    (tmp_path / "waves").mkdir()
    found = check_places(dict.fromkeys(PLACES, tmp_path))
    assert found.count("should be a") == 2
    assert f"{tmp_path}/gates should be a folder" in found
    assert f"{tmp_path}/summary.tsv should be a file" in found


def test_waves_are_blocks_of_rows(batch):
    assert batch().waves == {"1": ["a", "b"], "2": ["c", "d"], "3": ["e"]}
    assert [row["table_row"] for row in batch().place_of(["c", "d"])["rows"].values()] == ["2", "3"]


def test_misspelt_recording_is_said(batch):
    with pytest.raises(
        SystemExit, match=r"no recording 'A' in .*recordings.tsv \(did you mean 'a'"
    ):
        batch().state_of("A")


def test_recording_without_a_folder_to_work_in_is_left_out(batch):
    (batch().results / "b").touch()
    left = batch()
    assert left.waves["1"] == ["a"]
    assert "has no folders of theirs to work in: ['b']" in left.left_out
    assert left.needs_check
    with pytest.raises(SystemExit, match="to work in"):
        left.state_of("b")


@pytest.mark.parametrize("name", ["canary.json", "sort.json"])
def test_recording_whose_record_cannot_be_reached_is_left_out(batch, monkeypatch, name):
    """What it says may be worth hours; a record that is none is made again."""
    for one in "ab":
        sentinel.write_record(batch().results / one / name, make_record(recording=one))
    (batch().results / "b" / name).write_text("{")
    read = Path.read_bytes

    def fail(path):
        if path == batch().results / "a" / name:
            raise OSError(5, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    left = batch()
    assert left.waves["1"] == ["b"]
    path = batch().results / "a" / name
    assert left.left_out == f"{path} cannot be read (Input/output error): mend that, and run again"
    # A job is of a recording that was looked at, and looks at no other.
    job = batch(is_job=True)
    assert (job.waves["1"], job.left_out) == (["a", "b"], "")


def test_dry_run_counts_what_may_be_sorted(batch):
    write_canary(batch(), "a", make_record())
    write_canary(batch(), "b", stopped("biological"))
    planned = batch({"outputs": ["figures"]}, dry=True)
    assert planned.split("1") == (["a"], ["b"])
    assert planned.split("2") == (["c", "d"], [])
    assert planned.results_of("1", ["sort.json"]) == ["a/sort.json", "b/canary.png"]
    assert planned.missing_of("1") == ["gates/1.tsv", "waves/1.tsv"]
    forced = batch({"canary": {"force": ["b"]}}, dry=True)
    assert forced.split("1") == (["a", "b"], [])


def test_real_run_goes_by_the_gates_table(batch, tmp_path):
    table = tmp_path / "results/gates/1.tsv"
    table.parent.mkdir()
    table.write_text("recording\tverdict\tcategory\na\tproceed\t\nb\tstop\tenvironment\n")
    running = batch(gate_of=lambda _: table)
    assert running.split("1") == (["a"], [])
    assert set(running.sorts_of("1")) == {
        *("a/canary.json", "b/canary.json", "a/sort.json", "a/sorting"),
    }
    assert running.missing_of("1") == [
        *("waves/1.tsv", "a/canary.json", "b/canary.json", "a/sorting", "a/sort.json"),
    ]


def test_what_is_there_counts_where_no_job_is_to_run(batch):
    settings = batch().state_of("a").sort_settings
    for name in "ab":
        record = make_record(recording=name, outcome="sorted", settings=settings)
        sentinel.write_record(batch().results / name / "sort.json", record)
    (batch().results / "a/figures").mkdir()
    write_canary(batch(), "b", stopped("environment"))
    config = {"outputs": ["figures"], "gate": {"wave_size": 5}}

    def gate_of(wave):
        raise AssertionError(wave)  # it is due

    reading = batch(config, gate_of=gate_of, reads_only=lambda: True)
    assert reading.results_of("1", ["figures", "curated"]) == ["a/figures"]
    there = ["b/canary.json", "a/sort.json", "a/figures", "b/sort.json"]
    assert reading.missing_of("1") == there


def test_machine_is_tried_before_many_canaries(batch):
    assert batch().find_trial("1") is None
    trying = batch(tries_nodes=lambda: True)
    assert trying.find_waiting("kilosort4") == {*"abcde"}
    assert trying.find_trial("3") == "kilosort4"
    assert (
        batch({"canary": {"stop_on": ["resource"]}}, tries_nodes=lambda: True).find_trial("1")
        is None
    )
    write_canary(batch(), "a", make_record())
    few = batch({"canary": {"force": ["b"]}}, tries_nodes=lambda: True)
    assert few.find_trial("2") is None
