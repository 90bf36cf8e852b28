"""What options of Snakemake do here: each of docs/options.md, on a batch of stubs."""

import os
import re
import shutil
import tarfile
import zipfile

import pytest

from engine import Engine
from workbench import ROOT

REFUSED = [
    ("--until", "sort"),
    ("--omit-from", "sort"),
    ("--batch", "all=1/2"),
    ("--batch", "sorted=1/2", "sorted"),
]


@pytest.mark.parametrize("option", REFUSED)
def test_options_that_do_nothing_behind_a_checkpoint_are_refused(engine, option):
    run = engine.run(*option)
    assert run.done() == "exit 1"
    assert "Ask for the target `sorted` instead" in run.output
    assert "(docs/options.md)" in run.output


def test_target_sorted(engine):
    engine.world(b="biological")
    run = engine.run("sorted", outputs=["units"])
    assert run.done("sort", "analyze") == "sort: a c d e f; exit 0"
    assert not engine.result("summary.tsv").exists()


def test_snakefile_of_the_catalog_is_no_module(engine):
    shutil.copytree(ROOT / "workflow", engine.folder / "workflow")
    run = engine.run("-n", "-s", "workflow/Snakefile", "--quiet", "rules", "host")
    assert run.output.count("Job stats:") == 1, run.output


def read_table_of_options():
    """Return the options that docs/options.md tells of."""
    page = (ROOT / "docs/options.md").read_text()
    cells = re.findall(r"^\| (`-.*?`) \|", page, flags=re.MULTILINE)
    return set(re.findall(r"`(-[\w-]+)`", " ".join(cells)))


#: What each option of that page does to a finished batch whose b is stopped: arguments, and jobs.
OPTIONS = [
    (["-R", "sort"], "sort: a c; curate: a c; exit 0"),
    (["--forcerun", "canary"], "canary: a b c; exit 0"),
    (["--touch"], "exit 0"),
    (["--rerun-triggers", "mtime"], "exit 0"),
    (["--set-resources", "sort:mem_mb=7", "canary:runtime=9"], "exit 0"),
    (["--nolock", "--retries", "2"], "exit 0"),
    (["--summary"], "exit 0"),
    (["--report", "r.zip"], "exit 0"),
    (["--delete-all-output"], "exit 0"),
    (["--archive", "all.tar.gz"], "exit 0"),
    (["--sdm", "conda", "--conda-create-envs-only"], "exit 0"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "done"), OPTIONS, ids=lambda value: str(value[0]))
def test_option(batches, tmp_path, monkeypatch, arguments, done):
    engine = batches(tmp_path, "a b c", ("units",), b="biological")
    (tmp_path / "bin").mkdir()
    conda = tmp_path / "bin/conda"
    conda.write_text(CONDA)
    conda.chmod(0o755)
    monkeypatch.setenv("PATH", f"{conda.parent}:{os.environ['PATH']}")
    if arguments == ["--nolock"]:
        locks = engine.folder / ".snakemake/locks"
        locks.mkdir(exist_ok=True)
        (locks / "0.output.lock").write_text("results/summary.tsv\n")
        assert "--unlock" in engine.run().output
    run = engine.run(*arguments)
    assert run.done("canary", "sort", "curate") == done, run.output
    if "--delete-all-output" in arguments:
        left = [path.name for path in engine.result().rglob("*") if path.is_file()]
        assert set(left) == {"attempts.jsonl"}
        assert engine.run().done() == "canary: a b c; sort: a c; exit 0"
    elif "--summary" in arguments:
        files = [line.split("\t") for line in run.output.splitlines() if "results/" in line]
        assert {file[-1] for file in files} == {"no update"}
        assert len(files) > 10
    elif "--report" in arguments:
        with zipfile.ZipFile(engine.folder / "r.zip") as report:
            assert any(name.endswith("report.html") for name in report.namelist())
    elif "--archive" in arguments:
        with tarfile.open(engine.folder / "all.tar.gz") as archive:
            assert {"Snakefile", "scripts/sort.py", "rules/common.smk"} <= set(archive.getnames())
            assert "a.raw" not in archive.getnames()
    elif "--sdm" in arguments:
        made = (engine.folder / "conda.log").read_text()
        assert made.count("env create") == 2
    else:
        again = run if "--nolock" in arguments else engine.run()
        assert "Nothing to be done" in again.output


@pytest.mark.slow
def test_report_and_deletion_of_a_batch_in_which_something_failed(tmp_path):
    """The canary that is due, so the gate that is, hides nothing of what is sorted."""
    engine = Engine(tmp_path, "a b c d", outputs=["figures"])
    engine.world(b="environment", c="fails", d="biological")
    assert engine.run("--keep-going").done() == "canary: a b c d; sort: a c; exit 1"
    run = engine.run("--report", "r.zip")
    assert run.status == 0, run.output
    with zipfile.ZipFile(tmp_path / "r.zip") as report:
        shown = {name.rsplit("/", 1)[-1] for name in report.namelist()}
    assert {"a.png", "canary.png", "summary.tsv"} <= shown
    run = engine.run("--delete-all-output")
    assert run.status == 0, run.output
    left = {path.name for path in engine.result().rglob("*") if path.is_file()}
    assert left == {"attempts.jsonl", "kilosort4.json", ".errors"}
    assert not engine.result("a/sorting").exists()


def test_options_of_the_page_are_tested():
    refused = {option[0] for option in REFUSED}
    tested = {argument for arguments, _ in OPTIONS for argument in arguments}
    assert read_table_of_options() <= tested | refused


#: Stands in for conda where there is none: environments are folders, and hold nothing.
CONDA = """#!/bin/sh
echo "$@" >> conda.log
case "$*" in
    --version) echo conda 99.0.0 ;;
    "info --json") echo '{"conda_prefix": "/nowhere", "platform": "linux-64"}' ;;
    config*) echo '{"get": {"channel_priority": "strict"}}' ;;
    "env create"*) while [ "$1" != --prefix ]; do shift; done; mkdir -p "$2/bin" ;;
esac
"""


@pytest.mark.parametrize(
    "how",
    [["-R", "canary", "sort"], pytest.param(["-F"], marks=pytest.mark.medium)],
    ids=["both", "all"],
)
def test_sort_that_its_canary_stops_in_this_run_is_not_lost(finished, how):
    finished.world(a="biological")
    assert finished.run(*how).done() == "canary: a b c d e f; sort: b c d e f; exit 0"
    for named in (["-R", "results/a/sort.json"], ["results/a/sorting", "-f"]):
        run = finished.run(*named)
        assert run.done() == "exit 1"
        assert "a: its finished sort would be lost: its canary says stop" in run.output
    assert finished.run("-R", "sort").done() == "sort: b c d e f; exit 0"
    finished.world(b="environment")  # by its file, too, and what stopped before may pass
    run = finished.run("results/b/sort.json", *how)
    assert run.done() == "canary: a b c; exit 1"
    assert "b: its finished sort would be lost" in run.output
    for each in "ab":
        assert finished.result(f"{each}/sorting").exists()
        assert finished.result(f"{each}/sort.json").exists()
    finished.world()
    assert finished.run(*how).done() == "canary: a b c d e f; sort: a b c d e f; exit 0"
