"""Checkpoint gate: read the verdicts of one wave."""

import sys
from pathlib import Path
from typing import Any

from spikecanary import gate, logs, summary


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and write the gate's table."""
    logs.configure(snakemake.log[0], rule="gate")
    table = gate.read_wave(Path(path) for path in snakemake.input.sentinels)
    summary.write_table(Path(snakemake.output.table), table)
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
