"""Rule check_records: fail where records disagree with the settings, and say how to mend it."""

import logging
import sys
from pathlib import Path
from typing import Any

from spikecanary import reruns
from spikecanary.supervise import log

logger = logging.getLogger("spikecanary")


def main(snakemake: Any) -> int:
    """Unpack Snakemake's object and compare; exit status 1 where something disagrees."""
    log.configure(snakemake.log[0], rule="check_records")
    results, params = Path(snakemake.output.checked).parent, snakemake.params
    problem = reruns.compare(results, params.expected, params.tables)
    if problem:
        logger.error("%s", problem)
        return 1
    Path(snakemake.output.checked).touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(snakemake))  # noqa: F821 - Snakemake defines it
