"""Rule summary: put the tables of all waves together."""

from pathlib import Path

from spikecanary import summary
from spikecanary.supervise import log

if __name__ == "__main__":
    log.configure(snakemake.log[0], rule="summary")
    summary.write(Path(snakemake.output.table), summary.merge(map(Path, snakemake.input.waves)))
