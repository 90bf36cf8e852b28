"""The report: one self-contained page of a batch, for people; ``report.html`` lays it out."""

import base64
import json
import logging
import math
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from spikecanary import sentinel, summary
from spikecanary.config import Config
from spikecanary.outputs import CANARY_FIGURE, FILES, outdated
from spikecanary.sentinel import Record
from spikecanary.summary import ending, hosts
from spikecanary.table.tsv import read_tsv
from spikecanary.texts import as_yaml

logger = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_suffix(".html")
#: Captions of figures, by name: a template of rule figures, whose words this page shares.
CAPTIONS = Path(__file__).with_name("captions.rst")
#: The page is filled with figures up to so many bytes, those of recordings in trouble first. All
#: others stay files beside it, so that a page of thousands of recordings still opens.
PAGE_BYTES = 13_000_000
#: Rows of unit tables in the page; beyond, recordings have a link to theirs.
MOST_UNITS = 50_000
#: Columns of a unit's table; a phone shows the first four.
UNIT_COLUMNS = (
    *("unit", "label", "depth_um", "snr", "firing_rate", "num_spikes", "peak_channel"),
    *("isi_violations_share", "amplitude_median", "presence_ratio", "drift_ptp", "reasons"),
)


def write(path: Path, config: Config, results: Path) -> None:
    """Write the page of a results folder's ``summary.tsv`` with the config, whole or not at all."""
    import jinja2

    rows = read_rows(results / "summary.tsv")
    recordings = describe(rows, results)
    caption = jinja2.Template(CAPTIONS.read_text(encoding="utf-8"))
    # What is shown is other people's text: every value is escaped.
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.ChainableUndefined
    )
    environment.filters |= {
        "quote": lambda each: shlex.quote(str(each)),
        "yaml": as_yaml,
        "relative": lambda each: os.path.relpath(each, results),
        "caption": lambda name: caption.render(snakemake={"wildcards": {"name": name}}).strip(),
    }
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    shown = {
        "written": sentinel.now(),
        "results": results,
        "working": Path.cwd(),
        # Where the results folder is a link, it may be opened by either.
        "homes": [path.resolve().as_uri(), path.absolute().as_uri()],
        "totals": count(rows),
        "reasons": ending.group(filter(has_trouble, rows)),
        "hosts": hosts.describe(results, rows),
        "draft": ending.DRAFT,
        "recordings": recordings,
        "versions": {"python": platform.python_version(), **sentinel.package_versions()},
        "config": json.dumps(config.model_dump(mode="json"), indent=1),
    }
    text = page.render(shown)
    figures = [
        figure["path"]
        for each in sorted(recordings, key=lambda each: not ending.is_in_trouble(each["row"]))
        for figure in each["figures"]
    ]
    data = inline(results, figures, PAGE_BYTES - len(text.encode(errors="replace")))
    # No text of others looks like this: it is escaped.
    text = re.sub(
        r'(?<=<img loading="lazy" src=")[^"]+', lambda found: data.get(found[0], found[0]), text
    )
    sentinel.write_atomic(path, text.encode(errors="replace").decode())
    logger.info("%d recordings, %.1f MB", len(rows), len(text) / 1e6)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a summary, with its counts as numbers."""
    rows: list[dict[str, Any]] = [*read_tsv(path)]
    for row in rows:
        row |= {name: int(row[name]) for name in summary.COUNTS if row[name]}
    return rows


def write_after_errors(
    results: Path, further: Mapping[str, Mapping[str, str]], config: Config
) -> None:
    """Write summary and report, whose rules do not run where other jobs failed.

    The parameters are those of :func:`spikecanary.summary.describe`, and the configuration.
    """
    try:
        summary.write(results / "summary.tsv", summary.describe(results, further))
        write(results / "report.html", config, results)
    except OSError as err:  # a full disk; what comes next says why the run failed
        logger.error("summary and report could not be written: %s", err)  # noqa: TRY400
    except Exception:
        logger.exception("the report could not be written")
    finally:
        summary.note_errors(results)


def _sum(rows: Sequence[Mapping[str, Any]], column: str) -> float:
    return math.fsum(float(row[column]) for row in rows if row[column])


def count(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the batch's totals: recordings by state, units, and times in s."""
    states = [row["sort"] for row in rows]
    return {
        "states": {state: states.count(state) for state in dict.fromkeys(states)},
        "n_needing": sum(map(ending.needs_attention, rows)),
        "n_units": round(_sum(rows, "n_units")),
        "n_labelled": sum(row["n_good"] != "" for row in rows),
        "n_good": round(_sum(rows, "n_good")),
        "canaries_s": _sum(rows, "canary_wall_s"),
        "sorts_s": _sum(rows, "sort_wall_s"),
    }


def has_trouble(row: Mapping[str, Any]) -> bool:
    """Whether the page says what went wrong with a recording."""
    odd = row["failure"] or row["outcome"] == "unexpected"
    return bool(odd or ending.needs_attention(row))


def describe(rows: Sequence[Mapping[str, Any]], results: Path) -> list[dict[str, Any]]:
    """Return what the page of each recording shows."""
    described = []
    n_units = 0
    for row in rows:
        folder = results / row["recording"]
        attempts = sentinel.read_journal(folder / "attempts.jsonl")
        canary = sentinel.read_if_readable(Record, folder / "canary.json")
        log = canary.log if canary else None
        sort = summary.find_failed_sort(attempts, canary) if row["sort"] == "failed" else None
        if row["sort"] in ("sorted", "unsortable"):
            sort = sentinel.read_if_readable(Record, folder / "sort.json")
        warnings = [text for record in (canary, sort) if record for text in record.warnings]
        n_units += row["n_units"] or 0
        old = outdated(folder)
        listed = filter(_can_be_linked, sorted(folder.glob("[!.]*")))
        found = [path for path in listed if path.name not in old]
        each = {
            "row": row,
            "canary": canary,
            "sort": sort,
            "warnings": [*dict.fromkeys(warnings)],
            "attempts": attempts,
            "units": _read_units(folder)
            if n_units <= MOST_UNITS and "units.tsv" not in old
            else [],
            "figures": _find_figures(folder, row) if "figures" not in old else [],
            "files": [path.name + "/" * path.is_dir() for path in found],
            "outdated": old,
            "logs": sorted(Path(log).parent.parent.glob(f"*/{folder.name}.log")) if log else [],
        }
        described.append(each)
    return described


def _read_units(folder: Path) -> list[list[str]]:
    """Return a table of the units: its head, and a line a unit; without columns that are empty."""
    try:
        rows = read_tsv(folder / FILES["units"])
    except (OSError, ValueError):  # none, or not a text
        return []
    names = [name for name in UNIT_COLUMNS[1:] if any(row.get(name) for row in rows)]
    lines = [[row.get("unit", ""), *(_shorten(row[name] or "") for name in names)] for row in rows]
    return [["unit", *names], *lines]


def _shorten(text: str) -> str:
    """Return four digits of a number with a decimal point, and any other text as it is."""
    return f"{float(text):.4g}" if re.fullmatch(r"-?\d+\.\d+(e-\d+)?", text) else text


def _can_be_linked(path: Path) -> bool:
    """Whether a file's name can stand in an address."""
    return not re.search("[\ud800-\udfff]", str(path))


def _find_figures(folder: Path, row: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a recording's figures: file, name, and of a unit's page (``units/7.png``) the unit.

    Of what is not sorted (any more), and not stopped (any more), there are none.
    """
    drawn, of_canary = folder / FILES["figures"], folder / CANARY_FIGURE
    is_stopped = row["verdict"] == "stop" and of_canary.exists()
    found = {of_canary: "canary"} if is_stopped else {}
    pages = sorted(drawn.rglob("*.png")) if row["sort"] in ("sorted", "unsortable") else []
    for path in filter(Path.is_file, filter(_can_be_linked, pages)):
        found[path] = path.relative_to(drawn).with_suffix("").as_posix()
    return [
        {
            "path": path.relative_to(folder.parent).as_posix(),
            "name": name,
            "unit": unquote(name.partition("units/")[2]),
        }
        for path, name in found.items()
    ]


def inline(results: Path, figures: Sequence[str], free: int) -> dict[str, str]:
    """Return the figures that fit into so many bytes, as data, by path."""
    data = {}
    for path in figures:
        size = (results / path).stat().st_size * 4 // 3  # as base64
        if size <= free:
            free -= size
            encoded = base64.b64encode((results / path).read_bytes()).decode()
            data[quote(path)] = f"data:image/png;base64,{encoded}"
    return data
