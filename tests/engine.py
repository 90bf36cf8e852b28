"""The real rules with stubs for jobs: what runs, what runs again, what is cut, in seconds."""

import copy
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

import prepared
from workbench import ROOT

#: Recordings of a batch.
IDS = "a b c d e f"
OPTIONS = '{"sampling_frequency": 30000, "dtype": "int16", "num_channels": 4}'
STUBS = {"canary.py": "canary", "sort.py": "sort", "node.py": "node"} | dict.fromkeys(
    ("analyze.py", "curate.py", "export.py", "figures.py"), "output"
)


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit status, what it printed, and the jobs done, in their order."""

    status: int
    output: str
    order: list[tuple[str, str]]

    def done(self, *rules: str) -> str:
        """Return the jobs of rules (canary and sort unless named) and the status, in one line."""
        chosen = rules or ("canary", "sort")
        found = [
            f"{rule}: " + " ".join(sorted(name for each, name in self.order if each == rule))
            for rule in chosen
            if any(each == rule for each, _ in self.order)
        ]
        return "; ".join([*found, f"exit {self.status}"])


class Engine:
    """A copy of the rules with stubs for scripts, and a batch of raw files of a few bytes."""

    def __init__(self, folder: Path, rows: str, **config: Any) -> None:
        self.folder = folder
        self.is_fresh = False  # whether each run is a new interpreter
        self.config = {"gate": {"wave_size": 3}, "outputs": [], "job": {"threads": 1}} | config
        for name in ("Snakefile", "rules", "scripts", "config", "envs", "profiles"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name)
            else:
                shutil.copy(source, folder / name)
        for script, stub in STUBS.items():
            shutil.copy(ROOT / f"tests/stubs/{stub}.py", folder / "scripts" / script)
        self.world()
        self.rows(rows)

    def copied(self, folder: Path) -> Self:
        """Copy the batch with all times and with what Snakemake remembers of it."""
        beside = copy.deepcopy(self)
        beside.folder = folder
        shutil.copytree(self.folder, folder, symlinks=True, dirs_exist_ok=True)
        # The one absolute path in it: the report's template, beside the rules.
        for path in (folder / ".snakemake/metadata").iterdir():
            path.write_text(path.read_text().replace(f"{self.folder}/", f"{folder}/"))
        return beside

    def rows(self, names: str, **columns: str) -> None:
        """Write the table; ``columns``: further ones, values parted by spaces."""
        ids = names.split()
        header = ["recording", "path", "reader", "reader_options", *columns]
        lines = ["\t".join(header)]
        given = [value.split() for value in columns.values()]
        for position, name in enumerate(ids):
            self.raw(name)
            further = [value[position].replace("-", "") for value in given]
            lines.append("\t".join([name, f"{name}.raw", "binary", OPTIONS, *further]))
        (self.folder / "config/recordings.tsv").write_text("\n".join(lines) + "\n")

    def raw(self, name: str, text: str = "x", age_s: float = 3600.0, *, new: bool = False) -> None:
        """Write a raw file that is so many seconds old, unless it stands and need not be new."""
        path = self.folder / f"{name}.raw"
        if new or not path.exists():
            path.write_text(text)
            when = time.time() - age_s
            os.utime(path, (when, when))

    def world(self, **verdicts: str) -> None:
        """Say how the jobs of recordings end; those that are not named end well."""
        (self.folder / "world.json").write_text(json.dumps(verdicts))

    def command(self, *arguments: str, cores: int = 1) -> list[str]:
        """Return snakemake's command line here."""
        (self.folder / "more.yaml").write_text(yaml.safe_dump(self.config))
        base = ["--configfile", "more.yaml", "--cores", str(cores)]
        return [sys.executable, "-m", "snakemake", *arguments, *base]

    def run(self, *arguments: str, cores: int = 1, **config: Any) -> Ended:
        """Run snakemake to its end, with further config for this run alone."""
        before, self.config = self.config, self.config | config
        log = self.folder / "order.log"
        log.write_text("")
        command = self.command(*arguments, cores=cores)
        variables = {**os.environ} if self.is_fresh else {**os.environ, **prepared.UNCOMPILED}
        status, output = prepared.run(command, self.folder, variables, 300)
        self.config = before
        order = [tuple(line.split()) for line in log.read_text().splitlines()]
        return Ended(status, output, order)  # type: ignore[arg-type]

    def plan(self, *arguments: str, **config: Any) -> str:
        """Return how many canaries and sorts a dry run lists."""
        ended = self.run("--dry-run", *arguments, **config)
        assert ended.status == 0, ended.output
        counts = dict.fromkeys(("canary", "sort"), 0)
        for line in ended.output.splitlines():
            words = line.split()
            if len(words) == 2 and words[0] in counts:
                counts[words[0]] = int(words[1])
        return f"{counts['canary']} canaries, {counts['sort']} sorts"

    def result(self, *parts: str) -> Path:
        """Return a path below the results folder."""
        return self.folder.joinpath("results", *parts)
