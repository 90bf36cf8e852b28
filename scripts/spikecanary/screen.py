"""What a person reads in the terminal while a batch runs: a line a verdict and a sort."""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikecanary import gate, sentinel, summary
from spikecanary.sentinel import Kind
from spikecanary.summary import ending
from spikecanary.table.tsv import TableError, read_tsv
from spikecanary.texts import abridge, count, duration

#: ANSI colours of the words that a line begins with.
COLOURS = {"proceed": 32, "sorted": 32, "unexpected": 33, "stop": 31}
#: Characters of a reason in a line; the block of the failure and the log have more.
REASON_LENGTH = 100


def print_lines(kind: Kind, results: Path, batch: Mapping[str, Any]) -> None:
    """Print a line a recording: how many have ended so far, its name, and how it ended.

    Recordings that lack the record of that kind have no line. ``batch`` holds ``rows``, the
    recordings as :func:`spikecanary.gate.number` returns them, ``names``, of all recordings of the
    table, and ``force``, those that are sorted whatever their verdict. Sorts are counted without
    those that are stopped.
    """
    found = {path.parent.name for path in results.glob(f"*/{kind}.json")}
    ended = found & {*batch["names"]}  # results of other tables may be there
    n_rows = len(batch["names"])
    if kind == "sort":
        n_rows -= len({*batch["names"]} & _stopped(results) - ended - {*batch["force"]})
    rows = {name: further for name, further in batch["rows"].items() if name in ended}
    width = max(map(len, rows), default=0)
    is_coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    described = summary.describe(results, rows, running=True)
    for number, row in enumerate(described, len(ended) - len(rows) + 1):
        word, text = _describe(kind, row)
        if is_coloured and word in COLOURS:
            word = f"\033[{COLOURS[word]}m{word}\033[0m"
        place = f"{number:{len(str(n_rows))}} of {n_rows}"
        _print(f"{place}  {row['recording']:{width}}  {word}, {text}\n")


def _print(text: str) -> None:
    """Print a text; a terminal that was closed, or a log on a full disk, must not cost the job."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError):
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - stays open


def _stopped(results: Path) -> set[str]:
    """Return what gates have stopped so far; no table may cost a finished sort."""
    stopped = set[str]()
    for path in (results / "gates").glob("*.tsv"):
        with contextlib.suppress(TableError, OSError):
            rows = read_tsv(path, gate.COLUMNS)
            stopped |= {x["recording"] for x in rows if x["verdict"] == "stop"}
    return stopped


def _is_of_run(table: Path) -> bool:
    """Whether a gate's verdicts are those of this run, which tests again what may have changed."""
    with contextlib.suppress(TableError, OSError):
        rows, results = read_tsv(table, gate.COLUMNS), table.parents[1]
        is_new = table.stat().st_mtime >= sentinel.run_began().timestamp()
        waiting = [x for x in rows if not (results / x["recording"] / "sort.json").exists()]
        return is_new or not any(row["category"] in sentinel.RETESTED for row in waiting)
    return False


def _describe(kind: Kind, row: Mapping[str, Any]) -> tuple[str, str]:
    """Return how a canary or a sort ended, and why: ``proceed``, ``8 units in 30 s``."""
    word, text = row["sort"], abridge(row["reason"], REASON_LENGTH)
    if kind == "canary":
        word = "unexpected" if row["outcome"] == "unexpected" else row["verdict"] or word
    elif word == "sorted":
        took_s = row["sort_wall_s"]
        after = f" after {duration(took_s)}" if took_s is not None else ""
        text = f"{count(row['n_sorted'], 'unit')}{after}"
    return word, text


def print_gate(table: Path, batch: Mapping[str, Any]) -> None:
    """Print what a gate's table comes to; after the last one what is stopped, and why.

    ``batch`` as of :func:`print_lines`, and ``waves``: the names of all.
    """
    results, rows = table.parents[1], []
    is_last = all(_is_of_run(table.with_name(f"{wave}.tsv")) for wave in batch["waves"])
    if is_last:  # but where a wave got new recordings, which are tested later
        rows = summary.describe(results, {name: {} for name in batch["names"]}, running=True)
        is_last = all(row["verdict"] or row["reason"] for row in rows)
    if not is_last:
        rows = summary.describe(results, {name: {} for name in batch["rows"]}, running=True)
    all_stopped = [row for row in rows if row["verdict"] == "stop"]
    not_forced = [row for row in all_stopped if row["recording"] not in batch["force"]]
    stopped = [row for row in not_forced if row["sort"] == "stopped"]
    unexpected = [row for row in rows if row["outcome"] == "unexpected"]
    lines = ending.describe_groups([*stopped, *unexpected]) if is_last else []
    of_these = f" ({len(unexpected)} unexpected)" if unexpected else ""
    n_unknown = sum(not row["verdict"] for row in rows)
    parts = [f"{len(rows) - n_unknown - len(all_stopped)} proceed{of_these}"]
    counts = {
        "stopped": len(stopped),
        "forced": len(all_stopped) - len(not_forced),
        "stopped by now, but sorted before": len(not_forced) - len(stopped),
        "without a verdict": n_unknown,
    }
    parts += [f"{n} {word}" for word, n in counts.items() if n]
    known = "All verdicts are known" if is_last else f"Verdicts of wave {table.stem} are known"
    where = " (docs/troubleshooting.md)" if is_last and stopped else ""
    lines.insert(0, f"{known}: {', '.join(parts)}{where}")
    _print("".join(f"{line}\n" for line in lines))
