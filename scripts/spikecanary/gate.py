"""The gate: waves of recordings, and who may pass."""

import math
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

from spikecanary import sentinel, tables

COLUMNS = ("recording", "verdict", "category")


def make_waves(
    ids: Sequence[str], n_waves: int, without: Container[str] = ()
) -> dict[str, list[str]]:
    """Group recordings into at most ``n_waves`` runs of consecutive rows.

    Parameters
    ----------
    ids : sequence of str
        The recordings, in the order of the table.
    n_waves : int
        Most waves.
    without : container of str
        Recordings that are left out of their wave; they change no other wave.

    Returns
    -------
    dict
        Recordings by the wave's name: its number, with leading zeros. No wave is empty.
    """
    size = max(1, math.ceil(len(ids) / n_waves))
    groups = [list(ids[start : start + size]) for start in range(0, len(ids), size)]
    width = len(str(len(groups)))
    waves = {f"{number:0{width}d}": group for number, group in enumerate(groups, start=1)}
    left = {name: [each for each in group if each not in without] for name, group in waves.items()}
    return {name: group for name, group in left.items() if group}


def read_wave(sentinels: Iterable[Path]) -> list[dict[str, str]]:
    """Read one wave's sentinels.

    Returns
    -------
    list of dict
        ``recording``, ``verdict``, ``category`` (empty where there is no failure).

    Raises
    ------
    RecordError
        A sentinel cannot be read.
    """
    records = [sentinel.read_record(path) for path in sentinels]
    values = (
        (r.recording, r.verdict, (r.failure.category if r.failure else None) or "") for r in records
    )
    return [dict(zip(COLUMNS, row, strict=True)) for row in values]


def proceeding(table: Path) -> set[str]:
    """Return the recordings that a gate's table lets through."""
    return {row["recording"] for row in tables.read(table) if row["verdict"] == "proceed"}


def stopped_for_biology(table: Path) -> set[str]:
    """Return the recordings that a gate's table stops for a biological reason."""
    rows = tables.read(table)
    return {
        row["recording"]
        for row in rows
        if row["verdict"] == "stop" and row["category"] == "biological"
    }
