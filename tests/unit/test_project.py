"""The project's own files agree with each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spikecanary import __version__, plan, reference, summary
from spikecanary.config import Config
from spikecanary.table import Recording
from workbench import ROOT


def pins(lines):
    """Return the pinned versions, by a package's normalised name."""
    exact = [line for line in lines if "==" in line and not line.startswith("#")]
    asked = [Requirement(line) for line in exact]
    return {canonicalize_name(each.name): each.specifier for each in asked}


PINNED = pins((ROOT / "constraints.txt").read_text().splitlines())


def test_conda_environments_name_the_pinned_versions():
    for path in (ROOT / "envs").glob("*.yaml"):
        packages = yaml.safe_load(path.read_text())["dependencies"][-1]["pip"]
        assert pins(packages).items() <= PINNED.items(), path
        assert len(pins(packages)) == len(packages), path


def test_tables_and_report_need_no_more_than_their_environment():
    """Their conda environment has no yaml, no sorter and no driver."""
    lacking = ["yaml", "spikeinterface", "torch", "pynvml", "snakemake", "scipy"]
    code = f"import sys; sys.modules.update(dict.fromkeys({lacking}))\n"
    code += "from spikecanary import gate, report, reruns, screen, summary"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_that_the_package_needs_is_pinned_at_a_version_that_it_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = sum(project["optional-dependencies"].values(), project["dependencies"])
    for each in map(Requirement, needed):
        if each.name != project["name"]:
            (pinned,) = PINNED[canonicalize_name(each.name)]
            assert each.specifier.contains(pinned.version), each


def test_the_version_is_that_of_the_changelog_and_the_citation():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    heading = f"## {__version__}, {cited['date-released']}"
    assert cited["version"] == __version__
    assert heading in (ROOT / "CHANGELOG.md").read_text().splitlines()


def test_generated_pages_are_in_step():
    for path, text in reference.pages().items():
        assert path.read_text() == text, "run `make schema`"


def test_every_page_of_the_site_says_first_what_it_is_for():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert site["use_directory_urls"] is False  # links to folders lead nowhere from disk
    pages = [page for section in site["nav"] for part in section.values() for page in part]
    assert sorted(pages) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    for page in pages:
        text = (ROOT / "docs" / page).read_text()
        if included := re.fullmatch(r'--8<-- "(.+)"\n', text):
            text = (ROOT / included[1]).read_text()
        assert re.match(r"# .+\n\nThis page ", text), page


def test_the_reference_names_every_column():
    text = (ROOT / "docs/reference.md").read_text()
    named = dict(re.findall(r"## Columns of `(\w+).tsv`\n(.*?)(?=\n## |\Z)", text, re.DOTALL))
    found = {name: re.findall(r"^\| `(\w+)` ", part, re.MULTILINE) for name, part in named.items()}
    assert tuple(found["summary"]) == summary.SUMMARY_COLUMNS
    row = Recording(id="x", paths=("nowhere",), reader="binary")
    planned = plan.make(Config(), [row], Path("results"), 1, headers={"x": {"problem": "gone"}})
    assert found["plan"] == list(planned.columns)
    assert re.findall(r"`(.+?)`", named["plan"].split("| `action` |")[1].split("\n")[0]) == [
        each.value for each in plan.Action
    ]


def test_own_texts_of_troubleshooting_are_printed_by_somebody():
    package = ROOT / "scripts/spikecanary"
    sources = [*package.rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    sources += (ROOT / "rules").glob("*.smk")
    text = "\n".join(path.read_text() for path in sources)
    text = re.sub(r'"\s*f?"', "", text)  # texts that go over several lines
    page = (ROOT / "docs/troubleshooting.md").read_text()
    own = page.partition("## What Spike Canary prints")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `(.+?)` \|", own, re.MULTILINE)
    assert "proved nothing" in found
    for printed in found:
        assert printed in text, printed


def test_style_limits():
    limits = {"Snakefile": 60, "rules/*.smk": 250, "scripts/*.py": 60}
    limits |= {"scripts/spikecanary/**/*.py": 500}
    for pattern, most in limits.items():
        for path in ROOT.glob(pattern):
            assert len(path.read_text().splitlines()) <= most, path
