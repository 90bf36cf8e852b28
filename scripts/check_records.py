"""Rule check_records: fail where records disagree with the settings, and say how to mend it."""

from pathlib import Path
from typing import Any

from spikecanary import reruns
from spikecanary.supervise import log
from spikecanary.texts import PlainError


def main(snakemake: Any) -> None:
    """Unpack Snakemake's object and compare."""
    log.configure(snakemake.log[0], rule="check_records")
    checked = Path(snakemake.output.checked)
    if problem := reruns.compare(checked.parent, **snakemake.params.disagreeing):
        raise PlainError(problem)
    checked.touch()


if __name__ == "__main__":
    main(snakemake)  # noqa: F821 - Snakemake defines it
