"""What makes a finished canary or sort run again, as values for Snakemake's params.

Snakemake runs a job again when a value in ``params`` changes. These functions return
the present settings, except where a finished sort must not be touched: there they
return what was recorded when it was made.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from spikecanary import outputs, sentinel
from spikecanary.config import Config
from spikecanary.sentinel import RecordError
from spikecanary.sorters import SortTask

#: Modules of this package that decide what a sort gives, and what a canary says.
SORT_MODULES = ("recordings", "sorters")
#: What of the forecast's settings a sort and a canary go by.
OF_A_SORT = {"max_mem_mb", "max_runtime_min"}
OF_A_CANARY = {"second_window", "min_mem_mb", "min_runtime_min", *OF_A_SORT}
#: Those that decide what is made of a sorting.
OUTPUT_MODULES = ("analysis", "curation", "exports", "figures")
CANARY_MODULES = (*SORT_MODULES, "failures", "signatures", "classify", "signals", "canary")


@functools.cache
def code_digest(*modules: str) -> str:
    """Digest of modules of this package (16 hex digits of SHA-256)."""
    digest = hashlib.sha256()
    for module in modules:
        for path in sorted(Path(__file__).parent.glob(f"{module}.py")):
            digest.update(path.read_bytes())
        for path in sorted(Path(__file__).parent.glob(f"{module}/*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


SORT_CODE = code_digest(*SORT_MODULES)
CANARY_CODE = code_digest(*CANARY_MODULES)


def sort_digest(task: SortTask) -> str:
    """Digest of all that decides a full sort: recording, settings, code (16 hex digits)."""
    decisive = {"task": task.model_dump(mode="json", exclude={"n_jobs"}), "code": SORT_CODE}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def canary_settings(config: Config, task: SortTask, folder: Path) -> dict[str, Any]:
    """Return the settings of one recording's canary.

    Those in the config; but those that the sentinel records where the recording is
    sorted, so that another window or threshold does not run its canary again.

    Parameters
    ----------
    config : Config
        The config of now.
    task : SortTask
        The recording's full sort, with the settings of now.
    folder : Path
        The recording's results folder.
    """
    present = {
        "canary": config.canary.model_dump(mode="json", exclude={"force"}),
        "preflight": config.preflight.model_dump(mode="json"),
        "watchdogs": config.watchdogs.model_dump(mode="json"),
        "forecast": config.forecast.model_dump(mode="json", include=OF_A_CANARY),
        "code": CANARY_CODE,
    }
    if not sort_stands(task, folder):
        return present
    try:
        record = sentinel.read_record_if_any(folder / "canary.json")
    except RecordError:
        return present
    return record.settings if record and record.settings else present


def sort_settings(config: Config, task: SortTask, folder: Path) -> dict[str, Any]:
    """Return the full sort's settings that do not decide its result, and its digest.

    Those in the config; those in ``sort.json`` where it stands, so that other limits do not
    run a finished sort again.
    """
    if sort_stands(task, folder):
        return sentinel.read_record(folder / "sort.json").settings
    return {
        "digest": sort_digest(task),
        "preflight": config.preflight.model_dump(mode="json"),
        "watchdogs": config.watchdogs.model_dump(mode="json"),
        "retry": config.retry.model_dump(mode="json"),
        "forecast": config.forecast.model_dump(
            mode="json", include={"max_mem_mb", "max_runtime_min"}
        ),
        "signals": config.canary.signals.model_dump(mode="json"),
        "forced": task.row.id in config.canary.force,
    }


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


def canary_is_due(config: Config, task: SortTask, folder: Path) -> bool:
    """Whether a canary will run: no sentinel, other settings, or a verdict to test again."""
    record = sentinel.read_record_if_any(folder / "canary.json")
    if record is None or record.settings != canary_settings(config, task, folder):
        return True
    if record.sorter.params_digest != task.digest():
        return True
    category = record.failure.category if record.failure else None
    return record.verdict == "stop" and category in sentinel.RETESTED


def outputs_digest(config: Config) -> str:
    """Digest of all that decides what is made of a sorting (16 hex digits of SHA-256)."""
    sections = {"outputs", "analysis", "curation", "exports"}
    return outputs.digest(
        {**config.model_dump(mode="json", include=sections), "code": code_digest(*OUTPUT_MODULES)}
    )


def is_settled(config: Config, task: SortTask, folder: Path) -> bool:
    """Whether nothing is left to do for a recording: sorted, or stopped for good.

    Thousands of such recordings need not be in a run's DAG.
    """
    sentinel_path = folder / "canary.json"
    try:
        if sort_stands(task, folder):
            made = not config.outputs or outputs.stand(
                folder, config.outputs, outputs_digest(config)
            )
            return made and not canary_is_due(config, task, folder)
        if task.row.id in config.canary.force or canary_is_due(config, task, folder):
            return False
        looked = sentinel_path.stat().st_mtime
        unchanged = all(Path(file).stat().st_mtime <= looked for file in task.files())
        drawn = "figures" not in config.outputs or (folder / outputs.CANARY_FIGURE).exists()
        return drawn and unchanged and sentinel.read_record(sentinel_path).verdict == "stop"
    except (RecordError, OSError):
        return False
