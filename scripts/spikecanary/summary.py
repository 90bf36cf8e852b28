"""The summary: one row a recording, from what stands in a results folder."""

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from spikecanary import sentinel, tables
from spikecanary.outputs import FILES
from spikecanary.sentinel import Record, RecordError

if TYPE_CHECKING:
    import pandas as pd

SUMMARY_COLUMNS = (
    "recording",
    "verdict",
    "outcome",
    "category",
    "failure",
    "sort",
    "n_units",
    "n_good",
    "reason",
    "remedy",
    "warnings",
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
COUNTS = ("n_units", "n_good", "n_channels", "attempt")
#: What describe_recordings shows.
SCREEN_COLUMNS = ("recording", "verdict", "outcome", "category", "sort", "n_units", "reason")


def stands(path: Path, metadata: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a summary is of these recordings with this metadata, and newer than their records."""
    try:
        written = path.stat().st_mtime
        rows = tables.read(path)
        told = [(row["recording"], _filled(row, SUMMARY_COLUMNS)) for row in rows]
    except (OSError, KeyError):
        return False
    now = [(recording, _filled(row, ())) for recording, row in metadata.items()]
    return told == now and not changed_since(written, path.parent, metadata)


def _filled(row: Mapping[str, str], without: Collection[str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if value and name not in without}


def changed_since(when: float, results: Path, ids: Iterable[str]) -> list[Path]:
    """Return the records of some recordings that were written after a time (as of stat)."""
    paths = (results / each / name for each in ids for name in ("canary.json", "sort.json"))
    return [path for path in paths if path.exists() and path.stat().st_mtime > when]


def _category(record: Record) -> str:
    return (record.failure.category if record.failure else None) or ""


def describe(
    results: Path, ids: Iterable[str], metadata: Mapping[str, Mapping[str, str]] | None = None
) -> list[dict[str, Any]]:
    """Describe every recording from what stands in the results folder now.

    Parameters
    ----------
    results : Path
        The results folder.
    ids : iterable of str
        The recordings, in the order wanted.
    metadata : dict, optional
        Further columns of each recording.

    Returns
    -------
    list of dict
        One row a recording. ``sort`` is ``sorted``, ``unsortable``, ``failed``,
        ``stopped`` (not sorted because of the verdict) or ``pending``.
    """
    return [{**_row(results / each, each), **(metadata or {}).get(each, {})} for each in ids]


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    further = dict.fromkeys(name for row in rows for name in row if name not in SUMMARY_COLUMNS)
    return [*SUMMARY_COLUMNS, *further]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write described recordings as a table."""
    tables.write(path, _columns(rows), rows)


def to_frame(rows: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Return described recordings as a data frame."""
    import pandas as pd

    counts = dict.fromkeys(COUNTS, "Int64")
    return pd.DataFrame(list(rows), columns=_columns(rows)).astype(counts)


def _row(folder: Path, recording: str) -> dict[str, Any]:
    try:
        canary = sentinel.read_record_if_any(folder / "canary.json")
        sort = sentinel.read_record_if_any(folder / "sort.json")
    except RecordError as err:
        return {"recording": recording, "sort": "pending", "reason": str(err)}
    failed = None if sort else _failed_sort(folder / "attempts.jsonl", canary)
    row: dict[str, Any] = {"recording": recording, "sort": _sort_state(canary, sort, failed)}
    if canary is None:
        return row
    told = sort if sort is not None and sort.outcome == "unsortable" else canary
    told = failed or told
    row |= {
        "verdict": canary.verdict,
        "outcome": canary.outcome,
        "category": _category(told),
        "failure": told.failure.class_name if told.failure else "",
        "n_units": sort.n_units if sort else None,
        "n_good": _count_good(folder / FILES["units"]) if sort else None,
        "reason": told.reason,
        "remedy": told.failure.remedy if told.failure else "",
        "warnings": "; ".join(canary.warnings),
        "window": "; ".join(f"{w.start_s:g}-{w.end_s:g} s" for w in canary.windows),
        "duration_s": _first(canary.duration_s, sort and sort.duration_s),
        "n_channels": _first(canary.n_channels, sort and sort.n_channels),
        "sorter": canary.sorter.name,
        "sorter_version": _first(canary.sorter.version, sort and sort.sorter.version),
        "canary_wall_s": canary.measured.wall_s if canary.measured else None,
        "sort_wall_s": sort.measured.wall_s if sort and sort.measured else None,
        "forecast_s": _likely(canary, "wall_s"),
        "forecast_mem_mb": _likely(canary, "mem_mb"),
        "sort_mem_mb": sort.measured.peak_rss_mb if sort and sort.measured else None,
        "peak_rss_mb": _peak_rss_mb(canary, sort),
        "attempt": canary.attempt,
        "forced": bool(sort and sort.forced),
        "host": (sort or failed or canary).host,
        "log": (sort or failed or canary).log,
    }
    return row


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _count_good(units: Path) -> int | None:
    """Count the units with the label good; None where none are labelled (yet)."""
    try:
        return sum(row["label"] == "good" for row in tables.read(units))
    except (OSError, KeyError):
        return None


def _likely(canary: Record, cost: str) -> float | None:
    """Return what the canary forecast of the full sort."""
    return canary.forecast[cost].likely if canary.forecast and cost in canary.forecast else None


def _peak_rss_mb(canary: Record, sort: Record | None) -> float | None:
    peaks = [r.measured.peak_rss_mb or 0.0 for r in (canary, sort) if r and r.measured]
    return max(peaks, default=None)


def _failed_sort(journal: Path, canary: Record | None) -> Record | None:
    """Return the last attempt at a full sort, where it failed after the present canary."""
    for entry in reversed(sentinel.read_journal(journal)):
        if entry.get("kind") != "sort":
            continue
        if entry.get("outcome") != "failed":  # interrupted: it is still to be done
            return None
        try:
            record = Record.model_validate(entry)
        except ValidationError:  # of another version
            return None
        return record if canary is None or record.finished_at >= canary.finished_at else None
    return None


def _sort_state(canary: Record | None, sort: Record | None, failed: Record | None) -> str:
    if sort is not None:
        return sort.outcome
    if failed is not None:
        return "failed"
    if canary is not None and canary.verdict == "stop":
        return "stopped"
    return "pending"


def describe_recordings(table: "pd.DataFrame", most: int = 30) -> str:
    """Show a summary on the screen: the columns that matter, those in trouble first."""
    import pandas as pd

    trouble = ~table["sort"].isin(["sorted"]) | (table["outcome"] == "unexpected")
    if len(table) > most:
        table = pd.concat([table[trouble], table[~trouble]])
    shown = table.loc[:, list(SCREEN_COLUMNS)].head(most).astype(object).fillna("")
    reasons = [textwrap.shorten(text, 100) for text in shown["reason"].astype(str)]
    shown["reason"] = [text.ljust(max(map(len, reasons))) for text in reasons]
    more = f"\n... and {len(table) - most} more" if len(table) > most else ""
    lines = shown.to_string(index=False, justify="left").splitlines()
    return "\n".join(line.rstrip() for line in lines) + more


def describe_counts(table: "pd.DataFrame") -> str:
    """One line for the end of a run: how many recordings ended how."""
    counts = table["sort"].value_counts()
    parts = [f"{counts[state]} {state}" for state in counts.index]
    stopped = table.loc[table["sort"] == "stopped", "category"].value_counts()
    if len(stopped):
        parts.append("stopped for: " + ", ".join(f"{n} {name}" for name, n in stopped.items()))
    text = f"{len(table)} recordings: " + ", ".join(parts)
    unexpected = (table["outcome"] == "unexpected").sum()
    if unexpected:
        text += f"; {unexpected} unexpected canaries proved nothing"
    return text
