"""Rule wave_summary: describe the recordings of one wave, one row each."""

from pathlib import Path

from spikecanary import screen, summary
from spikecanary.supervise import log

if __name__ == "__main__":
    log.configure(snakemake.log[0], rule="wave_summary")
    path, batch = Path(snakemake.output.table), snakemake.params.batch
    summary.write(path, summary.describe(path.parents[1], batch["rows"]))
    if batch["remote"]:
        screen.print_lines("sort", path.parents[1], batch)
