"""TSV files of a results folder: written whole, read as texts, safe in a spreadsheet."""

import csv
import errno
import io
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from spikecanary.sentinel import write_atomic
from spikecanary.texts import PlainError, printable

#: How a text, but no number, begins that a spreadsheet takes for a formula; and as it is written.
FORMULA = re.compile(r"(?![+-]?[\d.]+(e[+-]?\d+)?$)[\s']*[=+@\uff1d\uff0b\uff20-].", re.IGNORECASE)
QUOTED_FORMULA = re.compile(f"'{FORMULA.pattern}", re.IGNORECASE)
#: So many characters of a text are written; programs read no more of a cell.
LONGEST_CELL = 32_000


def write_tsv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table, whole or not at all; what is None or missing is empty.

    Texts that a spreadsheet would take for a formula get an apostrophe in front, which
    :func:`read_tsv` takes away again.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: as_cell(value) for name, value in row.items()} for row in rows)
    write_atomic(path, text.getvalue())


def as_cell(value: Any) -> Any:
    """Return a value as it stands in a table: no formula, nothing that cannot be shown."""
    if not isinstance(value, str):
        return value
    text = printable(value[:LONGEST_CELL])[:LONGEST_CELL]
    return f"'{text}" if FORMULA.match(text) else text


def from_cell(value: Any) -> Any:
    """Return what :func:`as_cell` was given, but for what cannot be shown."""
    return value[1:] if isinstance(value, str) and QUOTED_FORMULA.match(value) else value


def open_file(path: Path, newline: str | None = None) -> TextIO:
    """Open a text file; raise OSError, also for a FIFO, which has no end."""
    if path.is_fifo():
        raise OSError(errno.EINVAL, "no file")
    return path.open(encoding="utf-8", newline=newline)


class TableError(PlainError):
    """A table of a results folder that cannot be read."""


def read_tsv(path: Path, needed: Collection[str] = ()) -> list[dict[str, str]]:
    """Read a table as texts, a dict a row; raise TableError, also if a needed column is missing.

    Without pandas, whose import takes longer than a gate.
    """
    try:
        with open_file(path, newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", restval="")
            rows = [{name: from_cell(value) for name, value in row.items()} for row in reader]
        lacking = sorted({*needed} - {*(reader.fieldnames or ())})
        why: Any = f"column {lacking[0]} is missing" if lacking else ""
        why = "more fields than columns" if any(None in row for row in rows) else why
    except (OSError, ValueError, TypeError, csv.Error) as err:
        why = getattr(err, "strerror", None) or err
    if why:
        msg = f"{path} cannot be read ({why}); remove it to have it made again"
        raise TableError(msg)
    return rows
