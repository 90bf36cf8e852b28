"""Rules export_*: export the units of a sorting in the format of another tool."""

from pathlib import Path

from spikecanary.config import AnalysisSettings, ExportSettings
from spikecanary.outputs import exports
from spikecanary.sorter import SortTask
from spikecanary.supervise import log, processes
from spikecanary.table import Recording

if __name__ == "__main__":
    processes.exit_on_signals()
    (export,) = snakemake.params.version
    log.configure(snakemake.log[0], rule=f"export_{export}")
    settings = ExportSettings.model_validate(snakemake.params.get("settings", {}))
    if session := snakemake.wildcards.get("session"):
        sorted_ = [Path(path).parent for path in snakemake.input.curated]
        exports.run_session(
            session,
            [Recording.model_validate(row) for row in snakemake.params.rows],
            settings.nwb,
            folders={folder.name: folder for folder in sorted_},
            path=Path(snakemake.output[0]),
        )
    else:
        row, task = snakemake.params.get("row"), snakemake.params.get("task")
        exports.run(
            export,
            settings,
            Path(snakemake.input.analyzer).parent,
            row=None if row is None else Recording.model_validate(row),
            manual=snakemake.params.get("manual"),
            task=None if task is None else SortTask.model_validate(task),
            analyzed_with=AnalysisSettings.model_validate(snakemake.params.get("analysis", {})),
        )
