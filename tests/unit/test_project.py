"""The project's own files agree with each other."""

import re

import pytest
import yaml

from spikecanary import reference
from workbench import ROOT


def pins(lines):
    found = {}
    for line in lines:
        match = re.match(r"^([\w\[\]-]+)==(\S+)$", str(line).strip())
        if match:
            found[match[1]] = match[2]
    return found


def test_conda_environments_name_the_pinned_versions():
    required = pins((ROOT / "requirements.txt").read_text().splitlines())
    assert "torch" in required
    for path in (ROOT / "envs").glob("*.yaml"):
        packages = yaml.safe_load(path.read_text())["dependencies"][-1]["pip"]
        assert pins(packages).items() <= required.items(), path
        assert len(pins(packages)) == len(packages), path


@pytest.mark.parametrize("page", reference.PAGES)
def test_generated_pages_are_in_step(page):
    written = (ROOT / f"docs/{page}.md").read_text()
    assert written == reference.PAGES[page](), "run `make schema`"


def test_own_texts_of_troubleshooting_are_printed_by_somebody():
    package = ROOT / "scripts/spikecanary"
    sources = [path for path in package.rglob("*.py") if path.name != "reference.py"]
    sources += [*(ROOT / "scripts").glob("*.py"), *(ROOT / "rules").glob("*.smk")]
    text = "\n".join(path.read_text() for path in sources)
    text = re.sub(r'"\s*f?"', "", text)  # texts that go over several lines
    for printed, _, _ in reference.OWN:
        assert printed in text, printed


def test_style_limits():
    limits = {"Snakefile": 60, "rules/*.smk": 250, "scripts/*.py": 60}
    limits |= {"scripts/spikecanary/**/*.py": 500}
    for pattern, most in limits.items():
        for path in ROOT.glob(pattern):
            assert len(path.read_text().splitlines()) <= most, path
