"""Spike Canary: sort a short window of each recording before the hours are spent."""

from snakemake.utils import min_version

min_version("9.17.1")


include: "rules/config.smk"


configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/engine.smk"
include: "rules/canary.smk"
include: "rules/sort.smk"
include: "rules/outputs.smk"
include: "rules/report.smk"


rule all:
    """Everything: all results by name, one summary and one report of all recordings."""
    default_target: True
    input:
        "<results>/report.html",
        "<results>/summary.tsv",
        *ALL_RESULTS,
        finished_results,
        # Where something needs attention though nothing may run.
        lambda wildcards: ["<results>/.checked"] if BATCH.needs_check else [],
    localrule: True
