"""A stranger's workflow imports ours with a prefix, other folders and its own last rule."""

import shutil
import subprocess

import pytest
import yaml

from spikecanary import __version__
from workbench import ROOT, snakemake

pytestmark = pytest.mark.medium


def test_imported_as_a_module(project):
    project.add("good")
    project.add("silent", kind="silent", sorter="silent_always")
    project.write()
    for name in ("Snakefile", "env.yaml"):
        shutil.copy(ROOT / "tests/workflow/importer" / name, project.folder)
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
    # What Snakemake's memory would have run again is said here, too.
    shutil.rmtree(project.folder / ".snakemake")
    config["spikecanary"]["sorter"]["params"] = {"threshold": 6.0}
    (project.folder / "config.yaml").write_text(yaml.safe_dump(config))
    run = snakemake(project.folder)
    assert run.nothing_to_do
    assert "Unless these run again by themselves: records disagree" in run.output
    assert "1 sorted with other settings (good)" in run.output
    run = snakemake(project.folder, "sorted/.checked")
    assert run.returncode == 1
    assert "ERROR records disagree with the config or the table" in run.output


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
