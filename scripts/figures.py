"""Rules figures and canary_figure: draw a recording and its units, or why it was stopped."""

from pathlib import Path

from spikecanary.config import AnalysisSettings, CurationSettings
from spikecanary.outputs import figures
from spikecanary.sorter import SortTask
from spikecanary.supervise import log, processes

if __name__ == "__main__":
    processes.exit_on_signals()
    params = snakemake.params
    (drawn,) = params.version
    log.configure(snakemake.log[0], rule=drawn)
    path = Path(snakemake.output[0])
    task = SortTask.model_validate(params.task)
    analysis = AnalysisSettings.model_validate(params.analysis)
    if drawn == "canary_figure":
        figures.draw_canary(task, analysis, Path(snakemake.input.sentinel), path)
    else:
        curation = CurationSettings.model_validate(params.curation)
        figures.run(task, analysis, curation, path.parent, n_pages=params.unit_pages)
