"""What is made of a sorting: the outputs by name, and their files."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from spikecanary.config import Config, Output, as_set
from spikecanary.config.pathtypes import not_a_name
from spikecanary.supervise import folders
from spikecanary.table import Recording
from spikecanary.texts import PlainError, quote

#: The file or folder of each output, below the recording's results folder.
FILES: dict[Output, str] = {
    "units": "units.tsv",
    "figures": "figures",
    # Not the folder: people edit it, and Snakemake removes outputs before a job.
    "phy": "phy/.exported",
    "nwb": "units.nwb",
    "npz": "spikes.npz",
    "mat": "spikes.mat",
    "report": "report",
}
#: In an analyzer's folder, and in that of the curated sorting: the settings that it was made with.
NOTED = "made_with.json"
#: The figure of a recording that is stopped for a biological reason.
CANARY_FIGURE = "canary.png"


class OutputError(PlainError):
    """Why an output is not made, for people."""


def switched_on(steps: Mapping[str, dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
    """Return the steps that are not null, with their parameters."""
    return {name: params for name, params in steps.items() if params is not None}


def wanted(outputs: Iterable[Output]) -> list[Output]:
    """Return the outputs to make: units first, since all others show their labels."""
    chosen = set(outputs)
    return [name for name in FILES if name in chosen or (name == "units" and chosen)]


def last(outputs: Iterable[Output]) -> list[str]:
    """Return the files of a sorted recording that are made last, below its results folder."""
    return [FILES[name] for name in wanted(outputs)] or ["sort.json"]


def sessions(rows: Iterable[Recording], config: Config) -> dict[str, list[str]]:
    """Return the recordings of each session that has an NWB file of its own."""
    found: dict[str, list[str]] = {}
    if "nwb" in config.outputs and config.exports.nwb.by == "session":
        for row in rows:
            if row.session:
                found.setdefault(row.session, []).append(row.id)
    return found


def check_sessions(rows: Iterable[Recording]) -> Iterator[str]:
    """Find sessions that are different and would have one file, and names that cannot be one."""
    named: dict[str, dict[tuple[str | None, ...], str]] = {}
    for row in rows:
        if row.session:
            subject, id_ = (row.metadata.get(name) for name in ("subject", "subject_id"))
            columns = (subject or id_, id_ or subject, row.metadata["session"])
            named.setdefault(row.session.casefold(), {}).setdefault(columns, row.id)
    for name, by_columns in named.items():
        where = f"recordings {', '.join(map(repr, by_columns.values()))}: columns subject, session"
        if len(by_columns) > 1:
            yield f"{where}: different sessions have one name of a file, {quote(name)}"
        if why := not_a_name(name):
            yield f"{where}: {quote(name)} {why}"


def all_files(outputs: Iterable[Output]) -> list[str]:
    """Return all files of a sorted recording, below its results folder."""
    named = [FILES[name] for name in wanted(outputs)]
    made = ["analyzer", "metrics.tsv", "curated"] if named else []
    return ["sorting", "sort.json", *made, *named]


def settings_of(config: Config) -> dict[str, Any]:
    """Return the settings that decide the folders that note them; none where nothing is wanted."""
    curation = as_set(config.curation, exclude={"manual"})  # the work by hand itself is looked at
    made = {"analyzer": as_set(config.analysis), "curated": curation}
    return made if config.outputs else {}


def find_other_settings(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Say which of a recording's outputs was made with other settings, as far as they note any."""
    for name, made in (("analyzer", "analyzed"), ("curated", "curated")):
        with suppress(OSError, ValueError, LookupError):
            if json.loads((folder / name / NOTED).read_bytes()) != settings[name]:
                return f"{made} with other settings"
    return None


def outdated(folder: Path) -> list[str]:
    """Return what in a recording's folder is older than its sort, so made of another.

    After a new sort, that is what the config no longer names: Snakemake makes what is asked for.
    """
    try:
        sorted_s = (folder / "sort.json").stat().st_mtime
    except OSError:
        return []
    made = [folder / name for name in all_files(FILES)[2:]]
    old = [each for each in made if each.exists() and _made_s(each) < sorted_s]
    return [each.relative_to(folder).parts[0] for each in old]


def _made_s(path: Path) -> float:
    """Return when a file or a folder was made, to Snakemake, which touches a file in a folder."""
    stamp = path / ".snakemake_timestamp"
    return max(each.stat().st_mtime for each in (path, stamp) if each.exists())


@contextmanager
def appears_whole(path: Path, purpose: str) -> Iterator[Path]:
    """Yield a path beside another, for a file or a folder, that takes its place at the end."""
    folders.sweep(path.parent)
    temporary = folders.work_path(path.parent, purpose)
    temporary = temporary.with_name(temporary.name + path.suffix)
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if temporary.is_file():
            temporary.unlink()
