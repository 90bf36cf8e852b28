"""Rule wave_summary: describe the recordings of one wave, one row each."""

from pathlib import Path
from typing import Any

from spikecanary import screen, summary
from spikecanary.supervise import log


def main(snakemake: Any) -> None:
    """Unpack Snakemake's object and write the wave's rows."""
    log.configure(snakemake.log[0], rule="wave_summary")
    path, batch = Path(snakemake.output.table), snakemake.params.batch
    summary.write(path, summary.describe(path.parents[1], batch["rows"]))
    if batch["remote"]:
        screen.print_lines("sort", path.parents[1], batch)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821 - Snakemake defines it
