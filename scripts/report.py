"""Rule report: write one page of the batch for people."""

from pathlib import Path
from typing import Any

from spikecanary import report
from spikecanary.config import Config
from spikecanary.supervise import log


def main(snakemake: Any) -> None:
    """Unpack Snakemake's object and write the page."""
    log.configure(snakemake.log[0], rule="report")
    report.write(
        Path(snakemake.output.page),
        Config.model_validate(snakemake.params.config),
        Path(snakemake.input.table).parent,
    )


if __name__ == "__main__":
    main(snakemake)  # noqa: F821 - Snakemake defines it
