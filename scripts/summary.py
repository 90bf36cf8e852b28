"""Rule summary: put the waves' rows together."""

import sys
from pathlib import Path
from typing import Any

from spikecanary import logs, summary


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and write the summary."""
    logs.configure(snakemake.log[0], rule="summary")
    table = summary.join_waves(Path(path) for path in snakemake.input.waves)
    summary.write_table(Path(snakemake.output.table), table)
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
