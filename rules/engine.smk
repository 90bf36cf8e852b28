"""The engine: functions that say what is asked for, wave by wave, behind the checkpoints."""

import functools
from pathlib import Path

from spikecanary import gate, node, outputs


@functools.cache
def find_waiting(sorter):
    """Return the recordings whose canaries wait until this machine was tried with a sorter.

    None where few canaries of it are to run, or none may stop for a machine. What is forced is
    sorted whatever its canary says.
    """
    if DRY or workflow.touch or not workflow.local_exec:
        return set()
    if not SETTINGS.canary.window_s or "environment" not in SETTINGS.canary.stop_on:
        return set()
    due = {each for each in ROWS if sorter_of(each) == sorter and state_of(each).canary_is_due}
    due -= {*SETTINGS.canary.force}
    return due if len(due) >= node.LEAST_RECORDINGS else set()


def await_node(wave):
    """Wait until this machine was tried with a wave's sorter, where its canaries are to run.

    Behind a checkpoint: as an input of the canaries, a trial would have all of them run again.
    """
    sorter = sorter_of(WAVES[wave][0])
    if not find_waiting(sorter).isdisjoint(WAVES[wave]):
        checkpoints.node.get(sorter=sorter)


def tested_in(wave):
    """Return the recordings of a wave whose sentinels its gate reads.

    A finished sort does without one that was removed: to have it made again would, to Snakemake, be
    an input that was updated, ancient() or not.
    """
    return [each for each in WAVES[wave] if not state_of(each).lacks_sentinel]


def wave_sentinels(wildcards):
    """Return the sentinels of one wave."""
    check_options()
    await_node(wildcards.wave)
    return [f"<results>/{each}/canary.json" for each in tested_in(wildcards.wave)]


def split_wave(wave):
    """Return the recordings of a wave that are sorted, and those whose silence is drawn.

    A dry run cannot pass the checkpoint: it goes by the sentinels that stand, and counts what will
    be tested (again) as sorted. A real run goes by the gate's table, not by the sentinels: one that
    is away, to be made again, passed while the table stands.
    """
    states = {each: state_of(each) for each in WAVES[wave]}
    if DRY:
        passed = {each for each, state in states.items() if state.may_proceed}
        silent = {each for each, state in states.items() if state.is_silent}
    else:
        # A gate that stands would let through what it has not read yet.
        await_node(wave)
        table = Path(checkpoints.gate.get(wave=wave).output.table)
        passed, silent = gate.split(table, [RESULTS / x / "canary.json" for x in states])
    # A finished sort stands, whatever a later canary came to.
    passed |= {each for each, state in states.items() if state.sort_stands}
    passed |= {*SETTINGS.canary.force}
    return [each for each in states if each in passed], sorted(silent - passed)


def results_of(wave, names):
    """Return the files of a wave's recordings: those names of each that is sorted, or a picture."""
    passed, silent = split_wave(wave)
    drawn = silent if "figures" in SETTINGS.outputs else []
    made = [f"{each}/{name}" for each in passed for name in names]
    made += [f"sessions/{one}.nwb" for one in SESSIONS if {*SESSIONS[one]} & {*passed}]
    return made + [f"{each}/{outputs.CANARY_FIGURE}" for each in drawn]


def results_in(wave):
    """Return a wave's files by name that are missing, so that a removed one is made again.

    What stands, and what is new, is in the DAG by the tables of the waves: these too by name, since
    the summary of a run with errors is made without them.
    """
    names = [f"{kind}/{wave}.tsv" for kind in ("gates", "waves")]
    if (RESULTS / "gates" / f"{wave}.tsv").exists():
        tested = [each for each in WAVES[wave] if not state_of(each).sort_stands]
        names += [f"{each}/canary.json" for each in tested]
        names += results_of(wave, outputs.all_files(SETTINGS.outputs))
    return [f"<results>/{each}" for each in names if not (RESULTS / each).exists()]


#: Each by itself: a machine that cannot run one sorter holds back no other's results.
ALL_RESULTS = [lambda wildcards, wave=wave: results_in(wave) for wave in WAVES]


def finished_results(wildcards):
    """Return what finished sorts lack where a trial comes first: on a machine that fails it too."""
    check_options()
    due = [each for each in ROWS if find_waiting(sorter_of(each)) and state_of(each).sort_stands]
    names = [f"{each}/{name}" for each in due for name in outputs.all_files(SETTINGS.outputs)]
    return [f"<results>/{each}" for each in names if not (RESULTS / each).exists()]


def sorts_of(wave):
    """Return the full sorts of a wave, and the sentinels of what is not sorted."""
    passed, _ = split_wave(wave)
    names = [f"{each}/canary.json" for each in WAVES[wave] if not state_of(each).sort_stands]
    names += [f"{each}/{name}" for each in passed for name in ("sort.json", "sorting")]
    return [f"<results>/{each}" for each in names]


@functools.cache
def warn_of_disagreement():
    """Say what disagrees where nothing asks for the check: for an importer's targets, and sorted."""
    if text := compare(RESULTS, **find_disagreeing()):
        logger.warning(f"Unless these run again by themselves: {text}")


@functools.cache
def find_disagreeing():
    """Return what disagrees with the settings of now: records, and tables of waves."""
    expected = {each: state_of(each).expected for each in ROWS if state_of(each).disagreement}
    named = {f"waves/{wave}.tsv": WAVES[wave] for wave in WAVES}
    named |= {f"gates/{wave}.tsv": tested_in(wave) for wave in WAVES}
    return {"expected": expected, "tables": gate.find_stale(RESULTS, named)}


def due_check(wildcards):
    """Return the check of the records, where something needs attention though nothing may run."""
    doubtful = any(state_of(each).is_doubtful for each in ROWS)
    is_due = LEFT_OUT or doubtful or any(find_disagreeing().values())
    return ["<results>/.checked"] if is_due else []


@signed
def sort_sentinel(wildcards):
    """Return the sentinel, without its time where a finished sort stands.

    So a canary that runs again never invalidates a finished sort. Of a sort that is to run it is
    plain: Snakemake does not see a job's own changes while the job behind ancient() is to run.
    """
    path = f"<results>/{wildcards.recording}/canary.json"
    return ancient(path) if state_of(wildcards.recording).sort_stands else path
