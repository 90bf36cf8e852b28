"""The command that classifies logs, and its score on labelled texts."""

import json
import os
from pathlib import Path

import pytest

from spikecanary.failures import (
    classify,
)


def test_command(tmp_path, capsys):
    (tmp_path / "log").write_text("x\nRuntimeError: No CUDA GPUs are available\n")
    (tmp_path / "bug").write_text("IndexError: list index out of range\n")
    assert classify.main([str(tmp_path / "log")]) == 0
    capsys.readouterr()
    assert classify.main([str(tmp_path / "log"), str(tmp_path / "bug")]) == 1
    said = capsys.readouterr().out
    assert "class: GPUUnavailableError\n  category: environment" in said
    assert "remedy: Run on a node" in said
    assert "bug\n  unclassified" in said
    assert classify.main([str(tmp_path / "none")]) == 2
    (tmp_path / "own").write_text(
        "2026 INFO a: stop (stopped): a.raw does not exist. Check path.\n"
    )
    assert classify.main([str(tmp_path / "own")]) == 0
    assert "  verdict: stop\n  reason: a.raw does not exist. Check" in capsys.readouterr().out
    (tmp_path / "own").write_text("2026 INFO a: proceed (passed): 8 units in 30 s\n")
    assert classify.main([str(tmp_path / "own"), "--draft"]) == 0
    assert "  verdict: proceed\n  reason: 8 units in 30 s" in capsys.readouterr().out
    (tmp_path / "own").write_text("2026 INFO a: proceed (unexpected): a bug\n")
    assert classify.main([str(tmp_path / "own")]) == 1
    silent = "ValueError: No spikes detected, cannot continue\n2026 INFO a: "  # a window's
    (tmp_path / "own").write_text(
        f"{silent}proceed (unexpected): none, though a scan sees activity"
    )
    assert classify.main([str(tmp_path / "own")]) == 1
    (tmp_path / "own").write_text(f"{silent}proceed (passed): 8 units in 30 s")
    capsys.readouterr()
    assert classify.main([str(tmp_path / "own")]) == 0
    assert capsys.readouterr().out.endswith("  verdict: proceed\n  reason: 8 units in 30 s\n")


def test_command_on_records(tmp_path, capsys):
    records = [
        {"id": "a", "chain_text": "torch.OutOfMemoryError: CUDA out of memory. Tried", "x": 1},
        {"id": "b", "chain_text": None, "log_text": None},
        {"id": "c", "exception_type": "SpikeSortingError < MemoryError", "chain_text": ""},
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    assert classify.main(["--jsonl", str(tmp_path / "r.jsonl")]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["id"], each["class"], each["category"]) for each in said] == [
        ("a", "GPUOutOfMemoryError", "resource"),
        ("b", None, None),
        ("c", "HostMemoryWatchdogError", "resource"),
    ]


#: Subclasses of the labelled texts that one class of ours stands for.
CLASS_OF = {
    "insufficient_activity": "InsufficientActivityError",
    "gpu_oom": "GPUOutOfMemoryError",
    "host_oom": "HostMemoryWatchdogError",
    "disk_full": "DiskExhaustionError",
    "io_error": "IOStallError",
    "timeout": "SorterTimeoutError",
    "hdf5_plugin": "HDF5PluginMissingError",
    "cuda_unavailable": "GPUUnavailableError",
    "cuda_arch": "GPUUnavailableError",
    "docker_daemon_down": "ContainerEnvironmentError",
    "docker_client_missing": "ContainerEnvironmentError",
    "container_runtime": "ContainerEnvironmentError",
    "container_runtime_missing": "ContainerEnvironmentError",
    "image_pull": "ContainerEnvironmentError",
    "container_gpu": "ContainerEnvironmentError",
    "sorter_missing": "SorterUnavailableError",
    "unknown_sorter": "SorterUnavailableError",
    "import_error": "DependencyError",
    "model_missing": "ModelLoadingError",
    "mex": "MatlabRuntimeError",
    "input_missing": "RecordingUnreadableError",
    "corrupt_input": "RecordingUnreadableError",
    "lock": "ConcurrentSortError",
}


def test_labelled_texts_of_real_software(capsys):
    """Category accuracy, class accuracy, wrong stops and misses on the labelled texts."""
    default = Path(__file__).resolve().parents[3] / "shared/traces"
    path = Path(os.environ.get("SPIKECANARY_TRACES", default)) / "train.jsonl"
    if not path.exists():
        pytest.skip(f"no failure texts in {path}")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    right, classes, wrong_stops, misses = 0, [], [], []
    for row in rows:
        failure = classify.by_text(row["chain_text"] or "", row["log_text"] or "")
        said = failure.category if failure else "unclassified"
        silent_right = failure is None and not row["decidable_from_text"]
        right += said == row["label"] or silent_right
        if row["label"] == "unclassified" and failure is not None:
            wrong_stops.append(row["id"])
        if row["label"] != "unclassified" and failure is None and not silent_right:
            misses.append(row["id"])
        if failure is not None and row["subclass"] in CLASS_OF:
            classes.append(type(failure).__name__ == CLASS_OF[row["subclass"]])
    with capsys.disabled():
        print(
            f"\nlabelled texts: category {right} of {len(rows)}, class {sum(classes)} of "
            f"{len(classes)}, wrong stops {wrong_stops}, misses {misses}"
        )
    assert right == len(rows)
    assert sum(classes) >= 0.95 * len(classes)
