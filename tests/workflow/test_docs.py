"""Every command and snippet of README and docs/ runs, in a project as they describe one."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import pandas as pd
import pytest
import yaml
from phylib.io.model import load_model

from spikecanary import config
from spikecanary.config import Config
from workbench import ROOT, snakemake

PAGES = sorted(
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    if path.name not in ("troubleshooting.md", "settings.md", "units.md", "tutorial.md")
)
#: Run as they are: quick, and the others only planned (-n).
WHOLE = ("plan", "--report")
#: What stands in a command for something of the reader's.
STANDS_FOR = {"LOG...": "logs/sort/healthy.log", "REC": "healthy", "FOLDER...": "config"}
#: Commands and snippets run for minutes, all of them in one copy of the workflow.
RUN = pytest.mark.slow
COMMANDS = ("snakemake", "make", "python", "source", "phy", "cd")


def blocks(page):
    """Return the indented blocks of a page, without their indent."""
    found, block = [], []
    for line in [*page.read_text().splitlines(), "end"]:
        if line.startswith("    ") or (block and not line.strip()):
            block.append(line[4:])
        elif block:
            found.append("\n".join(block).strip("\n"))
            block = []
    return found


def commands(page):
    """Return a page's commands: those of its blocks, and those inside the text."""
    found = [
        line.split("  #")[0].split(" # ")[0].strip()
        for block in blocks(page)
        for line in block.splitlines()
        if line.split(" ")[0] in COMMANDS
    ]
    text = re.sub(r"^    .*$", "", page.read_text(), flags=re.MULTILINE)
    inside = re.findall(r"`((?:snakemake|phy|python -m|make) [^`]+)`", text)
    return found + [" ".join(command.split()) for command in inside]


def python_blocks(page):
    return [block for block in blocks(page) if re.match(r"(import|from) \w", block)]


def config_blocks(page):
    """Return the blocks that are parts of a configuration."""
    return [
        block
        for block in blocks(page)
        if re.match(r"\w+:\s*(\n|$)", block) and block.split(":")[0] in Config.model_fields
    ]


def every(kind, marks=()):
    """Return a test's parameters, under the last page that has each, since many have the same."""
    found = {
        each: f"{page.stem}-{number}" for page in PAGES for number, each in enumerate(kind(page))
    }
    return [pytest.param(each, id=name, marks=marks) for each, name in found.items()]


EVERY = {
    "commands": every(commands, RUN),
    "python_blocks": every(python_blocks, RUN),
    "config_blocks": every(config_blocks),
}


def copy_workflow(folder):
    """Copy the workflow as a clone has it."""
    shutil.copy(ROOT / "Snakefile", folder)
    for name in ("rules", "scripts", "config", "envs", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.egg-info"))
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory, write_binary, reader_options, tetrode):
    """Copy the workflow, fill in its table, and run it."""
    folder = copy_workflow(tmp_path_factory.mktemp("clone"))
    row = {
        "recording": "healthy",
        "path": str(write_binary()),
        "reader": "binary",
        "reader_options": json.dumps(reader_options),
        "probe": str(tetrode),
    }
    pd.DataFrame([row]).to_csv(folder / "config/recordings.tsv", sep="\t", index=False)
    shipped = yaml.safe_load((folder / "config/config.yaml").read_text())
    shipped["sorter"] |= {"name": "quick", "plugin": str(ROOT / "tests/quick_sorter.py")}
    shipped["canary"] |= {"window_s": 2, "min_recording_s": 4}
    shipped["job"] |= {"threads": 1}
    shipped["outputs"] = ["units", "figures", "phy", "nwb", "npz", "mat", "report"]
    (folder / "config/config.yaml").write_text(yaml.safe_dump(shipped, sort_keys=False))
    (folder / "my.yaml").write_text("{}\n")
    run = snakemake(folder)
    assert run.returncode == 0, run.output
    return folder


def test_there_is_something_to_run():
    assert [kind for kind, found in EVERY.items() if len(found) < 2] == []


@pytest.mark.parametrize("command", EVERY["commands"])
def test_command(clone, command):
    for name, stands_for in STANDS_FOR.items():
        command = command.replace(name, stands_for)
    words, folder = shlex.split(command), clone
    if words[0] == "snakemake":
        planned = [] if any(word in words for word in WHOLE) else ["-n"]
        cores = [] if {"--cores", "--profile"} & set(words) else ["--cores", "2"]
        words = [sys.executable, "-m", *words, *cores, *planned]
    elif words[0] == "make":
        words, folder = ["make", "--dry-run", *words[1:]], ROOT
    elif words[0] == "python":
        if "pytest" in words:
            words, folder = [*words, "--collect-only"], ROOT
        words[0] = sys.executable
    elif words[0] == "phy":
        assert load_model(clone / words[-1]).n_spikes > 0
        return
    else:
        assert words == ["source", ".venv/bin/activate"]
        return
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    # classify says by its status whether it knows the log.
    allowed = (0, 1) if "spikecanary.failures.classify" in words else (0,)
    assert done.returncode in allowed, done.stdout + done.stderr


@pytest.mark.parametrize("snippet", EVERY["python_blocks"])
def test_python(clone, snippet):
    snippet = snippet.replace("/REC/", f"/{STANDS_FOR['REC']}/")
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("part", EVERY["config_blocks"])
def test_configuration(part):
    config.load(yaml.safe_load(part))


def test_links_lead_somewhere():
    for page in [*PAGES, *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def tutorial_steps():
    """Return the tutorial's parts: commands and snippets, files, and what is printed."""
    fenced = r'^```(?P<kind>\w+)(?: title="(?P<file>.+?)")?\n(?P<text>.*?)^```$'
    indented = r"^(?P<code>(?:    [^\n]+\n)(?:\n?    [^\n]+\n)*)"
    text = (ROOT / "docs/tutorial.md").read_text()
    for part in re.finditer(f"{fenced}|{indented}", text, re.DOTALL | re.MULTILINE):
        if part["code"]:
            yield "code", None, textwrap.dedent(part["code"])
        else:
            yield part["kind"], part["file"], part["text"]


def run_code(folder, code):
    """Run commands or a snippet; return the exit status of the last, and what all print."""
    is_python = re.match(r"(import|from) \w", code)
    lines = [["-c", code]] if is_python else map(shlex.split, code.splitlines())
    status, printed = 0, ""
    for words in lines:
        if words[0] == "phy":
            assert load_model(folder / words[-1]).n_spikes > 0
            continue
        command = ["-m", *words] if words[0] == "snakemake" else words[words[0] == "python" :]
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False
        )
        status, printed = done.returncode, printed + done.stdout + done.stderr
    return status, printed


def masked(text):
    """Return the lines of a text, without numbers, times and the widths of columns."""
    number = r"[-+]?\d[\d.,:]*"
    lines = [" ".join(line.split()) for line in text.splitlines()]
    lines = [re.sub(rf"({number} (h|min) )*{number}( s\b)?", "#", line) for line in lines]
    return {line for line in lines if line not in ("", "...")}


@pytest.mark.slow
def test_tutorial(tmp_path):
    """Each command of the tutorial works, and prints what is shown, but for the numbers."""
    copy_workflow(tmp_path)
    printed, shown = "", 0
    for kind, file, text in tutorial_steps():
        if kind == "code":
            status, printed = run_code(tmp_path, text)
            assert status == 0, printed
        elif file:
            (tmp_path / file).write_text(text)
        elif kind == "text":
            assert masked(text) <= masked(printed), (masked(text) - masked(printed), printed)
            shown += 1
    assert shown > 3


@pytest.mark.slow
def test_commands_of_the_tutorial_on_a_real_run(tmp_path, data):
    """A run of half a second is found, planned, and stopped: it is fewer than two batches."""
    copy_workflow(tmp_path)
    shutil.copytree(data / "sglx_np2", tmp_path / "raw")
    for kind, file, text in tutorial_steps():
        if kind == "code" and ("discover" in text or "snakemake" in text):
            status, printed = run_code(tmp_path, text)
        elif file:
            (tmp_path / file).write_text(text)
    assert status == 1
    assert "fewer than two batches" in printed
