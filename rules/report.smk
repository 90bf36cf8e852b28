# REQUIRED INPUTS: <results>/gates/{wave}.tsv, <results>/{recording}/sort.json and outputs
# OUTPUTS: <results>/waves/{wave}.tsv, <results>/summary.tsv, <results>/report.html


rule wave_summary:
    """Describe the recordings of one wave, one row each."""
    input:
        gate="<results>/gates/{wave}.tsv",
        sentinels=wave_sentinels,
        results=wave_results,
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
        outputs=SETTINGS.outputs,
        made_by=reruns.outputs_digest(SETTINGS),
    script:
        "../scripts/wave_summary.py"


rule summary:
    """Describe all recordings, those of this run's waves and those that were settled before."""
    input:
        waves=wave_tables,
        settled=newly_settled,
    output:
        table=report(
            "<results>/summary.tsv", caption="captions/summary.rst", category="Batch"
        ),
    log:
        "<logs>/summary.log",
    localrule: True
    conda:
        "../envs/light.yaml"
    params:
        metadata=METADATA,
    script:
        "../scripts/summary.py"


rule report:
    """Write one page for people: totals, reasons, a table, figures."""
    input:
        table="<results>/summary.tsv",
        template=PAGE,
    output:
        page=report(
            "<results>/report.html", caption="captions/report.rst", category="Batch"
        ),
    log:
        "<logs>/report.log",
    localrule: True
    conda:
        "../envs/light.yaml"
    params:
        config=SETTINGS.model_dump(mode="json"),
        code=reruns.code_digest("report"),
    script:
        "../scripts/report.py"


onstart:
    if not only_plans():
        try:
            hooks.begin_run(results_path(), ROWS, LEFT)
        except (ConcurrentSortError, OSError) as err:
            raise WorkflowError(f"{results_path()}: {err}") from None


onsuccess:
    if hooks.has_begun():
        hooks.end_of_run(results_path(), ROWS, write_page, write=bool(LEFT))
        if LEFT:
            raise WorkflowError(hooks.say_left(LEFT))


onerror:
    if hooks.has_begun():
        hooks.end_of_run(results_path(), ROWS, write_page, write=True)
