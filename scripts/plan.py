"""Rule plan: write what a batch will run and take, and print it short."""

import sys
from pathlib import Path

from spikecanary import inputcheck, plan
from spikecanary.config import Config
from spikecanary.supervise import log
from spikecanary.table import Recording
from spikecanary.table.tsv import write_tsv
from spikecanary.texts import PlainError

if __name__ == "__main__":
    log.configure(snakemake.log[0], rule="plan", threads=snakemake.threads)
    if not inputcheck.has_spikeinterface():
        msg = "a plan reads headers: it needs SpikeInterface here. Install it, or add --sdm conda"
        raise PlainError(msg)
    results = Path(snakemake.params.results)
    rows = [Recording.model_validate(row) for row in snakemake.params.rows]
    config = Config.model_validate(snakemake.params.config)
    table = plan.make(config, rows, results, snakemake.threads)
    path = results / "plan.tsv"
    write_tsv(path, table.columns, table.astype(object).to_dict("records"))
    sys.stdout.write(f"\n{plan.describe(table)}\nPlan: {path}\n")
