# REQUIRED INPUTS: <results>/gates/{wave}.tsv, <results>/{recording}/sort.json
# OUTPUTS: <results>/waves/{wave}.tsv, <results>/summary.tsv


rule wave_summary:
    """Describe the recordings of one wave, one row each."""
    input:
        gate="<results>/gates/{wave}.tsv",
        sentinels=wave_sentinels,
        sorts=wave_sorts,
    output:
        table="<results>/waves/{wave}.tsv",
    log:
        "<logs>/wave_summary/{wave}.log",
    localrule: True
    conda:
        "../envs/light.yaml"
    params:
        metadata=lambda wildcards: {
            member: METADATA[member] for member in find_waves()[wildcards.wave]
        },
    script:
        "../scripts/wave_summary.py"


rule summary:
    """Describe all recordings, those of this run's waves and those that were settled before."""
    input:
        waves=wave_tables,
        settled=newly_settled,
    output:
        table="<results>/summary.tsv",
    log:
        "<logs>/summary.log",
    localrule: True
    conda:
        "../envs/light.yaml"
    params:
        metadata=METADATA,
    script:
        "../scripts/summary.py"


onstart:
    if not only_plans():
        try:
            hooks.begin_run(results_path(), ROWS, LEFT)
        except (ConcurrentSortError, OSError) as err:
            raise WorkflowError(f"{results_path()}: {err}") from None


onsuccess:
    if hooks.has_begun():
        hooks.end_of_run(results_path(), ROWS, write=bool(LEFT))
        if LEFT:
            raise WorkflowError(hooks.say_left(LEFT))


onerror:
    if hooks.has_begun():
        hooks.end_of_run(results_path(), ROWS, write=True)
