"""Rule wave_summary: describe the recordings of one wave, one row each."""

import sys
from pathlib import Path
from typing import Any

from spikecanary import logs, summary


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and write the wave's rows."""
    logs.configure(snakemake.log[0], rule="wave_summary")
    metadata = snakemake.params.metadata
    path = Path(snakemake.output.table)
    table = summary.summarize(path.parents[1], list(metadata), metadata)
    summary.write_table(path, table)
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
