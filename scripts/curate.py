"""Rule curate: label the units, by thresholds and classifiers."""

from pathlib import Path

from spikecanary.config import CurationSettings
from spikecanary.outputs import curation
from spikecanary.supervise import log

if __name__ == "__main__":
    log.configure(snakemake.log[0], rule="curate")
    curation.run(
        CurationSettings.model_validate(snakemake.params.curation),
        Path(snakemake.output.units).parent,
        by_hand=snakemake.params.version,
    )
