"""TSV files of a results folder, without pandas: importing it takes longer than a gate may."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spikecanary.sentinel import write_atomic


def write(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table, whole or not at all; what is None or missing is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def read(path: Path) -> list[dict[str, str]]:
    """Read a table as texts, a dict a row.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))
