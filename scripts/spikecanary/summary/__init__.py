"""The summary: one row a recording, from what stands in a results folder."""

import contextlib
import json
import logging
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spikecanary import sentinel
from spikecanary.outputs import FILES, outdated
from spikecanary.sentinel import Failure, Record, RecordError
from spikecanary.summary import ending, hosts
from spikecanary.supervise import folders
from spikecanary.table.tsv import TableError, open_file, read_tsv, write_tsv

logger = logging.getLogger(__name__)

SUMMARY_COLUMNS = (
    "recording",
    "verdict",
    "outcome",
    "category",
    "failure",
    "sort",
    "n_sorted",
    "n_units",
    "n_good",
    "canary_units",
    "reason",
    "remedy",
    "warnings",
    "bad_periods",
    "window",
    "duration_s",
    "n_channels",
    "sorter",
    "sorter_version",
    "canary_wall_s",
    "forecast_s",
    "sort_wall_s",
    "forecast_mem_mb",
    "sort_mem_mb",
    "peak_rss_mb",
    "attempt",
    "forced",
    "host",
    "log",
)


#: Columns of whole numbers.
COUNTS = ("n_sorted", "n_units", "n_good", "canary_units", "n_channels", "attempt")
#: Outcomes whose reason is explained by the log of the record that has it.
LOG_SAYS_WHY = ("failed", "unsortable", "unexpected")
#: The recordings of the table with their further columns, by the results folder: of modules, whose
#: hooks do not know them.
IN_TABLE: dict[Path, Mapping[str, Mapping[str, str]]] = {}
#: The file of :func:`note_errors`.
ERRORS = ".errors"


def describe(
    results: Path, further: Mapping[str, Mapping[str, str]], *, running: bool = False
) -> list[dict[str, Any]]:
    """Describe recordings from what stands in the results folder now, a row each.

    ``further`` holds the further columns of each recording, in the order wanted; they overwrite
    none of the summary's own. ``sort`` is ``sorted``, ``unsortable``, ``failed``, ``stopped`` (not
    sorted because of the verdict) or ``pending``. ``running``: a sort that seems to be killed, from
    another host, may be at work.
    """
    own, waiting = set(SUMMARY_COLUMNS), read_waiting(results)
    rows = []
    for id_, columns in further.items():
        row = _row(results / id_, id_, running=running)
        if id_ in waiting and not ending.is_unreadable(row):
            row = _blank(id_) | waiting[id_]
        rows.append(row | {k: v for k, v in columns.items() if k not in own})
    return rows


def read_waiting(results: Path) -> dict[str, dict[str, str]]:
    """Return columns of recordings that wait for a machine which failed its trial in this run."""
    waiting: dict[str, dict[str, str]] = {}
    for path in sorted((results / ".nodes").glob("*.failed.json")):
        try:
            with open_file(path) as file:
                found = json.load(file)
            if datetime.fromisoformat(found["at"]) < sentinel.run_began():
                continue  # the sorter may be another by now
            failure = Failure.model_validate(found["failure"])
            columns = {name: str(found[name]) for name in ("reason", "host", "log")}
            recordings = list(map(str, found["recordings"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
            logger.warning("%s cannot be read: %s", path, err)
            continue
        columns |= {"category": failure.category or "", "failure": failure.class_name}
        waiting |= {each: {**columns, "remedy": failure.remedy} for each in recordings}
    return waiting


def merge(waves: Iterable[Path]) -> list[dict[str, str]]:
    """Put the tables of waves together, in the order of the recordings table."""
    rows = [row for path in waves for row in read_tsv(path, ("recording", "table_row"))]
    rows.sort(key=lambda row: int(row["table_row"]) if row["table_row"].isdecimal() else 0)
    return [{name: value for name, value in row.items() if name != "table_row"} for row in rows]


def note_errors(results: Path) -> None:
    """Note that the error hook wrote the summary, by a file that the rule takes as input.

    Written after it, with the time in it, since Snakemake goes by both: so the next run without
    errors makes the summary again.
    """
    with contextlib.suppress(OSError):
        sentinel.write_atomic(results / ERRORS, f"{datetime.now(UTC).isoformat()}\n")


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write described recordings as a table."""
    further = dict.fromkeys(name for row in rows for name in row if name not in SUMMARY_COLUMNS)
    write_tsv(path, [*SUMMARY_COLUMNS, *further], rows)


def _blank(recording: str) -> dict[str, Any]:
    row = dict.fromkeys(("verdict", "outcome", "category", "failure", "reason"), "")
    return {"recording": recording, "sort": "pending", **row}


def _row(folder: Path, recording: str, *, running: bool) -> dict[str, Any]:
    row = _blank(recording)
    try:
        canary = sentinel.read_if_any(Record, folder / "canary.json")
        sort = sentinel.read_if_any(Record, folder / "sort.json")
        if sort and canary and _is_superseded(sort, canary):
            sort = None
        attempts = sentinel.read_journal(folder / "attempts.jsonl")
        failed = None if sort else find_failed_sort(attempts, canary)
    except RecordError as err:
        return row | {"failure": type(err).__name__, "reason": str(err)}
    ended, known = sort or failed, canary or sort or failed
    if known is None:
        return row
    decisive = ended if ended and ended.outcome != "sorted" else known
    warnings = [text for each in (canary, ended) if each for text in each.warnings]
    row |= {
        "verdict": known.verdict,
        "outcome": canary.outcome if canary else "",
        "category": (decisive.failure.category if decisive.failure else None) or "",
        "failure": decisive.failure.class_name if decisive.failure else "",
        "sort": ended.outcome if ended else "stopped" if known.verdict == "stop" else "pending",
        "n_sorted": sort.n_units if sort else None,
        **(_count_units(folder, sort) if sort else {}),
        "canary_units": canary.n_units if canary else None,
        "reason": decisive.reason,
        "remedy": decisive.failure.remedy if decisive.failure else "",
        "warnings": "; ".join(dict.fromkeys(warnings)),
        "bad_periods": "; ".join(
            f"{p.start_s:.2f}-{p.end_s:.2f} s {p.what}" for p in known.bad_periods
        ),
        "window": "; ".join(f"{w.start_s:g}-{w.end_s:g} s" for w in known.windows),
        "duration_s": _first(known.duration_s, sort and sort.duration_s),
        "n_channels": _first(known.n_channels, sort and sort.n_channels),
        "sorter": known.sorter.name,
        "sorter_version": _first(known.sorter.version, sort and sort.sorter.version),
        "canary_wall_s": _canary_wall_s(canary),
        "sort_wall_s": sort.measured.wall_s if sort and sort.measured else None,
        "forecast_s": _likely(known, "wall_s"),
        "forecast_mem_mb": _likely(known, "mem_mb"),
        "sort_mem_mb": sort.measured.peak_rss_mb if sort and sort.measured else None,
        "peak_rss_mb": _peak_rss_mb(canary, sort),
        "attempt": known.attempt,
        "forced": bool(sort and sort.forced),
        "host": (ended or known).host,
        # The log of the record whose reason is told, where it says more.
        "log": (decisive if decisive.outcome in LOG_SAYS_WHY else sort or known).log,
    }
    if row["sort"] == "pending" and not running and (killed := folders.find_killed(folder, "sort")):
        row |= {
            "sort": "failed",
            "failure": ending.KILLED,
            "reason": f"the job of the sort was killed on {killed[0]}",
            "remedy": ending.KILLED_REMEDY,
            "log": "",
        }
    return row


def _is_superseded(sort: Record, canary: Record) -> bool:
    """Whether a sort is of other settings, with which the recording is stopped by now."""
    parts = ("task", "data")
    same = all(sort.settings.get(name) == canary.settings.get(name) for name in parts)
    return canary.verdict == "stop" and not sort.forced and not same


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _count_units(folder: Path, sort: Record) -> dict[str, int | None]:
    """Count the units that are left, and those with the label good; as sorted before that."""
    if FILES["units"] not in outdated(folder):
        with contextlib.suppress(TableError):
            labels = [row["label"] for row in read_tsv(folder / FILES["units"], ("label",))]
            return {"n_units": len(labels), "n_good": labels.count("good")}
    return {"n_units": sort.n_units, "n_good": None}


def _likely(canary: Record, cost: str) -> float | None:
    """Return what the canary forecast of the full sort."""
    return canary.forecast[cost].likely if canary.forecast and cost in canary.forecast else None


def _canary_wall_s(canary: Record | None) -> float | None:
    """Return the time of a canary from its beginning to its end, its looks included."""
    with contextlib.suppress(TypeError, ValueError):  # a record that somebody edited
        if canary is not None:
            began, ended = map(datetime.fromisoformat, (canary.started_at, canary.finished_at))
            return round((ended - began).total_seconds(), 3)
    return None


def _peak_rss_mb(canary: Record | None, sort: Record | None) -> float | None:
    peaks = [r.measured.peak_rss_mb or 0.0 for r in (canary, sort) if r and r.measured]
    return max(peaks, default=None)


def find_failed_sort(attempts: Iterable[Mapping[str, Any]], canary: Record | None) -> Record | None:
    """Return the last attempt at a full sort, where it failed after the present canary."""
    last = [each for each in attempts if each.get("kind") == "sort"][-1:]
    if not last or last[0].get("outcome") != "failed":  # interrupted: it is still to be done
        return None
    try:
        record = Record.model_validate(last[0])
        ended = [datetime.fromisoformat(x.finished_at) for x in (record, canary) if x]
        return record if ended[0] >= ended[-1] else None
    except (TypeError, ValueError):  # of another version
        return None


def print_end(
    results: Path, further: Mapping[str, Mapping[str, str]], files: Collection[str] = ()
) -> bool:
    """Print how a run's recordings ended, and last which need attention; return whether one does.

    ``further`` are the recordings of this run's targets, each with its further columns; where there
    are none, nothing is printed. ``files`` is what a sorted recording has in the end; one that
    lacks some is named.
    """
    if not further:
        return False
    rows = describe(results, further)
    lines = ["", ending.describe_recordings(rows), "", ending.describe_counts(rows)]
    lines += filter(None, [ending.describe_unknown(rows)])
    began_s = sentinel.run_began().timestamp()
    written = [results / name for name in ("summary.tsv", "report.html")]
    of_run = [str(x) for x in written if x.exists() and x.stat().st_mtime >= began_s]
    lines += [f"Summary and report: {', '.join(of_run)}"] if of_run else []
    sys.stdout.write("\n".join([*lines, ""]))
    sys.stdout.flush()
    needs = [ending.describe_needs(rows), ending.describe_missing(results, rows, files)]
    needs = list(filter(None, needs))
    last_lines = [*needs, *ending.describe_outdated(results, rows), *hosts.describe(results, rows)]
    sys.stderr.write("".join(f"{each}\n" for each in last_lines))
    return bool(needs)


def end_of_module_run(results: str | Path, *, failed: bool = False) -> None:
    """Print the last lines for a workflow that imports this one, whose hooks do not run.

    ``failed``: after errors, so that the summary is written, too.

    Raises
    ------
    SystemExit
        A recording in the results folder needs attention: exit status 1.
    """
    tested = {path.parent.name for path in Path(results).glob("*/canary.json")}
    found = sorted(tested | {*read_waiting(Path(results))})
    # Not the rows that were taken out of the table.
    known = IN_TABLE.get(Path(results), {name: {} for name in found})
    if failed:
        with contextlib.suppress(OSError):  # a full disk; what comes next says why the run failed
            write(Path(results) / "summary.tsv", describe(Path(results), known))
        note_errors(Path(results))
    if print_end(Path(results), {name: {} for name in found if name in known}):
        sys.exit(1)
