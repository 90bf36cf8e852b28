"""Functions that the rules share; no rule. Reads and checks config and table."""

import shutil
import sys
from pathlib import Path

# Only scripts get the package's folder on sys.path from Snakemake.
SCRIPTS = workflow.current_basedir.join("../scripts")
sys.path.insert(0, str(Path(SCRIPTS.get_path_or_uri(secret_free=True)).resolve()))

from snakemake.exceptions import WorkflowError
from spikecanary import gate, hooks, inputcheck, recordings, reruns, sentinel, sorters
from spikecanary.config import BadInputError, Config, did_you_mean
from spikecanary.failures import ConcurrentSortError

# Captured while parsing: inside a module, the importer's redirections.
PATHVARS = workflow.pathvars


def read_inputs():
    """Read config and table; in the main process, check every name in them.

    `snakemake --lint` looks at the rules alone and needs no recordings.
    """
    read = inputcheck.read_inputs
    if workflow.is_main_process:
        read = inputcheck.check_inputs
    try:
        return read(config)
    except BadInputError as err:
        if "--lint" in sys.argv:
            return Config(), []
        raise WorkflowError(str(err)) from None


def results_path(*parts):
    """Return a path below the results folder."""
    return Path(PATHVARS.apply("<results>"), *parts)


def find_left():
    """Return the recordings that another run works on now, each with who that is."""
    if not workflow.is_main_process or workflow.dryrun:
        return {}
    return hooks.look_around(results_path(), ROWS)


SETTINGS, RECORDINGS = read_inputs()
ROWS = {row.id: row for row in RECORDINGS}
LEFT = find_left()
WAVES = gate.make_waves(list(ROWS), SETTINGS.gate.waves, without=LEFT)


def get_row(wildcards):
    """Return the table's row of the recording that a path names."""
    recording = wildcards.recording
    if recording not in ROWS:
        msg = f"no recording {recording!r} in {SETTINGS.recordings}"
        raise WorkflowError(msg + did_you_mean(recording, ROWS))
    return ROWS[recording]


def get_task(wildcards):
    """Return the full sort of a recording."""
    return sorters.make_task(get_row(wildcards), SETTINGS)


def recording_files(wildcards):
    """Return the files that exist: the canary classifies a recording that does not."""
    return get_task(wildcards).files()


def task_params(wildcards):
    """Return all that decides a sort, as plain data."""
    return get_task(wildcards).model_dump(mode="json")


def canary_settings(wildcards):
    """Return the canary's settings; of a sorted recording, those of its sentinel."""
    folder = results_path(wildcards.recording)
    return reruns.canary_settings(SETTINGS, get_task(wildcards), folder)


def sort_sentinel(wildcards):
    """Return the sentinel, without its time where a finished sort stands.

    So a canary that runs again never invalidates a finished sort. A sort that is to run
    again must not have it as ancient: Snakemake does not look at such a job's own
    changes while the canary before it is still to run.
    """
    path = f"<results>/{wildcards.recording}/canary.json"
    stands = reruns.sort_stands(get_task(wildcards), results_path(wildcards.recording))
    return ancient(path) if stands else path


def canary_attempt(wildcards):
    """Return how often the canary stopped for the environment or a resource."""
    return sentinel.count_retestable(
        results_path(wildcards.recording, "attempts.jsonl")
    )


def sort_settings(wildcards):
    """Return the full sort's settings; of a finished one, those that it was made with."""
    folder = results_path(wildcards.recording)
    return reruns.sort_settings(SETTINGS, get_task(wildcards), folder)


def job_mem_mb(wildcards, attempt):
    """Return the memory of a canary or sort job; each retry gets as much again."""
    return attempt * SETTINGS.job.mem_mb


def canary_runtime(wildcards, attempt):
    """Return the time limit of a canary in min; each retry gets as much again."""
    return attempt * SETTINGS.job.canary_runtime_min


def sort_runtime(wildcards, attempt):
    """Return the time limit of a full sort in min; each retry gets as much again."""
    return attempt * SETTINGS.job.sort_runtime_min


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


def may_proceed(recording):
    """Return whether a plan counts a recording as sorted: proceeds, or is tested again."""
    folder = results_path(recording)
    task = sorters.make_task(ROWS[recording], SETTINGS)
    try:
        due = reruns.canary_is_due(SETTINGS, task, folder)
        return due or sentinel.read_record(folder / "canary.json").verdict == "proceed"
    except sentinel.RecordError:  # its gate will say so
        return True


def wave_sorts(wildcards):
    """Return the sort records of those of a wave that proceed, or are forced.

    A dry run cannot pass the checkpoint: it plans with the sentinels that stand.
    """
    members = WAVES[wildcards.wave]
    if workflow.dryrun:
        passed = {member for member in members if may_proceed(member)}
    else:
        table = checkpoints.gate.get(wave=wildcards.wave).output.table
        passed = gate.proceeding(Path(table))
    passed.update(SETTINGS.canary.force)
    return [f"<results>/{member}/sort.json" for member in members if member in passed]
