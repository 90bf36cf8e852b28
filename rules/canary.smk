# REQUIRED INPUTS: none; the recordings of the table are parameters (docs/internals.md)
# OUTPUTS: <results>/{recording}/canary.json, <results>/gates/{wave}.tsv


wildcard_constraints:
    recording=ID_PATTERN,
    # Of others Snakemake says that no rule makes them.
    sorter="|".join(map(re.escape, {BATCH.sorter_of(each) for each in BATCH.rows})) or "0",
    wave="|".join(map(re.escape, BATCH.waves)) or "0",
    session="|".join(map(re.escape, BATCH.sessions)) or "0",


CANARY_REQUEST = BATCH.default_request(SETTINGS.job.canary_runtime_min)


rule canary:
    """Sort a short window of one recording and write the verdict."""
    output:
        sentinel="<results>/{recording}/canary.json",
    log:
        "<logs>/canary/{recording}.log",
    benchmark:
        "<benchmarks>/canary/{recording}.tsv"
    # Verdicts first: what can be found out is known before the hours begin.
    priority: 2
    # A canary whose job is killed must not cost its wave: the last attempt does not sort.
    retries: 1
    conda:
        "../envs/sorter.yaml"
    threads: SETTINGS.job.threads
    resources:
        **BATCH.attempt,
        mem_mb=CANARY_REQUEST["mem_mb"],
        runtime=CANARY_REQUEST["runtime"],
        gpu=batch.signed(
            lambda wildcards: forecast.count_gpus(SETTINGS, BATCH.sorter_of(wildcards.recording))
        ),
    params:
        task=BATCH.setting("canary", "task"),
        data=BATCH.setting("canary", "data"),
        settings=BATCH.setting("canary", "settings"),
        attempt=BATCH.setting("canary", "attempt"),
        batch=of_batch,
    script:
        "../scripts/canary.py"


checkpoint node:
    """Try a sorter on this machine, before the canaries that need it."""
    output:
        record="<results>/.nodes/{sorter}.json",
    log:
        "<logs>/node/{sorter}.log",
    # Canaries wait for it, and sorts for them.
    priority: 3
    retries: 0
    localrule: True
    conda:
        "../envs/sorter.yaml"
    threads: SETTINGS.job.threads
    resources:
        mem_mb=CANARY_REQUEST["mem_mb"],
        runtime=CANARY_REQUEST["runtime"],
        gpu=lambda wildcards: forecast.count_gpus(SETTINGS, wildcards.sorter),
    params:
        kind=lambda wildcards: node.describe_kind(wildcards.sorter, SETTINGS),
        limits=lambda wildcards, threads: limits_of(SETTINGS),
        waiting=lambda wildcards, threads: sorted(BATCH.find_waiting(wildcards.sorter)),
    script:
        "../scripts/node.py"


checkpoint gate:
    """Read the verdicts of one wave; only those that proceed are sorted."""
    input:
        sentinels=wave_sentinels,
    output:
        table="<results>/gates/{wave}.tsv",
    log:
        "<logs>/gate/{wave}.log",
    priority: 1
    localrule: True
    conda:
        "../envs/light.yaml"
    params:
        batch=of_batch,
    script:
        "../scripts/gate.py"
