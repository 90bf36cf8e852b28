"""What makes a finished canary or sort run again, as values for Snakemake's params.

Snakemake runs a job again when a value in ``params`` changes. These functions return
the present settings, except where a finished sort must not be touched: there they
return what was recorded when it was made.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spikecanary import sentinel
from spikecanary.config import CanarySettings
from spikecanary.sentinel import RecordError
from spikecanary.sorters import SortTask

#: Modules of this package that decide what a sort gives, and what a canary says.
SORT_MODULES = ("recordings", "sorters")
CANARY_MODULES = (*SORT_MODULES, "failures", "signatures", "classify", "canary")


def _code_digest(modules: Iterable[str]) -> str:
    """Digest of modules of this package (16 hex digits of SHA-256)."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update((Path(__file__).parent / f"{module}.py").read_bytes())
    return digest.hexdigest()[:16]


SORT_CODE = _code_digest(SORT_MODULES)
CANARY_CODE = _code_digest(CANARY_MODULES)


def sort_digest(task: SortTask) -> str:
    """Digest of all that decides a full sort: recording, settings, code (16 hex digits)."""
    decisive = {"task": task.model_dump(mode="json", exclude={"n_jobs"}), "code": SORT_CODE}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def canary_settings(settings: CanarySettings, task: SortTask, folder: Path) -> dict[str, Any]:
    """Return the settings of one recording's canary.

    Those in the config; but those that the sentinel records where the recording is
    sorted, so that another window or threshold does not run its canary again.

    Parameters
    ----------
    settings : CanarySettings
        The config's.
    task : SortTask
        The recording's full sort, with the settings of now.
    folder : Path
        The recording's results folder.
    """
    present = {**settings.model_dump(mode="json", exclude={"force"}), "code": CANARY_CODE}
    if not sort_stands(task, folder):
        return present
    try:
        record = sentinel.read_record_if_any(folder / "canary.json")
    except RecordError:
        return present
    return record.settings if record and record.settings else present


def sort_stands(task: SortTask, folder: Path) -> bool:
    """Whether a finished sort has the settings of now and is newer than the recording."""
    path = folder / "sort.json"
    try:
        record = sentinel.read_record_if_any(path)
        if record is None or record.settings.get("digest") != sort_digest(task):
            return False
        finished = path.stat().st_mtime
        return all(Path(file).stat().st_mtime <= finished for file in task.files())
    except (RecordError, OSError):
        return False


def canary_is_due(settings: CanarySettings, task: SortTask, folder: Path) -> bool:
    """Whether a canary will run: no sentinel, other settings, or a verdict to test again."""
    record = sentinel.read_record_if_any(folder / "canary.json")
    if record is None or record.settings != canary_settings(settings, task, folder):
        return True
    if record.sorter.params_digest != task.digest():
        return True
    category = record.failure.category if record.failure else None
    return record.verdict == "stop" and category in sentinel.RETESTED


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
