"""Rule canary_figure: draw the window for which a recording was stopped."""

from pathlib import Path
from typing import Any

from spikecanary.config import AnalysisSettings
from spikecanary.outputs import figures
from spikecanary.sorter import SortTask
from spikecanary.supervise import log, processes


def main(snakemake: Any) -> None:
    """Unpack Snakemake's object and draw."""
    processes.exit_on_signals()
    log.configure(snakemake.log[0], snakemake.resources.get("attempt", 1), rule="canary_figure")
    figures.draw_canary(
        SortTask.model_validate(snakemake.params.task),
        AnalysisSettings.model_validate(snakemake.params.analysis),
        Path(snakemake.input.sentinel),
        Path(snakemake.output[0]),
    )


if __name__ == "__main__":
    main(snakemake)  # noqa: F821 - Snakemake defines it
