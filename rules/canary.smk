# REQUIRED INPUTS: the recordings of the table, as far as they exist
# OUTPUTS: <results>/{recording}/canary.json, <results>/gates/{wave}.tsv


wildcard_constraints:
    recording=recordings.ID_PATTERN,
    wave=r"\d+",


rule canary:
    """Sort a short window of one recording and write the verdict."""
    input:
        recording=recording_files,
    output:
        sentinel="<results>/{recording}/canary.json",
    log:
        "<logs>/canary/{recording}.log",
    benchmark:
        "<benchmarks>/canary/{recording}.tsv"
    conda:
        "../envs/sorter.yaml"
    threads: SETTINGS.job.threads
    resources:
        mem_mb=unless_dry(canary_mem_mb, SETTINGS.job.mem_mb),
        runtime=unless_dry(canary_runtime, SETTINGS.job.canary_runtime_min),
        gpu=count_gpus(),
    params:
        given=canary_params,
    script:
        "../scripts/canary.py"


checkpoint gate:
    """Read the verdicts of one wave; only those that proceed are sorted."""
    input:
        sentinels=wave_sentinels,
    output:
        table="<results>/gates/{wave}.tsv",
    log:
        "<logs>/gate/{wave}.log",
    localrule: True
    conda:
        "../envs/light.yaml"
    script:
        "../scripts/gate.py"
