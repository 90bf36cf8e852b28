"""Spike Canary: sort a short window of each recording before the hours are spent."""

from snakemake.utils import min_version

min_version("9.14")


configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/resources.smk"
include: "rules/due.smk"
include: "rules/canary.smk"
include: "rules/sort.smk"
include: "rules/postprocess.smk"
include: "rules/report.smk"
include: "rules/plan.smk"


rule all:
    """Everything: one summary of all recordings."""
    default_target: True
    input:
        due_outputs,
    localrule: True
