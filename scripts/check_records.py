"""Rule check_records: fail where records disagree with the settings, and say how to mend it."""

from pathlib import Path

from spikecanary import reruns
from spikecanary.supervise import log
from spikecanary.texts import PlainError

if __name__ == "__main__":
    log.configure(snakemake.log[0], rule="check_records")
    checked = Path(snakemake.output.checked)
    if problem := reruns.compare(checked.parent, **snakemake.params.disagreeing):
        raise PlainError(problem)
    checked.touch()
