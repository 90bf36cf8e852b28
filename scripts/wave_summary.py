"""Rule wave_summary: describe the recordings of one wave, one row each."""

import logging
import sys
from pathlib import Path
from typing import Any

from spikecanary import screen, summary
from spikecanary.supervise import log

logger = logging.getLogger("spikecanary")


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and write the wave's rows; 1 where inputs have gone since."""
    log.configure(snakemake.log[0], rule="wave_summary")
    path, batch = Path(snakemake.output.table), snakemake.params.batch
    rows = summary.describe(path.parents[1], batch["rows"])
    # A table of what was just removed would keep Snakemake from making it again.
    gone = [each for each in snakemake.input if not Path(each).exists()]
    if gone:
        logger.error("removed in the meantime: %s; run again", ", ".join(gone))
        return 1
    summary.write(path, rows)
    if batch["remote"]:
        screen.print_lines("sort", path.parents[1], batch)
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
