"""The engine: functions that say what is asked for, wave by wave, behind the checkpoints."""

import functools
from pathlib import Path

from spikecanary import gate, node, outputs


def tested_in(wave):
    """Return the recordings of a wave whose sentinels its gate reads.

    A finished sort does without one that was removed: to have it made again would, to Snakemake, be
    an input that was updated, ancient() or not.
    """
    return [each for each in WAVES[wave] if not state_of(each).lacks_sentinel]


@functools.cache
def find_due(sorter):
    """Return the recordings of a sorter whose canaries are to run, and may stop for a machine."""
    if not SETTINGS.canary.window_s or "environment" not in SETTINGS.canary.stop_on:
        return []
    return [each for each in ROWS if sorter_of(each) == sorter and state_of(each).canary_is_due]


@functools.cache
def needs_trial(sorter):
    """Return whether this machine is to be tried with a sorter: many canaries of it are to run.

    What is forced is sorted whatever its canary says.
    """
    if DRY or workflow.touch or not workflow.local_exec:
        return False
    return len({*find_due(sorter)} - {*SETTINGS.canary.force}) >= node.LEAST_RECORDINGS


def await_node(wave):
    """Wait until this machine was tried with a wave's sorter, where it is to be.

    Behind a checkpoint: as an input of the canaries, a trial would have all of them run again.
    """
    sorter = sorter_of(WAVES[wave][0])
    if needs_trial(sorter):
        checkpoints.node.get(sorter=sorter)


def wave_sentinels(wildcards):
    """Return the sentinels of one wave."""
    check_options()
    await_node(wildcards.wave)
    return [f"<results>/{each}/canary.json" for each in tested_in(wildcards.wave)]


def split_wave(wave):
    """Return the recordings of a wave that are sorted, and those whose silence is drawn.

    A dry run cannot pass the checkpoint: it goes by the sentinels that stand, and counts what will
    be tested (again) as sorted.
    """
    if DRY:
        states = {each: state_of(each) for each in WAVES[wave]}
        passed = {each for each, state in states.items() if state.may_proceed}
        silent = {each for each, state in states.items() if state.is_silent}
    else:
        table = Path(checkpoints.gate.get(wave=wave).output.table)
        passed, silent = gate.split(table, [results_path(x, "canary.json") for x in WAVES[wave]])
    passed |= set(SETTINGS.canary.force)
    # A finished sort stands, whatever a later canary came to.
    passed |= {each for each in WAVES[wave] if state_of(each).sort_stands}
    return [each for each in WAVES[wave] if each in passed], sorted(silent - passed)


def results_of(wave, names):
    """Return the files of a wave's recordings: those names of each that is sorted, or a picture."""
    passed, silent = split_wave(wave)
    drawn = silent if "figures" in SETTINGS.outputs else []
    made = [f"<results>/{each}/{name}" for each in passed for name in names]
    made += [f"<results>/sessions/{one}.nwb" for one in SESSIONS if {*SESSIONS[one]} & {*passed}]
    return made + [f"<results>/{each}/{outputs.CANARY_FIGURE}" for each in drawn]


def all_results(wildcards):
    """Return all files by name that are missing, so that a removed one is made again.

    What stands, and what is new, is in the DAG by the tables of the waves: these too by name, since
    the summary of a run with errors is made without them.
    """
    check_options()
    names = [f"<results>/{kind}/{wave}.tsv" for kind in ("gates", "waves") for wave in WAVES]
    for wave in WAVES:
        if results_path("gates", f"{wave}.tsv").exists():
            await_node(wave)
            tested = [each for each in WAVES[wave] if not state_of(each).sort_stands]
            names += [f"<results>/{each}/canary.json" for each in tested]
            names += results_of(wave, outputs.all_files(SETTINGS.outputs))
    return [each for each in names if not results_path(each.removeprefix("<results>/")).exists()]


def finished_results(wildcards):
    """Return what finished sorts lack where a trial comes first: on a machine that fails it too."""
    due = [each for each in ROWS if needs_trial(sorter_of(each)) and state_of(each).sort_stands]
    names = [f"{each}/{name}" for each in due for name in outputs.all_files(SETTINGS.outputs)]
    return [f"<results>/{each}" for each in names if not results_path(each).exists()]


def all_sorts(wildcards):
    """Return the records of all full sorts."""
    check_options()
    passed = [each for wave in WAVES for each in split_wave(wave)[0]]
    return [f"<results>/{each}/{name}" for each in passed for name in ("sort.json", "sorting")]


@signed
def sort_sentinel(wildcards):
    """Return the sentinel, without its time where a finished sort stands.

    So a canary that runs again never invalidates a finished sort. Of a sort that is to run it is
    plain: Snakemake does not see a job's own changes while the job behind ancient() is to run.
    """
    path = f"<results>/{wildcards.recording}/canary.json"
    return ancient(path) if state_of(wildcards.recording).sort_stands else path
