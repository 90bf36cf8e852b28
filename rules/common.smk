"""Functions that the rules share; no rule. Reads and checks config and table."""

import functools
import re
import sys
from pathlib import Path

from snakemake.sourcecache import LocalSourceFile

# Only scripts find the package by themselves, beside them; here its folder has to be named.
# Of a hosted repository no folder can be listed, so its files are fetched by their names.
PACKAGE = """
    __init__ analysis canary capacity catalogue checkup child claims classify compiled config
    containers curation diagnosis exports failures figures forecast fullsort gate gpus hooks
    inputcheck interrupts jobs locks logs outputs plan preflight processes progress recordings
    report reruns sampling sentinel signals signatures/__init__ signatures/biological
    signatures/container signatures/environment signatures/gpu signatures/resource
    signatures/row sorters summary supervisor tables watchdogs windows workfolders
""".split()
SCRIPTS = workflow.current_basedir.join("../scripts")
if isinstance(SCRIPTS, LocalSourceFile):
    FOLDER = Path(SCRIPTS.get_path_or_uri(secret_free=False)).resolve()
else:
    fetched = [
        workflow.source_path(f"../scripts/spikecanary/{name}.py") for name in PACKAGE
    ]
    FOLDER = Path(fetched[0]).parents[1]
sys.path.insert(0, str(FOLDER))

from snakemake.exceptions import WorkflowError
from spikecanary import (
    hooks,
    inputcheck,
    recordings,
    reruns,
    sentinel,
    sorters,
)
from spikecanary import report as report_page
from spikecanary.config import BadInputError, Config, did_you_mean
from spikecanary.failures import ConcurrentSortError

# While rules are parsed Snakemake does not say yet whether this is a dry run.
DRY = any(
    re.fullmatch(r"--dry-?run|-[Ffkpq]*n[Ffkpq]*", given) for given in sys.argv[1:]
)
# The report's template.
PAGE = workflow.source_path("../scripts/report/page.html")
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
    if not workflow.is_main_process or DRY:
        return {}
    return hooks.look_around(results_path(), ROWS)


@functools.cache
def find_task(recording):
    """Return the full sort of a recording, made once."""
    return sorters.make_task(ROWS[recording], SETTINGS)


@functools.cache
def dump_task(recording):
    """Return the full sort of a recording as plain data, for params."""
    return find_task(recording).model_dump(mode="json")


SETTINGS, RECORDINGS = read_inputs()
ROWS = {row.id: row for row in RECORDINGS}
METADATA = {row.id: row.metadata for row in RECORDINGS}
LEFT = find_left()


def write_page():
    """Write the report of what stands, after a run with errors."""
    path = results_path("report.html")
    report_page.write(path, Path(PAGE), SETTINGS, results_path())


def only_plans():
    """Return whether this run executes nothing but rule plan."""
    return all(job.rule.name.endswith("plan") for job in workflow.dag.needrun_jobs())


def get_row(wildcards):
    """Return the table's row of the recording that a path names."""
    recording = wildcards.recording
    if recording not in ROWS:
        msg = f"no recording {recording!r} in {SETTINGS.recordings}"
        raise WorkflowError(msg + did_you_mean(recording, ROWS))
    return ROWS[recording]


def get_task(wildcards):
    """Return the full sort of the recording that a path names."""
    return find_task(get_row(wildcards).id)


def recording_files(wildcards):
    """Return the files that exist: the canary classifies a recording that does not."""
    return get_task(wildcards).files()


def canary_params(wildcards):
    """Return all that decides a canary: what to sort, settings, and its attempts so far.

    One value, since Snakemake takes its time for each function. Settings are, of a sorted
    recording, those of its sentinel; the attempts are those that stopped for the
    environment or a resource.
    """
    task, folder = get_task(wildcards), results_path(wildcards.recording)
    return {
        "task": dump_task(wildcards.recording),
        "settings": reruns.canary_settings(SETTINGS, task, folder),
        "attempt": sentinel.count_retestable(folder / "attempts.jsonl"),
    }


def sort_sentinel(wildcards):
    """Return the sentinel, without its time where a finished sort stands.

    So a canary that runs again never invalidates a finished sort. A sort that is to run
    again must not have it as ancient: Snakemake does not look at such a job's own
    changes while the canary before it is still to run.
    """
    path = f"<results>/{wildcards.recording}/canary.json"
    stands = reruns.sort_stands(get_task(wildcards), results_path(wildcards.recording))
    return ancient(path) if stands else path


def sort_params(wildcards):
    """Return all that decides a sort; settings are, of a finished one, those it was made with."""
    task, folder = get_task(wildcards), results_path(wildcards.recording)
    return {
        "task": dump_task(wildcards.recording),
        "settings": reruns.sort_settings(SETTINGS, task, folder),
    }


def task_params(wildcards):
    """Return the full sort of a recording, for what is made of its sorting."""
    return dump_task(get_row(wildcards).id)


def row_params(wildcards):
    """Return the table's row of a recording, less what does not decide its units."""
    return task_params(wildcards)["row"]


def named_row_params(wildcards):
    """Return the table's row of a recording with its further columns, which NWB names."""
    return row_params(wildcards) | {"metadata": get_row(wildcards).metadata}
