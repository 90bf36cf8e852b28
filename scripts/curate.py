"""Rule curate: label the units, by thresholds and classifiers."""

from pathlib import Path
from typing import Any

from spikecanary.config import CurationSettings
from spikecanary.outputs import curation
from spikecanary.supervise import log


def main(snakemake: Any) -> None:
    """Unpack Snakemake's object and curate."""
    log.refuse_again(snakemake.log[0], snakemake.resources.get("attempt", 1))
    log.configure(snakemake.log[0], rule="curate")
    units_path = Path(snakemake.output.units)
    curation.run(
        CurationSettings.model_validate(snakemake.params.curation),
        sorting_path=Path(snakemake.input.sorting),
        record_path=Path(snakemake.input.record),
        metrics_path=Path(snakemake.input.metrics),
        analyzer_path=Path(snakemake.input.analyzer),
        units_path=units_path,
        curated_path=Path(snakemake.output.curated),
        phy_path=units_path.with_name("phy") if "phy" in snakemake.params.version else None,
    )


if __name__ == "__main__":
    main(snakemake)  # noqa: F821 - Snakemake defines it
