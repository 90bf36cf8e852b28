"""Rule analyze: make a SortingAnalyzer of a sorting, and the metrics of its units."""

from pathlib import Path

from spikecanary.config import AnalysisSettings
from spikecanary.outputs import analysis
from spikecanary.sorter import SortTask
from spikecanary.supervise import log, processes

if __name__ == "__main__":
    processes.exit_on_signals()
    log.configure(snakemake.log[0], rule="analyze", threads=snakemake.threads)
    analysis.run(
        SortTask.model_validate(snakemake.params.task | {"n_jobs": snakemake.threads}),
        AnalysisSettings.model_validate(snakemake.params.analysis),
        Path(snakemake.output.analyzer).parent,
        by_hand=snakemake.params.version,
    )
