# REQUIRED INPUTS: <results>/{recording}/canary.json
# OUTPUTS: <results>/{recording}/sorting, <results>/{recording}/sort.json


rule sort:
    """Sort one whole recording, if its sentinel lets it."""
    input:
        sentinel=sort_sentinel,
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
        **BATCH.attempt,
        mem_mb=BATCH.sort_request("mem_mb"),
        disk_mb=BATCH.sort_request("disk_mb"),
        runtime=BATCH.sort_request("runtime"),
        gpu=BATCH.sort_request("gpu"),
    params:
        version={"sort": SORT_VERSION},
        task=BATCH.setting("sort", "task"),
        data=BATCH.setting("sort", "data"),
        batch=of_batch,
    script:
        "../scripts/sort.py"


rule sorted:
    """A target: every recording that may be is sorted, and nothing is made of it."""
    input:
        lambda wildcards: check_options() or warn_of_disagreement() or [],
        # Each by itself: a machine that cannot run one sorter holds back no other's sorts.
        [lambda wildcards, wave=wave: in_results(BATCH.sorts_of(wave)) for wave in BATCH.waves],
    localrule: True
