"""The engine: what is asked for, wave by wave, behind the checkpoints (spikecanary.batch)."""

from pathlib import Path


def await_node(wave):
    """Wait until this machine was tried with a wave's sorter, where its canaries are to run.

    Behind a checkpoint: as an input of the canaries, a trial would have all of them run again.
    """
    if sorter := BATCH.find_trial(wave):
        CHECKPOINTS.node.get(sorter=sorter)


def gate_of(wave):
    """Return the table of a wave's gate, behind it."""
    await_node(wave)  # a gate that stands would let through what it has not read yet
    return Path(CHECKPOINTS.gate.get(wave=wave).output.table)


BATCH.gate_of = gate_of


def in_results(names):
    """Return paths below the results folder as Snakemake is asked for them."""
    return [f"<results>/{name}" for name in names]


def wave_sentinels(wildcards):
    """Return the sentinels of one wave."""
    check_options()
    await_node(wildcards.wave)
    return in_results(BATCH.sentinels(wildcards.wave))


#: Each by itself: a machine that cannot run one sorter holds back no other's results.
ALL_RESULTS = [
    lambda wildcards, wave=wave: in_results(BATCH.missing_of(wave)) for wave in BATCH.waves
]


def finished_results(wildcards):
    """Return what finished sorts lack where a trial comes first: on a machine that fails it too."""
    check_options()
    return in_results(BATCH.missing_of_sorted())


@batch.signed
def sort_sentinel(wildcards):
    """Return the sentinel, without its time where a finished sort stands.

    So a canary that runs again never invalidates a finished sort. Of a sort that is to run it is
    plain: Snakemake does not see a job's own changes while the job behind ancient() is to run.
    """
    recording = wildcards.recording
    path = f"<results>/{recording}/canary.json"
    if not BATCH.state_of(recording).sort_stands:
        return path
    if not forces("sort", recording, ("sorting", "sort.json")):
        return ancient(path)
    is_tested = forces("canary", recording, ("canary.json",))
    if stopped := BATCH.describe_stopped_sort(recording, is_tested=is_tested):
        logger.error(stopped)
        sys.exit(1)
    return path
