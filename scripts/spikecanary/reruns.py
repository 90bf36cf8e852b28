"""What makes a finished canary or sort run again, as values for Snakemake's params.

Snakemake runs a job again when a value in ``params`` changes. These functions return
the present settings, except where a finished sort must not be touched: there they
return what was recorded when it was made.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spikecanary import sentinel
from spikecanary.config import CanarySettings
from spikecanary.sentinel import RecordError

#: Modules of this package that decide what a sort gives, and what a canary says.
SORT_MODULES = ("recordings", "sorters")
CANARY_MODULES = (*SORT_MODULES, "failures", "signatures", "classify", "canary")


def code_digest(modules: Iterable[str]) -> str:
    """Digest of modules of this package (16 hex digits of SHA-256)."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update((Path(__file__).parent / f"{module}.py").read_bytes())
    return digest.hexdigest()[:16]


def canary_settings(
    settings: CanarySettings, code: str, folder: Path, sort_digest: str, files: Iterable[str]
) -> dict[str, Any]:
    """Return the settings of one recording's canary.

    Those in the config; but those that the sentinel records where the recording is
    sorted, so that another window or threshold does not run its canary again.

    Parameters
    ----------
    settings : CanarySettings
        The config's.
    code : str
        Digest of the code that decides a verdict.
    folder : Path
        The recording's results folder.
    sort_digest : str
        Digest of the sorter settings of now.
    files : iterable of str
        The recording's files that exist.
    """
    present = {**settings.model_dump(mode="json", exclude={"force"}), "code": code}
    if not sort_stands(folder, sort_digest, files):
        return present
    try:
        record = sentinel.read_record_if_any(folder / "canary.json")
    except RecordError:
        return present
    return record.settings if record and record.settings else present


def sort_stands(folder: Path, sort_digest: str, files: Iterable[str]) -> bool:
    """Whether a finished sort has the sorter settings of now and is newer than its files."""
    path = folder / "sort.json"
    try:
        record = sentinel.read_record_if_any(path)
        if record is None or record.sorter.params_digest != sort_digest:
            return False
        finished = path.stat().st_mtime
    except (RecordError, OSError):
        return False
    return all(Path(file).stat().st_mtime <= finished for file in files)


def is_forced(recording: str, force: Iterable[str], folder: Path) -> bool:
    """Whether a sort is forced; where it is finished, whether it was.

    So neither adding a recording to ``canary.force`` nor taking it out runs a finished
    sort again.
    """
    try:
        record = sentinel.read_record_if_any(folder / "sort.json")
    except RecordError:
        record = None
    return record.forced if record else recording in force
