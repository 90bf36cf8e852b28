"""Checkpoint gate: read the verdicts of one wave."""

import sys
from pathlib import Path
from typing import Any

from spikecanary import gate
from spikecanary.supervise import log
from spikecanary.table import write_tsv


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and write the gate's table."""
    log.configure(snakemake.log[0], rule="gate")
    rows = gate.read_wave(Path(path) for path in snakemake.input.sentinels)
    write_tsv(Path(snakemake.output.table), gate.COLUMNS, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
