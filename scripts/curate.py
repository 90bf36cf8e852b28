"""Rule curate: label the units, by thresholds and classifiers."""

import logging
import sys
from pathlib import Path
from typing import Any

from spikecanary.config import CurationSettings
from spikecanary.outputs import OutputError, curation
from spikecanary.supervise import log

logger = logging.getLogger("spikecanary")


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and curate; exit status 1 where the settings do not fit."""
    log.refuse_again(snakemake.log[0], snakemake.resources.get("attempt", 1))
    log.configure(snakemake.log[0], rule="curate")
    units_path = Path(snakemake.output.units)
    try:
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
    except OutputError as err:
        logger.error("%s", err)  # noqa: TRY400 - one line; the traceback tells nothing more
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
