# REQUIRED INPUTS: <results>/{recording}/canary.json, the recording
# OUTPUTS: <results>/{recording}/sorting, <results>/{recording}/sort.json


rule sort:
    """Sort one whole recording, if its sentinel lets it."""
    input:
        # A canary that runs again never invalidates a finished sort.
        sentinel=ancient("<results>/{recording}/canary.json"),
        recording=recording_files,
        plugin=sorter_plugin,
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
        mem_mb=SETTINGS.job.mem_mb,
        runtime=SETTINGS.job.sort_runtime_min,
        gpu=job_gpus,
    params:
        source=recording_source,
        sorter=sorter_settings,
        preprocessing=SETTINGS.preprocessing,
        forced=is_forced,
        code=SORT_CODE,
    script:
        "../scripts/sort.py"
