"""From a sorting to outputs and the report, through the workflow, with a quick sorter."""

import re
import shutil
import socket
import zipfile
from pathlib import Path

import numpy as np
import pynwb
import pytest

from spikecanary.outputs import curation
from workbench import new_project

pytestmark = pytest.mark.medium

#: Less than the default extensions: what takes long to compile is out.
EXTENSIONS = {
    "waveforms": None,
    "unit_locations": {"method": "center_of_mass"},
    "spike_locations": None,
    "correlograms": None,
    "template_similarity": None,
    "template_metrics": None,
    "quality_metrics": {
        "metric_names": ["num_spikes", "firing_rate", "isi_violation", "snr"],
    },
}
OUTPUTS = ["figures", "npz"]
#: What always runs: the sort of `none` found nothing, which needs attention.
CHECK = {"check_records"}
TABLES = {"wave_summary", "summary", "report"}


@pytest.fixture(scope="module")
def template(tmp_path_factory, write_binary, reader_options, tetrode):
    """Three recordings with all that is wanted: one sorted, one without units, one stopped."""
    project = new_project(tmp_path_factory.mktemp("template"), write_binary, reader_options)
    project.config |= {
        "outputs": OUTPUTS,
        "analysis": {"extensions": EXTENSIONS},
        # Its spikes come at random, so within the refractory period of others too.
        "curation": {"bombcell": False, "thresholds": {"isi_violations_share": None}},
    }
    project.add("a", probe=str(tetrode), subject="m1")
    project.add("none", sorter="silent_full", probe=str(tetrode))
    project.add("quiet", kind="silent", sorter="silent_always", probe=str(tetrode))
    run = project.run()
    assert run.returncode == 1, run.output
    assert "1 unsortable, SpikeSortingError: none" in run.output
    assert "the full sort found no units, and its canary found 4." in run.output
    return project


@pytest.fixture
def finished(template, tmp_path):
    """Copy the finished project."""
    return template.copied(tmp_path / "project")


def test_everything_is_there(template):
    assert set(curation.read_units(template.result("a/units.tsv"))["label"]) == {"good"}
    for name in ("a", "none"):
        for made in ("analyzer", "metrics.tsv", "units.tsv", "figures", "spikes.npz"):
            assert template.result(name, made).exists(), (name, made)
    assert len(curation.read_units(template.result("none/units.tsv"))) == 0
    assert template.result("quiet/canary.png").stat().st_size > 10_000
    assert not template.result("quiet/units.tsv").exists()
    summary = template.summary()
    assert summary["n_good"].to_dict() == {"a": "4", "none": "0", "quiet": ""}
    assert summary["sort"].to_dict() == {"a": "sorted", "none": "unsortable", "quiet": "stopped"}
    assert "InsufficientActivityError" in template.result("report.html").read_text()
    assert [path.name for path in template.result("a").glob(".*-*")] == []


@pytest.mark.parametrize(
    ("removed", "made"),
    [
        ("report.html", {"report"}),
        ("a/units.tsv", {"curate", "export_npz", "figures", *TABLES}),
        ("a/sort.json", {"sort", "analyze", "curate", "export_npz", "figures", *TABLES}),
    ],
)
def test_removed_file_is_made_again(finished, removed, made):
    finished.result(removed).unlink()
    assert set(finished.run("-n").jobs()) == CHECK | made


def test_removed_sentinel_does_not_cost_a_finished_sort(finished):
    finished.result("a/canary.json").unlink()
    assert finished.run("-n").recordings("sort") == []


def test_changed_threshold_runs_curation_and_what_follows(finished):
    finished.config["curation"]["thresholds"] |= {"snr": {"greater": 1000.0}}
    memory = finished.folder / ".snakemake"
    memory.rename(finished.folder / "kept")  # nothing would run
    run = finished.run()
    assert (run.returncode, set(run.jobs())) == (1, CHECK)
    forced = "--forcerun results/a/units.tsv results/none/units.tsv"
    assert "2 curated with other settings (a, none)" in run.output
    assert f"add to your command: {forced}" in run.output
    shutil.rmtree(memory)
    memory.with_name("kept").rename(memory)
    made = {"curate", "export_npz", "figures"}
    assert set(finished.run("-n").jobs()) == CHECK | made | TABLES
    finished.config["outputs"] = ["units"]
    assert set(finished.run().jobs()) == CHECK | {"curate"} | TABLES
    assert set(curation.read_units(finished.result("a/units.tsv"))["label"]) == {"mua"}
    assert finished.summary().loc["a", "n_good"] == "0"
    assert set(finished.run().jobs()) == CHECK


def test_changed_analysis_runs_all_but_the_sort(finished):
    finished.config["analysis"]["duplicated_spikes_ms"] = 0.5
    plan = finished.run("-n")
    assert plan.recordings("sort") == []
    assert plan.recordings("canary") == []
    assert plan.recordings("analyze") == ["a", "none"]


@pytest.mark.slow
def test_what_a_killed_analysis_left_is_removed(finished):
    left = finished.result(f"a/.analyze-{socket.gethostname()}-{2**22 + 1}")
    left.mkdir()
    finished.config["analysis"]["duplicated_spikes_ms"] = 0.5
    run = finished.run("results/a/metrics.tsv")
    assert run.returncode == 0, run.output
    assert not left.exists()


def test_metadata_of_a_row_names_nwb_only(finished):
    finished.rows[0]["subject"] = "m2"
    assert set(finished.run("-n").jobs()) == CHECK | TABLES


@pytest.mark.slow
def test_session_in_one_nwb_file(finished):
    """All recordings of a session but one that is stopped."""
    for row in finished.rows:
        row |= {"subject": "m1", "session": "day 1"}
    finished.config |= {"outputs": ["nwb"], "exports": {"nwb": {"by": "session"}}}
    run = finished.run()
    assert run.jobs()["export_session"] == 1, run.output
    assert not set(run.jobs()) & {"canary", "sort", "analyze"}
    with pynwb.NWBHDF5IO(finished.result("sessions/m1_day-1.nwb"), "r") as io:
        file = io.read()
        assert {name.split("/")[0] for name in file.units["unit_name"]} == {"a"}
        assert (len(file.electrodes), len(file.epochs)) == (8, 1)  # recording none has no units
        assert "without quiet, which are not sorted" in file.session_description
    assert set(finished.run().jobs()) == CHECK
    for row in finished.rows:
        del row["session"]
    run = finished.run("--dry-run")
    assert "exports.nwb.by is session: the table needs a column session" in run.output


def test_threshold_of_an_unknown_metric_is_one_clear_error(finished):
    finished.config["curation"]["thresholds"] |= {"snrr": {"greater": 1.0}}
    run = finished.run()
    assert run.returncode == 1
    assert re.search(r"curation.thresholds.*snrr.*did you mean 'snr'", run.output), run.output
    assert not run.jobs()
    del finished.config["curation"]["thresholds"]["snrr"]
    assert set(finished.run("-n").jobs()) == CHECK


def files_of(folder):
    """Return what is in a folder, without what the workflow itself may remove there."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".exported"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_work_in_phy_is_kept_and_read_back(finished):
    finished.config["outputs"] = ["npz", "phy"]
    assert set(finished.run().recordings("export_phy")) == {"a", "none"}
    phy = finished.result("a/phy")
    clusters = np.load(phy / "spike_clusters.npy")
    clusters[clusters < 2] = 9
    np.save(phy / "spike_clusters.npy", clusters)
    (phy / "cluster_group.tsv").write_text("cluster_id\tgroup\n2\tnoise\n3\tgood\n9\tmua\n")
    edited = files_of(phy)
    finished.config["curation"]["thresholds"] |= {"snr": {"greater": 1000.0}}
    for forced in ([], ["--forcerun", "analyze"]):
        run = finished.run(*forced)
        assert run.returncode == 1
        assert (
            "results/a/phy was edited by hand (cluster_group.tsv, spike_clusters.npy)" in run.output
        )
        assert "set `curation: {manual: phy}`" in run.output
        assert files_of(phy) == edited
        assert len(curation.read_units(finished.result("a/units.tsv"))) == 4
    finished.config["curation"]["manual"] = "phy"
    run = finished.run()
    assert run.recordings("analyze") == ["a"]
    units = curation.read_units(finished.result("a/units.tsv"))
    assert sorted(units["label"].items()) == [("2", "noise"), ("3", "good"), ("phy9", "mua")]
    assert units.loc["phy9", "num_spikes"] == (clusters == 9).sum()
    with np.load(finished.result("a/spikes.npz")) as spikes:
        assert sorted(spikes["unit_ids"]) == ["2", "3", "phy9"]
    assert files_of(phy) == edited
    assert set(finished.run().jobs()) == CHECK
    finished.config["curation"]["manual"] = None
    shutil.rmtree(phy)
    assert set(finished.run().recordings("export_phy")) == {"a"}
    assert len(curation.read_units(finished.result("a/units.tsv"))) == 4
    assert len(np.unique(np.load(phy / "spike_clusters.npy"))) == 4


@pytest.mark.slow
def test_curation_in_the_gui_is_kept(finished):
    gui = finished.result("a/analyzer/spikeinterface_gui")
    gui.mkdir(exist_ok=True)  # as the GUI does
    (gui / "curation_data.json").write_text("mine")
    finished.config["curation"]["thresholds"] |= {"snr": {"greater": 1000.0}}
    finished.run("results/a/units.tsv")
    assert (gui / "curation_data.json").read_text() == "mine"
    finished.config["analysis"]["duplicated_spikes_ms"] = 0.5
    run = finished.run("results/a/metrics.tsv")
    assert run.returncode == 1
    assert "results/a/spikeinterface_gui: a curation made by hand" in run.output
    assert finished.result("a/spikeinterface_gui/curation_data.json").read_text() == "mine"
    shutil.rmtree(finished.result("a/spikeinterface_gui"))
    assert finished.run("results/a/metrics.tsv").returncode == 0


@pytest.mark.slow
def test_what_needs_no_raw_file_is_made_without(finished):
    """Labels, NumPy, MATLAB and NWB; what needs it names it. Other outputs are made alone."""
    finished.config["outputs"] = [*OUTPUTS, "mat", "nwb", "phy"]
    further = {"export_mat", "export_nwb", "export_phy"}
    assert set(finished.run().jobs()) == CHECK | further | TABLES
    raw = Path(finished.rows[0]["path"])
    archived = raw.rename(raw.with_suffix(".archived"))
    try:
        finished.config["curation"]["thresholds"] |= {"snr": {"greater": 1000.0}}
        run = finished.run()
    finally:
        archived.rename(raw)
    assert run.recordings("sort") == []
    assert set(curation.read_units(finished.result("a/units.tsv"))["label"]) == {"mua"}
    with np.load(finished.result("a/spikes.npz")) as spikes:
        assert set(spikes["unit_labels"]) == {"mua"}
    with pynwb.NWBHDF5IO(finished.result("a/units.nwb"), "r") as io:
        file = io.read()
        assert set(file.units["label"]) == {"mua"}
        assert len(file.electrodes) == 4
    assert (
        f"Phy needs the raw file, bring it back or leave phy out: {raw} does not exist"
        in run.output
    )
    assert f"{raw} does not exist" in run.output
    assert run.returncode == 1
    assert finished.run().returncode == 1  # recording none is without units, as before
    assert finished.result("a/figures/probe.png").exists()


def test_report_of_snakemake(finished):
    run = finished.run("--report", "report.zip")
    assert run.returncode == 0, run.output
    with zipfile.ZipFile(finished.folder / "report.zip") as archive:
        names = archive.namelist()
        page = archive.read("report/report.html").decode()
    for made in ("canary.png", "templates.png", "summary.tsv", "report.html"):
        assert any(name.endswith(made) for name in names), made
    for caption in ("The window for which the canary stopped", "The mean waveform of each unit"):
        assert caption in page


@pytest.mark.slow
def test_progress_in_recordings(finished):
    shutil.rmtree(finished.result("a"))
    run = finished.run("--logger", "spikecanary")
    assert "canaries 1 of 1; sorts 0 of at most 1" in run.output
    assert "sorts 1 of at most 1" in run.output
    assert "rule canary" not in run.output
    assert "3 recordings: 1 sorted" in run.output
