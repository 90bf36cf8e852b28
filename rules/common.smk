"""What the rules share; no rule. Reads and checks config and table (spikecanary.batch)."""

import functools
import gc
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod, Quietness, RerunTrigger
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
from spikecanary import batch, forecast, inputcheck, outputs, reruns, sentinel, summary
from spikecanary.preflight import node
from spikecanary.config import BadInputError, as_set
from spikecanary.reruns import OUTPUT_VERSIONS, SORT_VERSION, compare, digest, limits_of
from spikecanary.supervise import gpus, processes
from spikecanary.table import ID_PATTERN

if FOLDER:
    processes.import_first(FOLDER / "scripts")
DRY = workflow.output_settings.dryrun
# workflow/Snakefile includes ours; fetched from elsewhere, all are a module's.
OWN = (FOLDER, FOLDER / "workflow") if FOLDER else ()
IN_MODULE = Path(workflow.main_snakefile).resolve().parent not in OWN
if Quietness.RULES in (workflow.output_settings.quiet or ()) and not IN_MODULE:
    quieten(logger, is_local=lambda: workflow.local_exec)
# Captured while parsing: inside a module, the importer's redirections.
PATHVARS = workflow.pathvars
PREFIX = workflow.modifier.path_modifier
if PREFIX.modifies_prefixes:  # it would not match paths that begin with a pathvar
    hint = "use pathvars: results, logs, benchmarks (docs/module.md)"
    raise WorkflowError(f"module: replace_prefix does not go with these rules; {hint}")
for place in filter(None, (Path.cwd(), FOLDER)):
    if {"{", "}"} & set(str(place)):
        sys.exit(f"{place}: Snakemake takes braces for wildcards; rename that folder")
try:
    if workflow.is_main_process:
        sentinel.begin_run()
        # Every name in them is checked, once.
        own = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
        SETTINGS, RECORDINGS = inputcheck.check_inputs(config, workflow.configfiles, own=own)
    else:
        SETTINGS, RECORDINGS = inputcheck.read_inputs(config)
except BadInputError as err:
    sys.exit(str(err))  # a WorkflowError would show lines of this file
changed = reruns.compare_with_run(SETTINGS, begins=workflow.is_main_process)
if changed and not IN_MODULE:  # a module's config may be made anew by each process
    sys.exit(changed)
PLACES = {
    name: Path(PREFIX.replace_prefix(PATHVARS.apply(f"<{name}>")))
    for name in ("results", "logs", "benchmarks")
}
if misplaced := batch.check_places(PLACES):
    sys.exit(misplaced)
RESULTS = PLACES["results"]
# An importer's `with` reads all of this again, for one of ours: it goes by the checkpoints of all.
if workflow.modifier.rule_whitelist is None:
    batch.IMPORTED[RESULTS] = (checkpoints, workflow.modifier.modify_rulename)
CHECKPOINTS, name_of = batch.IMPORTED.get(RESULTS, (checkpoints, workflow.modifier.modify_rulename))
is_free = not DRY and not any(Path(".snakemake/locks").glob("*"))  # no other run awaits it
if workflow.is_main_process and is_free and os.access(RESULTS, os.W_OK):
    # As a file asked for by name, or with --notemp, it would stay, and check nothing again.
    Path(RESULTS, ".checked").unlink(missing_ok=True)
BATCH = batch.Batch(
    SETTINGS,
    RECORDINGS,
    RESULTS,
    dry=DRY,
    is_job=not workflow.is_main_process,
    # Known once the DAG is built: while rules are read, there is no executor.
    tries_nodes=lambda: workflow.local_exec and not (DRY or workflow.touch or BATCH.reads_only()),
    reads_only=lambda: workflow.executor_plugin is None,
    forces_sorts=lambda: forces("sort"),
    remembers=DRY or not IN_MODULE,
)
LEFT_OUT = BATCH.left_out and f"Left out, {BATCH.left_out}"
if workflow.is_main_process and LEFT_OUT:
    logger.warning(LEFT_OUT)
summary.IN_TABLE[RESULTS] = {name: row.metadata for name, row in BATCH.rows.items()}
gc.freeze()  # what is there by now stays: Python need not look through it again and again


@functools.cache
def limit_gpus():
    """Allow as many GPU jobs at a time as there are GPUs, unless it is said; a cluster has its own.

    With --jobs, which a cluster needs, once the DAG is built: before, every run seems local.
    """
    is_local = workflow.is_main_process and workflow.local_exec
    if is_local and "gpu" not in workflow.global_resources:
        workflow.register_resource("gpu", max(1, gpus.count()))


if workflow.resource_settings.nodes is None:  # no jobs elsewhere
    limit_gpus()


@functools.cache
def check_options():
    """Refuse what would silently do something else here; known once the DAG is built."""
    if not BATCH.rows:  # only now, since `snakemake --lint` needs none
        hint = "lists no recording: python -m spikecanary.discover FOLDER (docs/own-data.md)"
        sys.exit(BATCH.left_out or f"{SETTINGS.recordings}: {hint}")
    # Jobs behind a checkpoint are not known yet: a real run would leave them out.
    chosen = workflow.dag_settings
    if chosen.until or chosen.omit_from or chosen.batch:
        hint = "Ask for the target `sorted` instead, for files, or use several tables (docs/options.md)"
        sys.exit(f"--until, --omit-from, --batch do not work with checkpoints. {hint}")
    if RerunTrigger.CODE in workflow.rerun_triggers:
        hint = "add to your profile: rerun-triggers: [mtime, params, input]"
        logger.warning(f"An update of Spike Canary will sort everything again; {hint}")
    limit_gpus()
    # Once: each job of a cluster reads the rules anew.
    may_run = RerunTrigger.PARAMS in workflow.rerun_triggers and not workflow.touch
    if workflow.is_main_process and may_run and (again := BATCH.describe_changes()):
        logger.warning(again)
    if IN_MODULE:
        warn_of_disagreement()


def forces(rule, recording="", files=()):
    """Whether this run makes again what a rule made (-F, -R), or one of its results by a file."""
    chosen = workflow.dag_settings
    names = {name_of(rule), *(str(RESULTS / recording / file) for file in files)}
    is_named = not names.isdisjoint({*chosen.forcerun, *workflow.dag.forcefiles})
    return workflow.is_main_process and (chosen.forceall or is_named)


@functools.cache
def warn_of_disagreement():
    """Say what disagrees where nothing asks for the check: for an importer's targets, and sorted."""
    if text := compare(RESULTS, **BATCH.disagreeing):
        logger.warning(f"Unless these run again by themselves: {text}")


@batch.signed
def of_batch(wildcards, output):
    """Return a job's place in the batch, and what it goes by that does not decide its result.

    One value, since each costs time. Snakemake compares none that is derived from the output (or
    from threads, for which it would forecast each sort that stands, too).
    """
    is_one = "recording" in wildcards.keys()
    place = BATCH.place_of([wildcards.recording] if is_one else BATCH.waves[wildcards.wave])
    return place | {"remote": workflow.non_local_exec}


def end_of_run(*, failed):
    """Print how this run's recordings ended; exit status 1 where one of them needs attention."""
    jobs = [] if workflow.touch else workflow.dag.jobs
    needs_attention = BATCH.end((job.wildcards for job in jobs), failed=failed)
    if LEFT_OUT or (needs_attention and not failed):
        sys.exit(LEFT_OUT or 1)
