"""Real sorters on the demo and on real recordings."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from phylib.io.model import load_model
from probeinterface import generate_linear_probe, write_probeinterface
from spikeinterface.comparison import compare_sorter_to_ground_truth
from spikeinterface.core import load, load_sorting_analyzer

from spikecanary import outputs
from spikecanary.outputs import curation
from workbench import ROOT, snakemake

pytestmark = [pytest.mark.medium, pytest.mark.usefixtures("compiled")]


@pytest.mark.slow
def test_demo_with_kilosort4(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    demo = tmp_path / "demo"
    demo.mkdir()
    made = snakemake(demo, "--snakefile", str(ROOT / "rules/demo.smk"))
    assert made.returncode == 0, made.output
    command = ("--snakefile", str(ROOT / "Snakefile"), "--configfile", "../config/demo/config.yaml")
    run = snakemake(demo, *command)
    assert run.returncode == 1, run.output  # `missing` needs attention
    assert "  1 stopped, RecordingUnreadableError: missing" in run.output.splitlines()
    summary = pd.read_csv(demo / "results/summary.tsv", sep="\t", index_col="recording")
    columns = ["verdict", "outcome", "category", "sort"]
    assert summary[columns].fillna("").T.to_dict("list") == {
        "healthy": ["proceed", "passed", "", "sorted"],
        "silent": ["stop", "stopped", "biological", "stopped"],
        "missing": ["stop", "stopped", "environment", "stopped"],
        "short": ["proceed", "skipped", "", "sorted"],
        "crashing": ["proceed", "unexpected", "", "sorted"],
    }
    assert summary["subject"].to_list() == ["m1", "m1", "m2", "m2", "m3"]
    sorting = load(demo / "results/healthy/sorting")
    comparison = compare_sorter_to_ground_truth(load(demo / "truth/healthy"), sorting)
    accuracy = comparison.get_performance()["accuracy"].astype(float)
    assert (accuracy >= 0.8).sum() >= 6
    for name in ("healthy", "short", "crashing"):
        folder = demo / "results" / name
        assert [each for each in outputs.FILES.values() if not (folder / each).exists()] == []
        assert len(list((folder / "figures").glob("*.png"))) == 11
    assert (demo / "results/silent/canary.png").exists()
    assert (curation.read_units(demo / "results/healthy/units.tsv")["label"] == "good").sum() >= 4

    # What Kilosort 4 itself wrote: kept, opened by Phy's library, read again instead of sorting.
    kept = demo / "results/healthy/sorter_output"
    assert {"ops.npy", "templates.npy", "spike_times.npy", "params.py"} <= {
        path.name for path in kept.iterdir()
    }
    assert not list(kept.glob("*.dat"))
    model = load_model(kept / "params.py")
    assert (model.n_templates, model.n_spikes) == (8, sorting.count_total_num_spikes())
    record = json.loads((demo / "results/healthy/sort.json").read_text())
    assert record["sorter"]["params"]["nblocks"] == 0
    assert record["sorter"]["params"]["Th_universal"] == 9  # a default
    assert record["sorter"]["params"]["artifact_threshold"] == "Infinity"  # which JSON has not
    shutil.rmtree(demo / "results/healthy/sorting")

    again = snakemake(demo, *command)
    assert again.recordings("canary") == ["missing"]
    assert again.recordings("sort") == ["healthy"]
    assert set(again.jobs()) >= {"analyze", "curate", "export_phy", "figures", "report"}
    assert "not sorted again: read from" in again.output
    read = load(demo / "results/healthy/sorting")
    assert np.array_equal(read.to_spike_vector(), sorting.to_spike_vector())
    once_more = snakemake(demo, *command)
    assert set(once_more.jobs()) == {
        *("canary", "gate", "wave_summary", "summary", "report", "check_records")
    }
    made = snakemake(demo, "--snakefile", str(ROOT / "rules/demo.smk"))
    assert made.nothing_to_do


@pytest.fixture
def locust(project, data, tetrode):
    """Two files of a tetrode in a locust's antennal lobe, as one recording."""
    options = {"sampling_frequency": 15000.0, "dtype": "int16", "num_channels": 4}
    trials = [str(data / f"locust/locust_trial_{number:02d}.raw") for number in (1, 2)]
    project.add(
        "locust",
        path="; ".join(trials),
        reader_options=json.dumps(options),
        probe=str(tetrode),
    )
    project.config["canary"] = {"window_s": 20, "min_recording_s": 40}
    project.config["job"] = {"threads": 2}
    return project


def test_real_recording_is_sorted(locust):
    """By Kilosort 4, and by SpyKING CIRCUS 2 in another row of the same table."""
    locust.rows.append(locust.rows[0] | {"recording": "second", "sorter": "spykingcircus2"})
    params = {"nblocks": 0, "do_CAR": False}
    locust.config["sorter"] = {"name": "kilosort4", "params": params, "device": "cpu"}
    locust.config["outputs"] = ["figures", "nwb", "npz"]
    run = locust.run()
    assert run.returncode == 0, run.output
    for name, sorter in (("locust", "kilosort4"), ("second", "spykingcircus2")):
        canary, folder = locust.sentinel(name), locust.result(name)
        assert canary["outcome"] == "passed"
        assert canary["duration_s"] == pytest.approx(57.54, abs=0.01)
        assert canary["sorter"]["name"] == sorter
        assert canary["sorter"]["version"]
        assert locust.sort_record(name)["n_units"] >= 1
        assert len(load(folder / "sorting").unit_ids) >= 1
        # Without a gain a count is taken to be a microvolt.
        analyzer = load_sorting_analyzer(folder / "analyzer")
        assert set(analyzer.recording.get_channel_gains()) == {1.0}
        assert len(curation.read_units(folder / "units.tsv")) >= 1
        assert all((folder / f"figures/{each}.png").exists() for each in ("drift", "templates"))


@pytest.mark.slow
def test_real_recordings_in_trouble_cost_nobody(locust, data):
    """Half a second of Neuropixels, one of noise, a file without its plugin, and a good one."""
    locust.add(
        "np2",
        path=str(data / "sglx_np2"),
        reader="spikeglx",
        stream_id="imec0.ap",
        reader_options="",
    )
    locust.add(
        "biocam",
        path=str(data / "biocam/biocam_hw3.0_fw1.6.brw"),
        reader="biocam",
        reader_options="",
    )
    locust.add(
        "maxwell",
        path=str(data / "maxwell/data.raw.h5"),
        reader="maxwell",
        stream_id="well000",
        reader_options='{"rec_name": "rec0000"}',
    )
    locust.rows[0]["sorter"] = "spykingcircus2"
    locust.config["sorter"] = {"name": "kilosort4", "params": {"nblocks": 0}, "device": "cpu"}
    run = locust.run()
    summary = locust.summary()
    assert summary.loc["locust", "sort"] == "sorted"

    maxwell = locust.sentinel("maxwell")
    assert (maxwell["verdict"], maxwell["failure"]["class"]) == ("stop", "HDF5PluginMissingError")
    assert maxwell["failure"]["category"] == "environment"
    assert "plugin" in maxwell["failure"]["message"]
    for name in ("np2", "biocam"):
        assert locust.sentinel(name)["failure"]["class"] == "SorterParameterError"  # one batch
        assert summary.loc[name, "sort"] == "stopped"
    assert run.returncode == 1
    lines = re.findall(r"^\d of 4  np2 +stop, .*", run.output, re.MULTILINE)
    assert len(lines) == 1
    print(*lines, *(f"{n}: {r}" for n, r in summary["reason"].items()), sep="\n")


@pytest.mark.slow
def test_start_that_the_canary_names_sorts(project):
    """Nothing fires in the batches that Kilosort 4 learns from: those at 0 and 12.5 s."""
    rate_hz, duration_s, positions_um = 20_000, 20, 20.0 * np.arange(8)
    rng = np.random.default_rng(7)
    traces = rng.normal(0.0, 8.0, (rate_hz * duration_s, 8))
    shape = -np.hanning(14) + 0.4 * np.r_[np.zeros(8), np.hanning(12)][:14]
    for depth_um in (15.0, 60.0, 85.0, 130.0):
        amplitudes = 180.0 * np.exp(-np.abs(positions_um - depth_um) / 25.0)
        for at_s in np.cumsum(0.004 + rng.exponential(0.05, 300)):
            if at_s < duration_s - 1 and not any(b <= at_s < b + 1.5 for b in (0, 12)):
                at = int(at_s * rate_hz)
                traces[at : at + 14] += shape[:, None] * amplitudes
    traces.astype("int16").tofile(project.folder / "quiet.raw")
    probe = generate_linear_probe(8, ypitch=20)
    probe.set_device_channel_indices(range(8))
    write_probeinterface(project.folder / "probe.json", probe)
    options = {"sampling_frequency": float(rate_hz), "dtype": "int16", "num_channels": 8}
    project.add("quiet", path="quiet.raw", probe="probe.json", reader_options=json.dumps(options))
    params = {"nblocks": 0, "batch_size": rate_hz // 2}
    project.config["sorter"] = {"name": "kilosort4", "params": params, "device": "cpu"}
    project.config["canary"] = {"window_s": 4, "min_recording_s": 10}
    run = project.run()
    assert run.returncode == 1
    failure = project.sentinel("quiet")["failure"]
    assert failure["class"] == "SorterParameterError"
    start_s = failure["evidence"]["start_s"]
    assert f"Set start_s to {start_s:g} in the recordings table" in run.output

    project.config["canary"]["force"] = ["quiet"]
    forced = project.run("results/quiet/sorting")
    assert project.sort_record("quiet")["n_units"] == 0, forced.output  # the stop was right
    project.config["canary"]["force"] = []
    project.rows[0]["start_s"] = start_s
    assert project.run().returncode == 0
    assert project.sentinel("quiet")["outcome"] == "passed"
    assert project.sort_record("quiet")["n_units"] >= 2
