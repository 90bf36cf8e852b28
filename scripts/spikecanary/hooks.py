"""The last lines of a run, and summary and report where their rules could not run."""

import logging
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from spikecanary import report, summary
from spikecanary.config import Config
from spikecanary.recordings import Recording

logger = logging.getLogger(__name__)


def end_of_run(
    results: Path,
    rows: Mapping[str, Recording],
    of_run: Collection[str],
    failed: tuple[Config, Path] | None,
) -> None:
    """Print how a run's recordings ended, and last which of them need somebody.

    Parameters
    ----------
    results : Path
        The results folder.
    rows : dict
        The table's recordings.
    of_run : collection of str
        Those of this run's targets; where there are none, nothing is printed.
    failed : (Config, Path) or None
        Config and the report's template after a run with errors: the rules of summary and report
        did not run, so both are written here, by the same functions.

    Raises
    ------
    SystemExit
        A recording needs somebody, and the run itself had no errors: exit status 1.
    """
    if not of_run:
        return
    further = {name: row.metadata for name, row in rows.items()}
    if failed:
        summary.write(results / "summary.tsv", summary.describe(results, further))
        try:
            report.write(results / "report.html", failed[1], failed[0], results)
        except Exception:
            logger.exception("the report could not be written")
    needs = _say_end(results, {name: further[name] for name in further if name in of_run})
    if needs and not failed:
        sys.exit(1)


def end_of_module_run(results: str | Path) -> None:
    """Print the last lines for a workflow that imports this one, whose hooks do not run.

    Parameters
    ----------
    results : str or Path
        The results folder; every recording in it counts.

    Raises
    ------
    SystemExit
        A recording needs somebody: exit status 1.
    """
    found = sorted(path.parent.name for path in Path(results).glob("*/canary.json"))
    if _say_end(Path(results), {name: {} for name in found}):
        sys.exit(1)


def _say_end(results: Path, further: Mapping[str, Mapping[str, str]]) -> str:
    """Print how recordings ended, and which need somebody; return the latter."""
    rows = summary.describe(results, further)
    table = summary.to_frame(rows)
    lines = ["", summary.describe_recordings(table), "", summary.describe_counts(table)]
    written = [results / name for name in ("summary.tsv", "report.html")]
    found = ", ".join(str(path) for path in written if path.exists())
    lines += [f"Summary and report: {found}"] if found else []
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()
    needs = summary.describe_needs(rows)
    sys.stderr.write(f"{needs}\n" if needs else "")
    return needs
