"""Functions that the rules share; no rule. Reads and checks config and table."""

import functools
import re
import shutil
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
    forecast,
    gate,
    hooks,
    inputcheck,
    outputs,
    recordings,
    reruns,
    sentinel,
    sorters,
    summary,
)
from spikecanary import report as report_page
from spikecanary.config import BadInputError, Config, did_you_mean
from spikecanary.failures import ConcurrentSortError

# While rules are parsed Snakemake does not say yet whether this is a dry run.
DRY = any(
    re.fullmatch(r"--dry-?run|-[Ffkpq]*n[Ffkpq]*", given) for given in sys.argv[1:]
)
# Where more is asked for than what is due, Snakemake is to see every recording.
WHOLE = any(
    re.match(
        r"--(touch|report|summary|detailed|delete|list|archive|dag|d3dag|rulegraph)"
        r"|-[knpq]*[tSD]",
        given,
    )
    for given in sys.argv[1:]
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


@functools.cache
def find_settled():
    """Return the recordings for which nothing is left to do, so that the DAG need not grow.

    None where somebody asks for more than what is due, for files by name, or imports this
    workflow: the summary's set of inputs would change, and it would run once too often.
    """
    asked = workflow.dag_settings
    forced = asked.forceall or asked.forcerun or asked.forcetargets or asked.batch
    own = Path(str(workflow.main_snakefile)).resolve().parent == FOLDER.parent
    if WHOLE or forced or asked.targets or not own or not workflow.is_main_process:
        return set()
    return {
        recording
        for recording in ROWS
        if reruns.is_settled(SETTINGS, find_task(recording), results_path(recording))
    }


@functools.cache
def find_waves():
    """Return the recordings of each wave."""
    left = [recording for recording in ROWS if recording not in find_settled()]
    return gate.make_waves(left, SETTINGS.gate.waves, without=LEFT)


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


def unless_dry(function, constant):
    """Return a resource function; in a dry run, which asks nobody, the config's number.

    Of thousands of jobs Snakemake calls each function several times.
    """
    return constant if DRY else function


def canary_mem_mb(wildcards, attempt):
    """Return the memory of a canary in MB; each retry gets as much again."""
    return attempt * SETTINGS.job.mem_mb


def canary_runtime(wildcards, attempt):
    """Return the time limit of a canary in min; each retry gets as much again."""
    return attempt * SETTINGS.job.canary_runtime_min


def ask_for(wildcards, attempt, resource, unknown):
    """Return what a full sort asks for by its forecast, or, without one, what is given."""
    digest = get_task(wildcards).digest()
    expected = forecast.of_recording(
        results_path(), wildcards.recording, digest, SETTINGS.forecast
    )
    asked = forecast.request(SETTINGS.forecast, expected, attempt)
    return asked.get(resource, attempt * unknown)


def sort_mem_mb(wildcards, attempt):
    """Return the memory of a full sort in MB."""
    return ask_for(wildcards, attempt, "mem_mb", SETTINGS.job.mem_mb)


def sort_runtime(wildcards, attempt):
    """Return the time limit of a full sort in min."""
    return ask_for(wildcards, attempt, "runtime", SETTINGS.job.sort_runtime_min)


def sort_disk_mb(wildcards, attempt):
    """Return the disk space of a full sort in MB."""
    return ask_for(wildcards, attempt, "disk_mb", SETTINGS.forecast.min_disk_mb)


def sort_gpus(wildcards):
    """Return the GPUs of a full sort: one where its canary was seen to use one."""
    expected = forecast.of_recording(
        results_path(),
        wildcards.recording,
        get_task(wildcards).digest(),
        SETTINGS.forecast,
    )
    asked = count_gpus()
    return (
        max(asked, 1) if SETTINGS.job.gpu is None and "vram_mb" in expected else asked
    )


def count_attempt(wildcards, attempt):
    """Return the how manieth time Snakemake runs a job."""
    return attempt


def count_gpus():
    """Return the number of GPUs that a canary or sort job asks for."""
    if SETTINGS.job.gpu is not None:
        return SETTINGS.job.gpu
    if SETTINGS.sorter.device == "auto":
        return int(shutil.which("nvidia-smi") is not None)
    return int(SETTINGS.sorter.device == "cuda")


def wave_sentinels(wildcards):
    """Return the sentinels of one wave."""
    return [
        f"<results>/{recording}/canary.json"
        for recording in find_waves()[wildcards.wave]
    ]


def due_outputs(wildcards):
    """Return what rule all asks for.

    Where all is settled and summarized that is the table, which stands: Snakemake says that
    there is nothing to do, which it does not of a rule without inputs.
    """
    table, page = results_path("summary.tsv"), results_path("report.html")
    written = find_settled() == set(ROWS) != set() and summary.stands(table, METADATA)
    if written and page.exists() and page.stat().st_mtime >= table.stat().st_mtime:
        return SETTINGS.recordings
    # The waves by name: after a run with errors the summary stands, and would hide that
    # waves are missing.
    return [
        "<results>/report.html",
        "<results>/summary.tsv",
        *wave_tables(wildcards),
        *removed_files(),
    ]


def removed_files():
    """Return files of recordings that were removed since their wave's table was written.

    Snakemake makes files that only other rules need anew if those have to run themselves.
    """
    found = []
    for wave, members in find_waves().items():
        if results_path("waves", f"{wave}.tsv").exists():
            found += [path for member in members for path in results_of(member)]
    return [path for path in found if not Path(PATHVARS.apply(path)).exists()]


def results_of(recording):
    """Return what there is to be of a recording, as far as its sentinel tells.

    A sort that stands does not want a sentinel that was removed: to have it made again
    would, to Snakemake, be an input that was updated.
    """
    folder, task = results_path(recording), find_task(recording)
    if not (folder / "canary.json").exists():
        stands = reruns.sort_stands(task, folder)
        return [] if stands else [f"<results>/{recording}/canary.json"]
    if reruns.canary_is_due(SETTINGS, task, folder) or not may_proceed(recording):
        return []
    return made_of(recording)


def made_of(recording):
    """Return the files of a recording that is sorted."""
    named = [outputs.FILES[name] for name in outputs.wanted(SETTINGS.outputs)]
    return [f"<results>/{recording}/{name}" for name in ["sort.json", *named]]


def wave_tables(wildcards):
    """Return the tables of this run's waves."""
    return [f"<results>/waves/{wave}.tsv" for wave in find_waves()]


def newly_settled(wildcards):
    """Return the records of settled recordings that the summary does not know yet."""
    table = results_path("summary.tsv")
    if not table.exists():
        return []
    written = table.stat().st_mtime
    return [
        str(path)
        for path in summary.changed_since(written, results_path(), find_settled())
    ]


def is_silent(recording):
    """Return whether a plan counts a recording as stopped for a biological reason."""
    folder = results_path(recording)
    if may_proceed(recording):
        return False
    failure = sentinel.read_record(folder / "canary.json").failure
    return failure is not None and failure.category == "biological"


def output_mem_mb(wildcards, attempt):
    """Return the memory of a job that makes an output, in MB; each retry gets as much again."""
    return attempt * SETTINGS.job.output_mem_mb


def output_runtime(wildcards, attempt):
    """Return the time limit of a job that makes an output, in min."""
    return attempt * SETTINGS.job.output_runtime_min


def task_params(wildcards):
    """Return the full sort of a recording, for what is made of its sorting."""
    return dump_task(get_row(wildcards).id)


def row_params(wildcards):
    """Return the table's row of a recording, less what does not decide its units."""
    return task_params(wildcards)["row"]


def named_row_params(wildcards):
    """Return the table's row of a recording with its further columns, which NWB names."""
    return row_params(wildcards) | {"metadata": get_row(wildcards).metadata}


def may_proceed(recording):
    """Return whether a plan counts a recording as sorted: proceeds, or is tested again."""
    folder = results_path(recording)
    task = find_task(recording)
    try:
        due = reruns.canary_is_due(SETTINGS, task, folder)
        return due or sentinel.read_record(folder / "canary.json").verdict == "proceed"
    except sentinel.RecordError:  # its gate will say so
        return True


def wave_results(wildcards):
    """Return what is to be made of a wave's recordings.

    Of those that proceed, or are forced, the sort's record and the outputs; of those that
    are stopped for a biological reason, the figure that shows it. A dry run cannot pass the
    checkpoint: it plans with the sentinels that stand.
    """
    members = find_waves()[wildcards.wave]
    if workflow.dryrun:
        passed = {member for member in members if may_proceed(member)}
        silent = {member for member in members if is_silent(member)}
    else:
        table = Path(checkpoints.gate.get(wave=wildcards.wave).output.table)
        passed, silent = gate.proceeding(table), gate.stopped_for_biology(table)
    passed.update(SETTINGS.canary.force)
    drawn = silent - passed if "figures" in SETTINGS.outputs else set()
    return [path for each in members if each in passed for path in made_of(each)] + [
        f"<results>/{each}/{outputs.CANARY_FIGURE}" for each in members if each in drawn
    ]
