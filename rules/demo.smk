# REQUIRED INPUTS: none
# OUTPUTS: recordings/ and truth/ below the working directory; a workflow of its own


rule demo_recordings:
    """Write the demo's recordings, seeded, with their ground truth."""
    output:
        recordings=directory("recordings"),
        truth=directory("truth"),
    log:
        "<logs>/demo_recordings.log",
    conda:
        "../envs/sorter.yaml"
    script:
        "../scripts/demo_recordings.py"
