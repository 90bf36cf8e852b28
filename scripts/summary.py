"""Rule summary: describe all recordings, one row each."""

import sys
from pathlib import Path
from typing import Any

from spikecanary import logs, summary


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and write the summary."""
    logs.configure(snakemake.log[0], rule="summary")
    metadata = snakemake.params.metadata
    path = Path(snakemake.output.table)
    summary.write(path, summary.describe(path.parent, list(metadata), metadata))
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
