# REQUIRED INPUTS: <results>/{recording}/sorting, <results>/{recording}/sort.json
# OUTPUTS: <results>/{recording}/analyzer, metrics.tsv, units.tsv, curated, and what `outputs` names

OUTPUT_RESOURCES = {
    "mem_mb": BATCH.times_attempt(SETTINGS.job.output_mem_mb),
    "runtime": BATCH.times_attempt(batch.OUTPUT_MIN),
}


rule analyze:
    """Make a SortingAnalyzer of a sorting, and the metrics of its units."""
    input:
        sorting="<results>/{recording}/sorting",
        record="<results>/{recording}/sort.json",
    output:
        analyzer=directory("<results>/{recording}/analyzer"),
        metrics="<results>/{recording}/metrics.tsv",
    log:
        "<logs>/analyze/{recording}.log",
    benchmark:
        "<benchmarks>/analyze/{recording}.tsv"
    conda:
        "../envs/sorter.yaml"
    threads: min(2, SETTINGS.job.threads)
    resources:
        **OUTPUT_RESOURCES,
    params:
        version=BATCH.version("analyze", "spike_clusters.npy"),
        task=BATCH.setting("sort", "task"),
        analysis=as_set(SETTINGS.analysis),
    script:
        "../scripts/analyze.py"


rule curate:
    """Label the units, by thresholds and classifiers, and save the sorting that is left."""
    input:
        sorting="<results>/{recording}/sorting",
        record="<results>/{recording}/sort.json",
        analyzer="<results>/{recording}/analyzer",
        metrics="<results>/{recording}/metrics.tsv",
    output:
        units="<results>/{recording}/units.tsv",
        curated=directory("<results>/{recording}/curated"),
    log:
        "<logs>/curate/{recording}.log",
    conda:
        "../envs/sorter.yaml"
    resources:
        **OUTPUT_RESOURCES,
    params:
        version=BATCH.version("curate", "cluster_*.tsv"),
        curation=as_set(SETTINGS.curation, exclude={"manual"}),  # it is in the version
    script:
        "../scripts/curate.py"


rule export_npz:
    """Export the units for NumPy; the rules below, for other tools."""
    input:
        analyzer="<results>/{recording}/analyzer",
        units="<results>/{recording}/units.tsv",
        curated="<results>/{recording}/curated",
        record="<results>/{recording}/sort.json",
    output:
        "<results>/{recording}/spikes.npz",
    log:
        "<logs>/export_npz/{recording}.log",
    conda:
        "../envs/sorter.yaml"
    resources:
        **OUTPUT_RESOURCES,
    params:
        version={"npz": OUTPUT_VERSIONS["npz"]},
    script:
        "../scripts/export.py"


use rule export_npz as export_mat with:
    output:
        "<results>/{recording}/spikes.mat",
    log:
        "<logs>/export_mat/{recording}.log",
    params:
        version={"mat": OUTPUT_VERSIONS["mat"]},


use rule export_npz as export_nwb with:
    output:
        "<results>/{recording}/units.nwb",
    log:
        "<logs>/export_nwb/{recording}.log",
    params:
        version={"nwb": OUTPUT_VERSIONS["nwb"]},
        row=batch.signed(lambda wildcards: BATCH.state_of(wildcards.recording).named_row),
        settings={"nwb": as_set(SETTINGS.exports.nwb, exclude={"by"})},


use rule export_npz as export_session with:
    input:
        curated=lambda wildcards: in_results(BATCH.curated_of(wildcards.session)),
    output:
        "<results>/sessions/{session}.nwb",
    log:
        "<logs>/export_session/{session}.log",
    params:
        version={"session": OUTPUT_VERSIONS["nwb"]},
        rows=lambda wildcards: BATCH.named_rows(wildcards.session),
        settings={"nwb": as_set(SETTINGS.exports.nwb, exclude={"by"})},


use rule export_npz as export_phy with:
    input:
        analyzer="<results>/{recording}/analyzer",
        units="<results>/{recording}/units.tsv",
    output:
        # Of the folder's files none that people edit: Snakemake removes outputs before a job.
        "<results>/{recording}/phy/.exported",
    log:
        "<logs>/export_phy/{recording}.log",
    params:
        version={"phy": OUTPUT_VERSIONS["phy"]},
        task=BATCH.setting("sort", "task"),
        analysis=as_set(SETTINGS.analysis),
        settings={"phy": SETTINGS.exports.phy},
        # Not compared: it makes no difference to folders that nobody has edited.
        manual=lambda wildcards, threads: SETTINGS.curation.manual,


use rule export_phy as export_report with:
    output:
        directory("<results>/{recording}/report"),
    log:
        "<logs>/export_report/{recording}.log",
    params:
        version={"report": OUTPUT_VERSIONS["report"]},


rule canary_figure:
    """Draw the window for which a recording was stopped; the rule below, a recording and its units."""
    input:
        sentinel="<results>/{recording}/canary.json",
    output:
        report(
            "<results>/{recording}/canary.png",
            caption="../scripts/spikecanary/captions.rst",
            category="Stopped",
            labels={"recording": "{recording}"},
        ),
    log:
        "<logs>/canary_figure/{recording}.log",
    conda:
        "../envs/sorter.yaml"
    resources:
        **OUTPUT_RESOURCES,
    params:
        version={"canary_figure": OUTPUT_VERSIONS["canary_figure"]},
        task=BATCH.setting("sort", "task"),
        analysis=as_set(SETTINGS.analysis),
    script:
        "../scripts/figures.py"


use rule canary_figure as figures with:
    input:
        analyzer="<results>/{recording}/analyzer",
        units="<results>/{recording}/units.tsv",
    output:
        report(
            directory("<results>/{recording}/figures"),
            patterns=["{name,[^/]+}.png"],
            caption="../scripts/spikecanary/captions.rst",
            category="Recordings",
            subcategory="{recording}",
            labels={"figure": "{name}"},
        ),
    log:
        "<logs>/figures/{recording}.log",
    params:
        version={"figures": OUTPUT_VERSIONS["figures"]},
        curation=as_set(SETTINGS.curation, exclude={"manual"}),
        unit_pages=SETTINGS.exports.unit_pages,
