"""Rule summary: put the tables of all waves together."""

from pathlib import Path
from typing import Any

from spikecanary import summary
from spikecanary.supervise import log


def main(snakemake: Any) -> None:
    """Unpack Snakemake's object and write the summary."""
    log.configure(snakemake.log[0], rule="summary")
    summary.write(Path(snakemake.output.table), summary.merge(map(Path, snakemake.input.waves)))


if __name__ == "__main__":
    main(snakemake)  # noqa: F821 - Snakemake defines it
