"""The gate: waves of recordings, and who may pass."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from spikecanary import sentinel
from spikecanary.sentinel import Essentials
from spikecanary.table import Recording
from spikecanary.table.tsv import TableError, read_tsv

logger = logging.getLogger(__name__)

COLUMNS = ("recording", "verdict", "category")


def make_waves(rows: Sequence[Recording], size: int, sorter: str) -> dict[str, list[str]]:
    """Group recordings by the blocks of ``size`` rows that they are in, and by their sorters.

    Rows that are added at the end change the last block's waves alone. A wave is of one sorter,
    since what keeps its canaries waiting (a queue, a container) may be that sorter's alone. It is
    named by the number of its block, from 1, and by its sorter where that is not ``sorter``, the
    batch's.
    """
    waves: dict[str, list[str]] = {}
    for position, row in enumerate(rows):
        own = f"-{row.sorter}" if row.sorter not in (None, sorter) else ""
        name = f"{position // size + 1}{own}"
        waves.setdefault(name, []).append(row.id)
    return waves


def number(rows: Sequence[Recording]) -> dict[str, dict[str, str]]:
    """Return the further columns of the recordings, and where they are in the table."""
    return {
        row.id: {**row.metadata, "table_row": str(position)} for position, row in enumerate(rows)
    }


def read_wave(sentinels: Iterable[Path]) -> list[dict[str, str]]:
    """Read one wave's sentinels: ``recording``, ``verdict``, ``category`` (empty without failure).

    A sentinel that cannot be read has no verdict, and costs no other recording; the summary tells
    why.
    """
    rows = []
    for path in sentinels:
        record = sentinel.read_if_readable(Essentials, path)
        verdict, category = (record.verdict, record.category or "") if record else ("", "")
        rows.append({"recording": path.parent.name, "verdict": verdict, "category": category})
    return rows


def split(table: Path, sentinels: Iterable[Path]) -> tuple[set[str], set[str]]:
    """Return the recordings that a gate lets through, and those it stops for a biological reason.

    Its table tells; where that cannot be read, its sentinels do.
    """
    try:
        rows = read_tsv(table, COLUMNS)
    except TableError as err:
        logger.error("%s", err)  # noqa: TRY400 - one line
        rows = read_wave(sentinels)
    passed = {row["recording"] for row in rows if row["verdict"] == "proceed"}
    stopped = [row for row in rows if row["verdict"] == "stop"]
    return passed, {row["recording"] for row in stopped if row["category"] == "biological"}


def find_stale(results: Path, named: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Return a results folder's tables that hold other recordings or verdicts than they should.

    Snakemake makes them again by its own memory; where that is lost, nothing would. A verdict may
    change behind its back, too: by ``--touch``, or a copy with an older time.
    """
    stale = {}
    for table, members in named.items():
        path = results / table
        if not path.exists():
            continue
        try:
            rows = read_tsv(path, COLUMNS[:1])
            found = {row["recording"] for row in rows}
            if rows and table.startswith("gates"):
                unsorted = [each for each in members if not (results / each / "sort.json").exists()]
                now = read_wave(results / each / "canary.json" for each in unsorted)
                found -= {row["recording"] for row in now if row not in rows}
        except TableError:
            found = set()
        # What a gate names besides is harmless.
        if not found >= set(members) or (table.startswith("waves") and found != set(members)):
            stale[table] = list(members)
    return stale
