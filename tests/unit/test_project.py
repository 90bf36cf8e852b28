"""The project's own files agree with each other."""

import re

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


def test_generated_pages_are_in_step():
    for path, text in reference.pages().items():
        assert path.read_text() == text, "run `make schema`"


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
