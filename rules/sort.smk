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
        mem_mb=unless_dry(sort_mem_mb, SETTINGS.job.mem_mb),
        disk_mb=unless_dry(sort_disk_mb, SETTINGS.forecast.min_disk_mb),
        runtime=unless_dry(sort_runtime, SETTINGS.job.sort_runtime_min),
        gpu=unless_dry(sort_gpus, count_gpus()),
        attempt=unless_dry(count_attempt, 1),
    params:
        given=sort_params,
    script:
        "../scripts/sort.py"
