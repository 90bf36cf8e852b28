"""The catalogue of failures, ``docs/failures.md``, from the classes and the signatures.

``python -m spikecanary.catalogue`` prints it.
"""

import sys

from spikecanary.failures import (
    BiologicalFailure,
    ClassifiedSortFailure,
    EnvironmentFailure,
    ResourceFailure,
)
from spikecanary.signatures import SIGNATURES, Signature

HEAD = """# Failures

What a verdict can name, by category: what it means, what to do, and what software prints when
it strikes. Generated from `scripts/spikecanary/failures.py` and `signatures/` by `make schema`;
do not edit.

To classify a log in hand, in the environment that `make` builds:
`python -m spikecanary.classify LOG...`
"""

#: How long an example may be here.
MOST = 110


def catalogue() -> str:
    """Return the text of the catalogue."""
    parts = [HEAD]
    for category in (EnvironmentFailure, ResourceFailure, BiologicalFailure):
        policy = " ".join((category.__doc__ or "").split())
        parts.append(f"## {category.category.capitalize()}\n\n{policy}\n")
        parts += [_describe(cls) for cls in category.__subclasses__()]
    return "\n".join(parts)


def _describe(cls: type[ClassifiedSortFailure]) -> str:
    """Describe one class: what it is, what to do, and its rows."""
    lines = [f"### {cls.__name__}", "", f"{(cls.__doc__ or '').strip()} *{cls.remedy}*", ""]
    evidence = ", ".join(f"`{name}`" for name in cls.evidence_fields())
    if evidence:
        lines += [f"Evidence: {evidence}.", ""]
    rows = [row for row in SIGNATURES if row.failure is cls]
    if rows:
        lines += ["| what happened | what you see |", "| --- | --- |"]
        lines += [f"| {row.reason} | `{_example(row)}` |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _example(row: Signature) -> str:
    """Shorten a row's example to one line that stands in a table."""
    first = row.example.strip("-").splitlines()[-1].strip() if row.example else row.errors
    shown = first if len(first) <= MOST else first[: MOST - 3] + "..."
    return shown.replace("|", "\\|").replace("`", "'")


if __name__ == "__main__":
    sys.stdout.write(catalogue())
