"""Rules export_*: export the units of a sorting in the format of another tool."""

import logging
import sys
from pathlib import Path
from typing import Any

from spikecanary.config import AnalysisSettings, ExportSettings
from spikecanary.outputs import OutputError, exports
from spikecanary.sorter import SortTask
from spikecanary.supervise import log, processes
from spikecanary.table import Recording

logger = logging.getLogger("spikecanary")


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and export."""
    processes.exit_on_signals()
    (export,) = snakemake.params.version
    log.refuse_again(snakemake.log[0], snakemake.resources.get("attempt", 1))
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
        return 0
    row, task = snakemake.params.get("row"), snakemake.params.get("task")
    try:
        exports.run(
            export,
            settings,
            row=None if row is None else Recording.model_validate(row),
            analyzer_path=Path(snakemake.input.analyzer),
            units_path=Path(snakemake.input.units),
            curated_path=Path(snakemake.input.get("curated", "")),
            record_path=Path(snakemake.input.get("record", "")),
            path=Path(snakemake.output[0]),
            manual=snakemake.params.get("manual"),
            task=None if task is None else SortTask.model_validate(task),
            analyzed_with=AnalysisSettings.model_validate(snakemake.params.get("analysis", {})),
        )
    except OutputError as err:
        logger.error("%s", err)  # noqa: TRY400 - one line; the traceback tells nothing more
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
