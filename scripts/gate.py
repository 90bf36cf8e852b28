"""Checkpoint gate: read the verdicts of one wave."""

from pathlib import Path

from spikecanary import gate, screen
from spikecanary.supervise import log
from spikecanary.table.tsv import write_tsv

if __name__ == "__main__":
    log.configure(snakemake.log[0], rule="gate")
    rows = gate.read_wave(Path(path) for path in snakemake.input.sentinels)
    table, batch = Path(snakemake.output.table), snakemake.params.batch
    write_tsv(table, gate.COLUMNS, rows)
    if batch["remote"]:  # else each canary has printed its own
        screen.print_lines("canary", table.parents[1], batch)
    screen.print_gate(table, batch)
