"""Rules figures and canary_figure: draw a recording and its units, or why it was stopped."""

from pathlib import Path
from typing import Any

from spikecanary.config import AnalysisSettings, CurationSettings
from spikecanary.outputs import figures
from spikecanary.sorter import SortTask
from spikecanary.supervise import log, processes


def main(snakemake: Any) -> None:
    """Unpack Snakemake's object and draw."""
    processes.exit_on_signals()
    params = snakemake.params
    (drawn,) = params.version
    log.configure(snakemake.log[0], rule=drawn)
    path = Path(snakemake.output[0])
    task = SortTask.model_validate(params.task)
    analysis = AnalysisSettings.model_validate(params.analysis)
    if drawn == "canary_figure":
        figures.draw_canary(task, analysis, Path(snakemake.input.sentinel), path)
        return
    curation = CurationSettings.model_validate(params.curation)
    figures.run(task, analysis, curation, path.parent, n_pages=params.unit_pages)


if __name__ == "__main__":
    main(snakemake)  # noqa: F821 - Snakemake defines it
