# REQUIRED INPUTS: none; a target of its own: `snakemake plan`
# OUTPUTS: <results>/plan.tsv, new each time, so no output that could be up to date


rule plan:
    """Plan the batch from the recordings' headers; runs no canary and no sort."""
    log:
        "<logs>/plan.log",
    localrule: True
    conda:
        "../envs/sorter.yaml"
    threads: SETTINGS.job.threads
    params:
        config=SETTINGS.model_dump(mode="json"),
        rows=[row.model_dump(mode="json") for row in RECORDINGS],
        results=str(results_path()),
    script:
        "../scripts/plan.py"
