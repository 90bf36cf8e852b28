"""A stranger's workflow imports ours with a prefix, other folders and its own last rule."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml

from engine import Engine
from spikecanary import __version__
from workbench import ROOT, snakemake

pytestmark = pytest.mark.medium

#: An importer's own resources replace all of ours.
RESOURCES = """
use rule canary from canary as sc_canary with:
    resources:
        slots=1,

use rule gate from canary as sc_gate with:
    resources:
        slots=1,

use rule sort from canary as sc_sort with:
    resources:
        slots=1,
"""
MODULE = """
module canary:
    {folders}
    snakefile:
        "home/Snakefile"
    config:
        config

use rule * from canary exclude all as sc_*

rule mine:
    default_target: True
    input:
        "{target}",
"""


def test_imported_as_a_module(project):
    project.add("good")
    project.add("silent", kind="silent", sorter="silent_always")
    project.write()
    for name in ("Snakefile", "env.yaml"):
        shutil.copy(ROOT / "tests/workflow/importer" / name, project.folder)
    with (project.folder / "Snakefile").open("a") as snakefile:
        snakefile.write(RESOURCES)
    config = {"spikecanary": project.config}
    (project.folder / "config.yaml").write_text(yaml.safe_dump(config))

    plan = snakemake(project.folder, "-n")
    assert plan.returncode == 0, plan.output
    assert plan.jobs()["sc_canary"] == plan.jobs()["sc_sort"] == 2
    run = snakemake(project.folder)
    assert run.returncode == 0, run.output
    assert run.jobs() == {
        "sc_canary": 2,
        "sc_gate": 2,
        "sc_sort": 1,
        "sc_wave_summary": 2,
        "sc_summary": 1,
        "sc_report": 1,
        "count_units": 1,
    }
    assert (project.folder / "counts/good.txt").read_text() == "4\n"
    assert (project.folder / "sorted/logs/sort/good.log").exists()
    assert not project.result().exists()
    assert "2 recordings: 1 sorted, 1 stopped, stopped for: 1 biological" in run.output
    assert snakemake(project.folder).nothing_to_do
    triggers = ("--rerun-triggers", "mtime", "params", "input")
    assert snakemake(project.folder, "-R", "sc_sort", *triggers).jobs()["sc_sort"] == 1
    run = snakemake(project.folder, "-R", "sc_canary", "sc_sort", *triggers)
    assert (run.jobs()["sc_canary"], run.jobs()["sc_sort"]) == (2, 1), run.output
    # What Snakemake's memory would have run again is said here, too.
    shutil.rmtree(project.folder / ".snakemake")
    config["spikecanary"]["sorter"]["params"] = {"threshold": 6.0}
    (project.folder / "config.yaml").write_text(yaml.safe_dump(config))
    run = snakemake(project.folder)
    assert run.nothing_to_do
    assert "Unless these run again by themselves: records disagree" in run.output
    assert "1 sorted with other settings or data (good)" in run.output
    run = snakemake(project.folder, "sorted/.checked")
    assert run.returncode == 1
    assert "ERROR records disagree with the config or the table" in run.output


MAKES_RECORDINGS = """
rule make:
    input:
        "{recording}.source",
    output:
        "{recording}.raw",
    shell:
        "cp {input} {output}"

use rule canary from canary as sc_canary with:
    input:
        "{recording}.raw",
"""


class Importer(Engine):
    """A workflow on stubs that imports the rules."""

    def __init__(self, folder, folders, target):
        (folder / "home").mkdir()
        super().__init__(folder / "home", "a b")
        shutil.move(folder / "home/config/recordings.tsv", folder)
        for path in [*self.folder.glob("*.raw"), self.folder / "world.json"]:
            shutil.move(path, folder)
        self.folder = folder
        self.config["recordings"] = "recordings.tsv"
        (folder / "Snakefile").write_text(MODULE.format(folders=folders, target=target))

    def run(self, *arguments):
        """Run snakemake with the line that docs/module.md asks for."""
        return super().run(*arguments, "--rerun-triggers", "mtime", "params", "input")


def assert_it_runs_once(importer):
    """Assert that a run does everything, and the next nothing."""
    run = importer.run()
    assert run.done() == "canary: a b; sort: a b; exit 0", run.output
    assert "Nothing to be done" in importer.run().output


def test_recordings_that_a_rule_of_the_importers_makes(tmp_path):
    """As docs/module.md has it."""
    importer = Importer(tmp_path, 'pathvars: results="sorted"', "sorted/report.html")
    for name in "ab":
        (tmp_path / f"{name}.raw").rename(tmp_path / f"{name}.source")
    with (tmp_path / "Snakefile").open("a") as snakefile:
        snakefile.write(MAKES_RECORDINGS)
    assert_it_runs_once(importer)
    (tmp_path / "a.source").write_text("recorded again")
    run = importer.run()
    assert run.done() == "canary: a; sort: a; exit 0", run.output
    assert "Nothing to be done" in importer.run().output


HOOKS = """
from spikecanary import summary

onsuccess: summary.end_of_module_run("sorted")
onerror: summary.end_of_module_run("sorted")
"""


def test_row_that_was_taken_out_needs_nobody(tmp_path):
    importer = Importer(tmp_path, 'pathvars: results="sorted"', "sorted/report.html")
    importer.world(b="environment")
    with (tmp_path / "Snakefile").open("a") as snakefile:
        snakefile.write(HOOKS)
    assert importer.run().status == 1
    table = tmp_path / "recordings.tsv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:2]))
    assert importer.run().status == 0


def test_prefix_is_applied(tmp_path):
    importer = Importer(tmp_path, 'prefix: "ephys"', "ephys/results/summary.tsv")
    assert_it_runs_once(importer)
    assert not importer.result().exists()
    importer.world(a="biological")  # forced sorts are those that pass
    assert importer.run("-R", "sc_canary", "sc_sort").done() == "canary: a b; sort: b; exit 0"
    assert (tmp_path / "ephys/results/a/sorting").exists()


def test_replaced_prefix_is_refused(tmp_path):
    run = Importer(tmp_path, 'replace_prefix: {"results": "x"}', "x/summary.tsv").run()
    assert run.done() == "exit 1"
    assert "use pathvars: results, logs, benchmarks" in run.output


def test_folder_with_a_wildcard_is_refused(tmp_path):
    run = Importer(tmp_path, 'pathvars:\n        results="so{rt}ed"', "all").run()
    assert run.done() == "exit 1"
    assert "pathvars: results: takes a folder, without ~, {, }, < and >, got so{rt}ed" in run.output


@pytest.mark.slow
def test_oldest_snakemake(tmp_path, monkeypatch):
    """The newest is the pinned one, with which all other tests run."""
    oldest = re.search(r'min_version\("(.+)"\)', (ROOT / "Snakefile").read_text())[1]
    place = tmp_path / "oldest"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target"]
    subprocess.run([*install, str(place), f"snakemake=={oldest}"], check=True)
    monkeypatch.setenv("PYTHONPATH", str(place))
    version = [sys.executable, "-m", "snakemake", "--version"]
    assert subprocess.check_output(version, text=True).strip() == oldest
    importer = Importer(tmp_path, 'pathvars:\n        results="sorted"', "sorted/summary.tsv")
    importer.is_fresh = True
    assert_it_runs_once(importer)


def test_deployed_from_the_workflow_catalog(project):
    """The Snakefile is as `snakedeploy deploy-workflow` writes it, but for where ours lies."""
    project.add("good")
    project.write()
    (project.folder / "Snakefile").write_text(
        f"""
configfile: "config.yaml"
module spikecanary:
    snakefile: "{ROOT}/workflow/Snakefile"
    config: config
use rule * from spikecanary
"""
    )
    run = snakemake(project.folder)
    assert run.returncode == 0, run.output
    assert project.result("report.html").exists()
    assert "Nothing to be done" in snakemake(project.folder).output


def git(folder, *arguments):
    """Run git as somebody; return what it prints."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.slow
def test_imported_from_a_hosted_repository(project, tmp_path, monkeypatch):
    """GitHub's address stands for a local bare repository; Snakemake's source cache is real."""
    work, bare = tmp_path / "work", tmp_path / "bare.git"
    listed = git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in listed:
        if name.split("/")[0] in ("Snakefile", "rules", "scripts", "envs", "config"):
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    git(work, "init", "--quiet")
    git(work, "add", "--all")
    git(work, "commit", "--quiet", "--message", "all")
    git(tmp_path, "clone", "--quiet", "--bare", str(work), str(bare))
    address = "https://github.com/lab/spikecanary"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{bare}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", address)

    project.add("good")
    project.write()
    text = (ROOT / "tests/workflow/importer/Snakefile").read_text()
    local = 'os.environ.get("SPIKECANARY_SNAKEFILE", "../../../Snakefile")'
    commit = git(work, "rev-parse", "HEAD")
    hosted = f'github("lab/spikecanary", path="Snakefile", commit="{commit}")'
    assert local in text
    (project.folder / "Snakefile").write_text(text.replace(local, hosted))
    shutil.copy(ROOT / "tests/workflow/importer/env.yaml", project.folder)
    config = {"spikecanary": project.config}
    (project.folder / "config.yaml").write_text(yaml.safe_dump(config))
    run = snakemake(project.folder)
    assert run.returncode == 0, run.output
    assert (project.folder / "counts/good.txt").read_text() == "4\n"
    assert list((tmp_path / "cache").rglob("github.com/lab/spikecanary*"))

    # The package comes from the environment, and has to be that of the rules.
    package = work / "scripts/spikecanary/__init__.py"
    package.write_text(package.read_text().replace(f'"{__version__}"', '"9.9.9"'))
    git(work, "commit", "--quiet", "--all", "--message", "another version")
    git(work, "push", "--quiet", str(bare), "HEAD")
    other = git(work, "rev-parse", "HEAD")
    text = (project.folder / "Snakefile").read_text().replace(commit, other)
    (project.folder / "Snakefile").write_text(text)
    run = snakemake(project.folder)
    assert run.returncode == 1
    assert (
        f"these rules need spikecanary 9.9.9, installed is {__version__}: "
        f"pip install git+https://github.com/lab/spikecanary@{other}"
    ) in run.output
