"""Rule report: write one page of the batch for people."""

from pathlib import Path

from spikecanary import report
from spikecanary.config import Config
from spikecanary.supervise import log

if __name__ == "__main__":
    log.configure(snakemake.log[0], rule="report")
    report.write(
        Path(snakemake.output.page),
        Config.model_validate(snakemake.params.config),
        Path(snakemake.input.table).parent,
    )
