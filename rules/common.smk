"""Functions that the rules share; no rule. Reads and checks config and table."""

import functools
import inspect
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import Quietness, RerunTrigger
from snakemake.sourcecache import LocalSourceFile


def check_installed(scripts):
    """Check that the package is installed as a hosted repository has it, which cannot be listed."""
    source = Path(workflow.source_path("../scripts/spikecanary/__init__.py")).read_text()
    wanted = re.search(r'__version__ = "(.+)"', source)[1]
    try:
        from spikecanary import __version__ as installed
    except ImportError:
        installed = "none"
    if installed != wanted:
        where = f"git+https://{scripts.host}/{scripts.repo}@{scripts.ref}"
        found = f"these rules need spikecanary {wanted}, installed is {installed}"
        raise WorkflowError(f"{found}: pip install {where}")


SCRIPTS = workflow.current_basedir.join("../scripts")
FOLDER = None
if isinstance(SCRIPTS, LocalSourceFile):
    FOLDER = Path(SCRIPTS.get_path_or_uri(secret_free=False)).resolve().parent
    sys.path.insert(0, str(FOLDER / "scripts"))
else:
    check_installed(SCRIPTS)

from snakemake_logger_plugin_spikecanary.quiet import quieten
from spikecanary import forecast, gate, inputcheck, outputs, reruns
from spikecanary import report as page, sentinel, summary
from spikecanary.config import BadInputError, as_set
from spikecanary.outputs import phy
from spikecanary.reruns import OUTPUT_VERSIONS, SORT_VERSION, State, compare, digest, limits_of
from spikecanary.supervise import gpus, processes
from spikecanary.table import ID_PATTERN, find_misplaced, not_readable
from spikecanary.texts import count, did_you_mean, shorten

if FOLDER:
    processes.import_first(FOLDER / "scripts")
DRY = workflow.output_settings.dryrun
IN_MODULE = Path(workflow.main_snakefile).resolve().parent != FOLDER
if Quietness.RULES in (workflow.output_settings.quiet or ()) and not IN_MODULE:
    quieten(logger)
# Captured while parsing: inside a module, the importer's redirections.
PATHVARS = workflow.pathvars
PREFIX = workflow.modifier.path_modifier
if PREFIX.modifies_prefixes:  # it would not match paths that begin with a pathvar
    hint = "use pathvars: results, logs, benchmarks (docs/module.md)"
    raise WorkflowError(f"module: replace_prefix does not go with these rules; {hint}")
for place in filter(None, (Path.cwd(), FOLDER)):
    if {"{", "}"} & set(str(place)):
        sys.exit(f"{place}: Snakemake takes braces for wildcards; rename that folder")
if workflow.is_main_process:
    sentinel.begin_run()
# Every name in them is checked once, by the main process.
checked = functools.partial(inputcheck.check_inputs, files=workflow.configfiles)
read = checked if workflow.is_main_process else inputcheck.read_inputs
try:
    SETTINGS, RECORDINGS = read(config)
except BadInputError as err:
    sys.exit(str(err))  # a WorkflowError would show lines of this file
PLACES = {
    name: Path(PREFIX.replace_prefix(PATHVARS.apply(f"<{name}>")))
    for name in ("results", "logs", "benchmarks")
}
for name, place in PLACES.items():
    if re.search(r"^\.?$|^~|[{}<>]", str(place)):
        sys.exit(f"pathvars: {name}: takes a folder, without ~, {{, }}, < and >, got {place}")
    why = not_readable(place)
    if why and not why.endswith("does not exist"):
        sys.exit(f"pathvars: {name}: {why}; choose another folder")
    if os.path.lexists(place) and not place.is_dir():
        sys.exit(f"{place} is no folder: move it, or choose another in pathvars: {name}")
RESULTS = PLACES["results"]
if misplaced := find_misplaced(RESULTS):
    sys.exit(f"{'; '.join(misplaced)}: move it away")
if workflow.is_main_process and not DRY and os.access(RESULTS, os.W_OK):
    # As a file asked for by name, or with --notemp, it would stay, and check nothing again.
    Path(RESULTS, ".checked").unlink(missing_ok=True)
ROWS = {row.id: row for row in RECORDINGS if reruns.is_usable(row, RESULTS, SETTINGS, dry=DRY)}
NO_FOLDERS = (
    f"{RESULTS} has no folders of theirs to work in: {[x.id for x in RECORDINGS if x.id not in ROWS]}; "
    "move them, or give yourself the right to read and write them"
)
LEFT_OUT = f"Left out, {NO_FOLDERS}" if len(ROWS) < len(RECORDINGS) else ""
if workflow.is_main_process and LEFT_OUT:
    logger.warning(LEFT_OUT)
summary.IN_TABLE[RESULTS] = {*ROWS}
SESSIONS = outputs.sessions(RECORDINGS, SETTINGS)
# As many GPU jobs at a time as there are GPUs, unless it is said; a cluster has its own.
if workflow.local_exec and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", max(1, gpus.count()))
BLOCKS = gate.make_waves(RECORDINGS, SETTINGS.gate.wave_size, SETTINGS.sorter.name)
WAVES = {wave: members for wave in BLOCKS if (members := [x for x in BLOCKS[wave] if x in ROWS])}
NUMBERED = gate.number(RECORDINGS)
OF_BATCH = {
    "names": [*ROWS],
    "waves": [*WAVES],
    "remote": workflow.non_local_exec,
    "limits": limits_of(SETTINGS),
    "late": inputcheck.left_to_jobs(SETTINGS),
    "force": SETTINGS.canary.force,
}


def state_of(recording):
    """Return a recording's records beside the settings of now."""
    if recording not in ROWS:
        if recording in NUMBERED:
            sys.exit(NO_FOLDERS)
        hint = did_you_mean(recording, ROWS)
        sys.exit(f"no recording {recording!r} in {SETTINGS.recordings}{hint}")
    return State(SETTINGS, ROWS[recording], RESULTS / recording, dry=DRY)


if DRY or not IN_MODULE:  # where no other rule makes the recordings in this run
    state_of = functools.cache(state_of)


@functools.cache
def check_options():
    """Refuse what would silently do something else here; known once the DAG is built."""
    if not ROWS:  # only now, since `snakemake --lint` needs none
        hint = "lists no recording: python -m spikecanary.discover FOLDER (docs/own-data.md)"
        sys.exit(NO_FOLDERS if RECORDINGS else f"{SETTINGS.recordings}: {hint}")
    # Jobs behind a checkpoint are not known yet: a real run would leave them out.
    given = workflow.dag_settings
    if given.until or given.omit_from or given.batch:
        hint = "Ask for the target `sorted` instead, for files, or use several tables"
        sys.exit(f"--until, --omit-from, --batch do not work with checkpoints. {hint}")
    if RerunTrigger.CODE in workflow.rerun_triggers:
        hint = "add to your profile: rerun-triggers: [mtime, params, input]"
        logger.warning(f"An update of Spike Canary will sort everything again; {hint}")
    # Once: each job of a cluster reads the rules anew.
    of_run = ROWS if workflow.is_main_process else ()
    if again := [f"{x} ({why})" for x in of_run if (why := state_of(x).changes)]:
        n_sorts = count(len(again), "finished sort runs", "finished sorts run")
        logger.warning(f"{n_sorts} again, because of what changed: {shorten(again)}")
    if IN_MODULE:
        warn_of_disagreement()


# What jobs are told, and what they ask for.


def signed(function):
    """Note a function's signature in it: Snakemake asks for it three times a job."""
    function.__signature__ = inspect.signature(function)
    return function


def setting(kind, name):
    """Return a function of one of the settings that decide a canary, or a sort."""
    settings = f"{kind}_settings"
    return signed(lambda wildcards: getattr(state_of(wildcards.recording), settings)[name])


@signed
def of_batch(wildcards, output):
    """Return a job's place in the batch, and what it goes by that does not decide its result.

    One value, since each costs time. Snakemake compares none that is derived from the output (or
    from threads, for which it would forecast each sort that stands, too).
    """
    names = [wildcards.recording] if "recording" in wildcards.keys() else WAVES[wildcards.wave]
    return OF_BATCH | {
        "rows": {each: NUMBERED[each] for each in names},
        "forced": names[0] in SETTINGS.canary.force,
    }


@signed
def task_of(wildcards):
    """Return the full sort of a recording, for what is made of its sorting."""
    return state_of(wildcards.recording).sort_settings["task"]


def with_work_by_hand(kind, pattern):
    """Return a function of the version of an output, and of the work in Phy that it is made of."""
    version = {kind: OUTPUT_VERSIONS[kind]}
    look = functools.partial(
        phy.look_for_work, pattern=pattern, manual=SETTINGS.curation.manual, dry=DRY
    )
    return signed(lambda wildcards: version | look(RESULTS / wildcards.recording))


def times_attempt(constant):
    """Return a resource function: each retry gets as much again. A dry run retries nothing."""
    return constant if DRY else lambda wildcards, attempt: attempt * constant


CANARY_REQUEST = forecast.default_request(
    SETTINGS, SETTINGS.sorter.name, SETTINGS.job.canary_runtime_min
)


def sort_request(resource):
    """Return a full sort's request for a resource, by its forecast; a dry run takes the least."""

    def request(wildcards, attempt):
        task = state_of(wildcards.recording).task
        return forecast.sort_request(SETTINGS, RESULTS, task, attempt)[resource]

    limit_min = SETTINGS.job.sort_runtime_min
    least = forecast.default_request(SETTINGS, SETTINGS.sorter.name, limit_min)
    return least[resource] if DRY else request


@signed
def gpus_of(wildcards):
    """Return how many GPUs a recording's sorter takes."""
    return forecast.count_gpus(SETTINGS, sorter_of(wildcards.recording))


def sorter_of(recording):
    """Return the sorter of a recording."""
    return state_of(recording).row.sorter or SETTINGS.sorter.name


def end_of_run(*, failed):
    """Print how this run's recordings ended; exit status 1 where one of them needs attention."""
    jobs = [] if workflow.touch else workflow.dag.jobs
    of_run = {job.wildcards.get("recording") for job in jobs}
    # Where a machine cannot run a sorter, no canary of it is among the jobs.
    of_run |= {each for job in jobs for each in WAVES.get(job.wildcards.get("wave"), [])}
    further = {name: row.metadata for name, row in ROWS.items()}
    if any(job.name == "check_records" for job in jobs):
        of_run |= {each for each in ROWS if state_of(each).is_doubtful}
    ended = {name: further[name] for name in further if name in of_run}
    if failed and ended:
        page.write_after_errors(RESULTS, further, SETTINGS)
    files = outputs.all_files(SETTINGS.outputs) if failed else []
    needs_attention = summary.print_end(RESULTS, ended, files)
    if LEFT_OUT or (needs_attention and not failed):
        sys.exit(LEFT_OUT or 1)
