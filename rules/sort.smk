# REQUIRED INPUTS: <results>/{recording}/canary.json, the recording
# OUTPUTS: <results>/{recording}/sorting, <results>/{recording}/sort.json


rule sort:
    """Sort one whole recording, if its sentinel lets it."""
    input:
        sentinel=sort_sentinel,
        recording=recording_files,
    output:
        sorting=directory("<results>/{recording}/sorting"),
        record="<results>/{recording}/sort.json",
    log:
        "<logs>/sort/{recording}.log",
    benchmark:
        "<benchmarks>/sort/{recording}.tsv"
    conda:
        "../envs/sorter.yaml"
    threads: SETTINGS.job.threads
    resources:
        mem_mb=job_mem_mb,
        runtime=sort_runtime,
        gpu=job_gpus,
    params:
        task=task_params,
        settings=sort_settings,
    script:
        "../scripts/sort.py"
