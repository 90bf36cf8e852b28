"""The generated pages of docs/: troubleshooting, settings.

``python -m spikecanary.reference PAGE`` prints one of them.
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from spikecanary.config import Config
from spikecanary.failures import (
    BiologicalFailure,
    EnvironmentFailure,
    ResourceFailure,
)
from spikecanary.failures.signatures import Signature, load_signatures

TROUBLES = """# Troubleshooting

Search this page for the text that you see. Generated from `scripts/spikecanary/failures/` and
`reference.py` by `make schema`; do not edit. Not here? `python -m spikecanary.failures.classify
LOG...` reads a whole log. What it does not recognise either is *unexpected*: make it known to
your own runs ([how](verdicts.md#failures-of-your-own)), and please send the log.

| what you see | what happened | what to do |
| --- | --- | --- |
"""

FAILURES = """
## Failures

What a verdict can name, by category, each with what to do.
"""

SETTINGS = """# Settings

Every key of the configuration: default and meaning. Generated from `scripts/spikecanary/config.py`
by `make schema`; do not edit. [What an edit runs again](internals.md#what-runs-again).
"""

#: What Spike Canary itself prints: the text, what it means, what to do.
OWN = (
    (
        "in the configuration or the table:",
        "keys, names or values that do not exist; all of them are listed, nothing has run",
        "Correct them; each line says where, and what was perhaps meant.",
    ),
    (
        "recordings need attention",
        "the end of a run with exit status 1: recordings that were stopped or failed",
        "Each reason has its remedy below it. Then run again: these are tested or sorted again.",
    ),
    (
        "records disagree with the config or the table",
        "settings have changed, and Snakemake does not know with which ones these were made",
        "Run the command in the message, or go back to the settings of before.",
    ),
    (
        "do not work with checkpoints",
        "--until, --omit-from and --batch choose jobs before those behind the gates are known",
        "Ask for the target `sorted` or for files; instead of --batch, use several tables.",
    ),
    (
        "An update of Spike Canary will sort everything again",
        "the profile, or the command line, has the rerun trigger `code`",
        "Add the line to your profile; with it nothing that is finished is sorted again.",
    ),
    (
        "The sorter itself ended well, and its files are in",
        "what the sorter wrote could not be read or saved, for example without disk space",
        "Mend that and run again: the files are read, nothing is sorted. Or remove the folder.",
    ),
    (
        "is not a Spike Canary record",
        "a sentinel or sort record was edited or cut off by another program",
        "Delete the file; it is made again.",
    ),
    (
        "proved nothing",
        "the canary failed for a reason that is not recognised, so it proceeds",
        "Look at its log; the full sort may fail in the same way.",
    ),
    (
        "removed in the meantime",
        "files of the results folder were removed while it was summarized",
        "Run again.",
    ),
    (
        "is not in metrics.tsv",
        "a threshold of the curation is of a metric that was not computed",
        "Add the extension to analysis.extensions, or set the threshold to null.",
    ),
    (
        "not tried again, it would fail again",
        "a retry by Snakemake of a sort that did not fail for want of memory or time",
        "Repair what its log tells, then run again.",
    ),
)

#: Snakemake's own, which users of this workflow meet.
OF_SNAKEMAKE = (
    (
        "Directory cannot be locked",
        "another snakemake runs in this folder, or one was killed (kill -9, a power cut)",
        "Where none runs: `snakemake --unlock`, then run again.",
    ),
    (
        "MissingOutputException",
        "a network drive shows files late",
        "Run again with a larger `--latency-wait`.",
    ),
)

#: How long an example may be here.
MOST = 110


def _describe_failures() -> list[str]:
    """Return the lines of all failure classes, by category."""
    lines = [FAILURES]
    for category in (EnvironmentFailure, ResourceFailure, BiologicalFailure):
        policy = " ".join((category.__doc__ or "").split())
        lines += [f"### {category.category.capitalize()}", "", policy, "", *FAILURE_TABLE]
        for cls in category.__subclasses__():
            evidence = ", ".join(f"`{name}`" for name in cls.evidence_fields())
            lines.append(f"| {cls.__name__} | {cls.__doc__} | {cls.remedy} | {evidence} |")
        lines.append("")
    return lines


FAILURE_TABLE = ("| class | what happened | what to do | evidence |", "| --- | --- | --- | --- |")


def _example(row: Signature) -> str:
    """Shorten a row's example to one line that stands in a table."""
    first = row.example.strip("-").splitlines()[-1].strip() if row.example else row.errors[0]
    shown = first if len(first) <= MOST else first[: MOST - 3] + "..."
    return shown.replace("|", "\\|").replace("`", "'")


def troubleshooting() -> str:
    """Return the text of the page of literal texts."""
    rows = {
        _example(row): (row.reason, row.remedy or row.failure.remedy) for row in load_signatures()
    }
    rows |= {text: (meaning, remedy) for text, meaning, remedy in (*OWN, *OF_SNAKEMAKE)}
    lines = [
        f"| `{text}` | {meaning} | {remedy} |"
        for text, (meaning, remedy) in sorted(rows.items(), key=lambda item: item[0].lower())
    ]
    return TROUBLES + "\n".join([*lines, *_describe_failures()])


def settings() -> str:
    """Return the text of the page of settings."""
    top: list[str] = []
    sections: list[str] = []
    for name, field in Config.model_fields.items():
        default = getattr(Config(), name)
        if isinstance(default, BaseModel):
            purpose = (type(default).__doc__ or "").splitlines()[0]
            sections += ["", f"## {name}", "", purpose, "", *TABLE, *_rows(default, "")]
        else:
            top.append(_row(name, default, field.description))
    return "\n".join([SETTINGS, *TABLE, *top, *sections]) + "\n"


TABLE = ("| key | default | meaning |", "| --- | --- | --- |")


def _rows(section: BaseModel, prefix: str) -> Iterator[str]:
    plain = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield _row(prefix + name, plain[name], field.description)


def _row(key: str, default: Any, description: str | None) -> str:
    return f"| `{key}` | `{json.dumps(default)}` | {description} |"


PAGES: dict[str, Callable[[], str]] = {
    "troubleshooting": troubleshooting,
    "settings": settings,
}

if __name__ == "__main__":
    sys.stdout.write(PAGES[sys.argv[1]]())
