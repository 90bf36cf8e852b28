"""What the end of a run says of its recordings: counts, what is unknown, what needs a person."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spikecanary import sentinel
from spikecanary.outputs import outdated
from spikecanary.supervise import log
from spikecanary.texts import abridge, as_yaml, count, describe_empty, sentences, shorten

#: The command for failures that are not recognised.
DRAFT = "python -m spikecanary.failures.classify LOG... --draft"
#: How a sort failed that could not say so, and what to do.
KILLED = "killed"
KILLED_REMEDY = (
    "Did the machine run out of memory? Let fewer jobs run at a time (--resources mem_mb=RAM), on "
    "a cluster raise job.mem_mb, and run again."
)
#: What to do about an output that could not be made.
MEND_SETTINGS = (
    "If a setting is wrong: mend analysis, curation or exports in the config. Run again."
)
#: Recordings that the last lines name for one reason.
NAMED = 5
#: A name of no more letters may be a word of a message.
LONGEST_WORD = 3
#: What :func:`describe_recordings` shows.
SCREEN_COLUMNS = ("recording", "verdict", "outcome", "category", "sort", "n_units", "reason")


def describe_recordings(rows: Sequence[Mapping[str, Any]], most: int = 30) -> str:
    """Show a summary on the screen: the columns that matter, those in trouble first."""
    import pandas as pd

    if len(rows) > most:
        rows = sorted(rows, key=lambda row: not is_in_trouble(row))
    shown = pd.DataFrame(rows[:most], columns=SCREEN_COLUMNS, dtype=object).fillna("")
    reasons = [abridge(text, 100) for text in shown["reason"]]
    shown["reason"] = [text.ljust(max(map(len, reasons))) for text in reasons]
    more = f"\n... and {len(rows) - most} more" if len(rows) > most else ""
    lines = shown.to_string(index=False, justify="left").splitlines()
    return "\n".join(line.rstrip() for line in lines) + more


def is_in_trouble(row: Mapping[str, Any]) -> bool:
    """Whether a described recording is shown first: not sorted, or its canary proved nothing."""
    return bool(row["sort"] != "sorted" or row["outcome"] == "unexpected")


def describe_counts(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for the end of a run: how many recordings ended how."""
    states = Counter(row["sort"] for row in rows)
    parts = [f"{n} {state}" for state, n in states.most_common()]
    stopped = Counter(row["category"] for row in rows if row["sort"] == "stopped")
    if stopped:
        parts.append("stopped for: " + ", ".join(f"{n} {x}" for x, n in stopped.most_common()))
    text = f"{count(len(rows), 'recording')}: {', '.join(parts)}"
    unexpected = sum(row["outcome"] == "unexpected" for row in rows)
    odd = count(unexpected, "unexpected canary", "unexpected canaries")
    text += f"; {odd} proved nothing" if unexpected else ""
    warned = sum(bool(row.get("warnings")) for row in rows if row["outcome"] != "unexpected")
    has = count(warned, "recording has", "recordings have")
    return f"{text}; {has} warnings, see the summary" if warned else text


def describe_unknown(rows: Iterable[Mapping[str, Any]]) -> str:
    """Name failures that are not recognised, and the command that helps; or nothing.

    Those that are recognised, but stop nothing, have a remedy, and come first.
    """
    odd = [
        row
        for row in rows
        if row.get("outcome") == "unexpected"
        or (row["sort"] == "failed" and not row.get("category") and row.get("failure") != KILLED)
    ]
    known = describe_groups(row for row in odd if row.get("remedy"))
    unknown = describe_groups(row for row in odd if not row.get("remedy"))
    lines = ["Known, but no reason to stop:", *known] if known else []
    hint = f"  So that the next is recognised: {DRAFT}"
    return "\n".join(
        [*lines, *(["Not recognised (docs/verdicts.md):", *unknown, hint] if unknown else [])]
    )


def needs_attention(row: Mapping[str, Any]) -> bool:
    """Whether a described recording needs a person.

    A sort that failed, a stop for the environment or a resource, a record that cannot be read, and
    a full sort that found nothing to sort where its canary found units or activity.
    """
    state = row["sort"]
    stopped = state == "stopped" and row["category"] in sentinel.RETESTED
    return state == "failed" or stopped or _is_doubtful(row) or is_unreadable(row)


def is_unreadable(row: Mapping[str, Any]) -> bool:
    """Whether a record of a recording cannot be read, or the machine that it waits for failed."""
    return row["sort"] == "pending" and bool(row.get("reason")) and not row.get("verdict")


def _is_doubtful(row: Mapping[str, Any]) -> bool:
    """Whether a full sort found no units where its canary did, or saw activity."""
    is_empty = row["sort"] == "unsortable" or row.get("n_sorted") == 0
    is_active = row["sort"] == "unsortable" and not row.get("category")
    return is_empty and (is_active or bool(row.get("canary_units")))


def describe_needs(rows: Iterable[Mapping[str, Any]]) -> str:
    """Say which recordings need a person, by what went wrong, with its remedy; or nothing."""
    needing = list(filter(needs_attention, rows))
    if not needing:
        return ""
    head = count(len(needing), "recording needs attention", "recordings need attention")
    return "\n".join([f"{head} (docs/troubleshooting.md):", *describe_groups(needing)])


def group(rows: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Group recordings by what went wrong: those that need a person first, then most first.

    Of a known failure its class and remedy make a group, of others the reason; numbers, paths and
    the recording's own name aside.
    """
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        known = row.get("failure", "") + row.get("remedy", "") if row.get("category") else ""
        name = re.escape(row["recording"])
        name = rf"\b{name}\b" if len(name) > LONGEST_WORD else "/"  # `a` is a word, too
        own = rf"\S*(/|{name})\S*|\d+"
        key = (row["sort"], row.get("category", ""), re.sub(own, "N", known or _reason(row)))
        groups.setdefault(key, []).append(row)
    return sorted(groups.values(), key=lambda of: (not needs_attention(of[0]), -len(of)))


def describe_groups(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Describe recordings by what went wrong: which, why, what to do, and a log to read."""
    lines = []
    for members in group(rows):
        first = members[0]
        state = first["sort"] if first["sort"] != "pending" or needs_attention(first) else ""
        ids = [row["recording"] for row in members]
        what = ", ".join(filter(None, [state or first["outcome"], first.get("failure")]))
        lines.append(f"  {len(members)} {what}: {shorten(ids, NAMED)}")
        reason = abridge(_reason(first), 300)
        whose = f"{first['recording']}: " if len(members) > 1 else ""
        lines.append(f"    {whose}{sentences(reason, first.get('remedy', ''))}")
        lines += [f"    log: {first['log']}"] if first.get("log") else []
        if (state, first.get("category")) == ("stopped", "biological"):
            names = ", ".join(map(as_yaml, ids[:NAMED]))
            lines.append(f"    to sort it all the same: canary: {{force: [{names}]}} in the config")
    return lines


def _reason(row: Mapping[str, Any]) -> str:
    """Return why a recording needs a person."""
    reason = str(row.get("reason", ""))
    if not _is_doubtful(row):
        return reason
    empty = describe_empty(row["canary_units"])
    # Where it ended well, the reason is the canary's.
    return empty if row["sort"] == "sorted" else f"{reason.rstrip('.')}: {empty}"


def describe_missing(
    results: Path, rows: Iterable[Mapping[str, Any]], files: Collection[str]
) -> str:
    """Say which sorted recordings lack outputs, and why, after a run with errors; or nothing."""
    lacking, failed = [], False
    for row in rows:
        folder = results / row["recording"]
        names = [name for name in files if not (folder / name).exists()]
        if row["sort"] in ("sorted", "unsortable") and names:
            logs = Path(row["log"]).parent.parent if row.get("log") else Path("logs")
            errors = log.errors_of_run(logs, row["recording"])
            failed |= bool(errors)
            lacking.append("\n    ".join([f"{row['recording']}: {', '.join(names)}", *errors]))
    if not lacking:
        return ""
    those = count(len(lacking), "sorted recording lacks", "sorted recordings lack")
    why = "" if failed else "; the run ended before they were made. Run again"
    lines = [f"{those} outputs{why}:", *lacking[:NAMED]]
    lines += [f"and {len(lacking) - NAMED} more"] if len(lacking) > NAMED else []
    lines += [MEND_SETTINGS] if failed else []
    return "\n  ".join(lines)


def describe_outdated(results: Path, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say which recordings hold outputs that are older than their sort, in one line; or nothing."""
    named = {row["recording"]: outdated(results / row["recording"]) for row in rows}
    descriptions = [f"{name} ({', '.join(old)})" for name, old in named.items() if old]
    if not descriptions:
        return []
    hint = "Run again with them in outputs, or remove them"
    return [f"Older than the sort, so of another: {shorten(descriptions, NAMED)}. {hint}."]
