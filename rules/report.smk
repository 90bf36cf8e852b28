# REQUIRED INPUTS: <results>/gates/{wave}.tsv, <results>/{recording}/sort.json and outputs
# OUTPUTS: <results>/waves/{wave}.tsv, <results>/summary.tsv, <results>/report.html


rule wave_summary:
    """Describe the recordings of one wave, one row each."""
    input:
        gate="<results>/gates/{wave}.tsv",
        # A gate that comes to the same table is, to Snakemake, no change.
        sentinels=wave_sentinels,
        # What is made last; what it is made of comes by itself.
        results=lambda wildcards: in_results(
            BATCH.results_of(wildcards.wave, outputs.last(SETTINGS.outputs))
        ),
    output:
        table="<results>/waves/{wave}.tsv",
    log:
        "<logs>/wave_summary/{wave}.log",
    localrule: True
    conda:
        "../envs/light.yaml"
    params:
        version={"summary": OUTPUT_VERSIONS["summary"]},
        digest=lambda wildcards: digest(rows=of_batch(wildcards, None)["rows"]),
        # It has the rows, and is not compared: Snakemake prints what it compares.
        batch=of_batch,
    script:
        "../scripts/wave_summary.py"


rule summary:
    """Put the tables of all waves together."""
    input:
        waves=[f"<results>/waves/{wave}.tsv" for wave in BATCH.waves],
        errors=in_results(BATCH.errors),
    output:
        table=report("<results>/summary.tsv", caption="captions/summary.rst", category="Batch"),
    log:
        "<logs>/summary.log",
    localrule: True
    conda:
        "../envs/light.yaml"
    script:
        "../scripts/summary.py"


rule report:
    """Write one page for people: totals, reasons, a table, figures."""
    input:
        table="<results>/summary.tsv",
    output:
        page=report("<results>/report.html", caption="captions/report.rst", category="Batch"),
    log:
        "<logs>/report.log",
    localrule: True
    conda:
        "../envs/light.yaml"
    params:
        version={"page": OUTPUT_VERSIONS["page"]},
        digest=digest(config=as_set(SETTINGS)),
        config=lambda wildcards, threads: as_set(SETTINGS),
    script:
        "../scripts/report.py"


rule check_records:
    """Fail where records still disagree with the settings, after all else is done.

    Asked for while they do: Snakemake runs jobs again by its own memory (.snakemake), and where
    that was lost nothing would run, without a word. Also where a recording needs attention of
    which nothing runs: the hooks, which say so, run only where something does.
    """
    input:
        [f"<results>/waves/{wave}.tsv" for wave in BATCH.waves],
        *ALL_RESULTS,
    output:
        checked=temp("<results>/.checked"),
    log:
        "<logs>/check_records.log",
    retries: 0
    localrule: True
    conda:
        "../envs/light.yaml"
    params:
        disagreeing=lambda wildcards: BATCH.disagreeing,
    script:
        "../scripts/check_records.py"


rule plan:
    """Plan the batch from the recordings' headers; a target of its own, runs nothing else."""
    log:
        "<logs>/plan.log",
    localrule: True
    conda:
        "../envs/sorter.yaml"
    threads: workflow.resource_settings.cores or SETTINGS.job.threads
    params:
        config=as_set(SETTINGS),
        rows=lambda wildcards: check_options()
        or [row.model_dump(mode="json") for row in RECORDINGS],
        results=str(RESULTS),
    script:
        "../scripts/plan.py"


onsuccess:
    end_of_run(failed=False)


onerror:
    end_of_run(failed=True)
