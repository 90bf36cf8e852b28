"""Rule figures: draw a recording and its units."""

from pathlib import Path
from typing import Any

from spikecanary.config import AnalysisSettings, CurationSettings
from spikecanary.outputs import figures
from spikecanary.sorter import SortTask
from spikecanary.supervise import log, processes


def main(snakemake: Any) -> None:
    """Unpack Snakemake's object and draw."""
    processes.exit_on_signals()
    log.configure(snakemake.log[0], snakemake.resources.get("attempt", 1), rule="figures")
    figures.run(
        SortTask.model_validate(snakemake.params.task),
        AnalysisSettings.model_validate(snakemake.params.analysis),
        CurationSettings.model_validate(snakemake.params.curation),
        Path(snakemake.output[0]).parent,
        n_pages=snakemake.params.unit_pages,
    )


if __name__ == "__main__":
    main(snakemake)  # noqa: F821 - Snakemake defines it
