"""Functions that the rules share; no rule. Reads and checks config and table."""

import shutil
import sys
from pathlib import Path

# Only scripts get the package's folder on sys.path from Snakemake.
SCRIPTS = workflow.current_basedir.join("../scripts")
sys.path.insert(0, str(Path(SCRIPTS.get_path_or_uri(secret_free=True)).resolve()))

from snakemake.exceptions import WorkflowError
from spikecanary import gate, hooks, inputcheck, recordings, reruns, sentinel, sorters
from spikecanary.config import BadInputError, did_you_mean

# Captured while parsing: inside a module, the importer's redirections.
PATHVARS = workflow.pathvars


def read_inputs():
    """Read config and table; in the main process, check every name in them."""
    read = inputcheck.read_inputs
    if workflow.is_main_process:
        read = inputcheck.check_inputs
    try:
        return read(config)
    except BadInputError as err:
        raise WorkflowError(str(err)) from None


SETTINGS, RECORDINGS = read_inputs()
ROWS = {row.id: row for row in RECORDINGS}
WAVES = gate.make_waves(list(ROWS), SETTINGS.gate.waves)
CANARY_CODE = reruns.code_digest(reruns.CANARY_MODULES)
SORT_CODE = reruns.code_digest(reruns.SORT_MODULES)


def results_path(*parts):
    """Return a path below the results folder."""
    return Path(PATHVARS.apply("<results>"), *parts)


def get_row(wildcards):
    """Return the table's row of the recording that a path names."""
    recording = wildcards.recording
    if recording not in ROWS:
        msg = f"no recording {recording!r} in {SETTINGS.recordings}"
        raise WorkflowError(msg + did_you_mean(recording, ROWS))
    return ROWS[recording]


def recording_files(wildcards):
    """Return the recording's files that exist; the canary classifies those that do not."""
    return get_row(wildcards).files()


def recording_source(wildcards):
    """Return what decides the samples of a recording."""
    return get_row(wildcards).source()


def sorter_settings(wildcards):
    """Return the sorter settings of a recording."""
    settings = sorters.settings_for(get_row(wildcards), SETTINGS.sorter)
    return settings.model_dump(mode="json")


def sorter_plugin(wildcards):
    """Return the plugin's file where the recording's sorter is defined by it."""
    return sorter_settings(wildcards)["plugin"] or []


def canary_settings(wildcards):
    """Return the canary's settings; of a sorted recording, those of its sentinel."""
    row = get_row(wildcards)
    settings = sorters.settings_for(row, SETTINGS.sorter)
    return reruns.canary_settings(
        SETTINGS.canary,
        CANARY_CODE,
        results_path(row.id),
        sorters.settings_digest(settings, SETTINGS.preprocessing),
        row.files(),
    )


def canary_attempt(wildcards):
    """Return how often the canary stopped for the environment or a resource."""
    return sentinel.count_retestable(
        results_path(wildcards.recording, "attempts.jsonl")
    )


def is_forced(wildcards):
    """Return whether a recording is sorted whatever its verdict says."""
    folder = results_path(wildcards.recording)
    return reruns.is_forced(wildcards.recording, SETTINGS.canary.force, folder)


def job_gpus(wildcards):
    """Return the number of GPUs that a canary or sort job asks for."""
    if SETTINGS.job.gpu is not None:
        return SETTINGS.job.gpu
    if SETTINGS.sorter.device == "auto":
        return int(shutil.which("nvidia-smi") is not None)
    return int(SETTINGS.sorter.device == "cuda")


def wave_sentinels(wildcards):
    """Return the sentinels of one wave."""
    return [f"<results>/{recording}/canary.json" for recording in WAVES[wildcards.wave]]


def wave_sorts(wildcards):
    """Return the sort records of those of a wave that proceed, or are forced.

    A dry run cannot pass the checkpoint: it plans with the sentinels that stand.
    """
    members = WAVES[wildcards.wave]
    if workflow.dryrun:
        passed = {
            recording
            for recording in members
            if gate.expected_to_proceed(results_path(recording, "canary.json"))
        }
    else:
        table = checkpoints.gate.get(wave=wildcards.wave).output.table
        passed = gate.proceeding(Path(table))
    passed.update(SETTINGS.canary.force)
    return [f"<results>/{member}/sort.json" for member in members if member in passed]
