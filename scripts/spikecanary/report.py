"""The report: one self-contained page of a batch, for people."""

import base64
import functools
import json
import logging
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spikecanary import forecast, sentinel, tables
from spikecanary.config import Config
from spikecanary.outputs import figures

logger = logging.getLogger(__name__)

#: The page's figures take at most so many bytes, as base64: thousands of recordings still open.
FIGURE_BYTES = 15_000_000
BASE64 = 4 / 3
#: Columns of the table, and how a person calls them.
COLUMNS = {
    "recording": "recording",
    "sort": "sort",
    "verdict": "verdict",
    "outcome": "canary",
    "category": "category",
    "failure": "failure",
    "n_units": "units",
    "n_good": "good",
    "duration_s": "length, s",
    "canary_wall_s": "canary, s",
    "sort_wall_s": "sort, s",
    "forecast_s": "forecast, s",
    "sort_mem_mb": "memory, MB",
    "host": "host",
}
NUMBERS = (
    "n_units",
    "n_good",
    "duration_s",
    "canary_wall_s",
    "sort_wall_s",
    "forecast_s",
    "sort_mem_mb",
)
#: What a recording's own section does not repeat.
HIDDEN = ("recording", "reason", "remedy", "warnings")


def write(path: Path, template: Path, config: Config, results: Path) -> None:
    """Write the report of the recordings in a summary.

    Parameters
    ----------
    path : Path
        The page; appears whole or not at all.
    template : Path
        Its Jinja2 template.
    config : Config
        The configuration, which is shown.
    results : Path
        The results folder, with ``summary.tsv``.
    """
    import jinja2

    rows = tables.read(results / "summary.tsv")
    shown = choose_figures(results, rows)
    # What is shown is other people's text: every value is escaped.
    page = jinja2.Template(template.read_text(encoding="utf-8"), autoescape=True)
    text = page.render(
        title=f"Spike Canary: {len(rows)} recordings",
        written=sentinel.now(),
        totals=count(rows, config, results),
        unexpected=[row for row in rows if row["outcome"] == "unexpected"],
        reasons=group_reasons(rows),
        table=make_table(rows),
        recordings=[describe(row, shown[row["recording"]]) for row in rows],
        versions={"python": platform.python_version(), **sentinel.package_versions()},
        config=json.dumps(config.model_dump(mode="json"), indent=1),
    )
    sentinel.write_atomic(path, text)
    logger.info("%d recordings, %.1f MB", len(rows), len(text) / 1e6)


def _number(text: str) -> float:
    """Return a number of a table; NaN where it is empty."""
    return float(text) if text else math.nan


def _short(text: str) -> str:
    """Return a number of a table with one decimal; nothing where it is empty."""
    return f"{float(text):.1f}".removesuffix(".0") if text else ""


def _sum(rows: Sequence[Mapping[str, str]], column: str) -> float:
    return math.fsum(value for row in rows if not math.isnan(value := _number(row[column])))


def count(rows: Sequence[Mapping[str, str]], config: Config, results: Path) -> dict[str, Any]:
    """Return the batch's totals: recordings by state, time spent, time saved in hours.

    Saved are the sorts that stopped recordings would have run: what their canary forecast,
    or the configured rates, of those whose length is known.
    """
    states: dict[str, int] = {}
    for row in rows:
        states[row["sort"]] = states.get(row["sort"], 0) + 1
    stopped = [row for row in rows if row["sort"] == "stopped"]
    return {
        "n": len(rows),
        "states": states,
        "n_unexpected": sum(row["outcome"] == "unexpected" for row in rows),
        "n_units": round(_sum(rows, "n_units")),
        "n_good": round(_sum(rows, "n_good")),
        "canaries_h": _sum(rows, "canary_wall_s") / 3600,
        "sorts_h": _sum(rows, "sort_wall_s") / 3600,
        "saved_h": math.fsum(_spared_s(row, config, results) for row in stopped) / 3600,
    }


def _spared_s(row: Mapping[str, str], config: Config, results: Path) -> float:
    if row["forecast_s"]:
        return float(row["forecast_s"])
    if not row["duration_s"]:
        return 0.0
    record = sentinel.read_record(results / row["recording"] / "canary.json")
    history = _history(forecast.history_path(results, record.sorter.params_digest))
    rates = forecast.by_rates(config.forecast, float(row["duration_s"]), 0.0, history)
    return rates["wall_s"].likely


@functools.lru_cache(maxsize=8)
def _history(path: Path) -> list[forecast.Finished]:
    return forecast.read_history(path)


def group_reasons(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Count what went wrong by category and class, each with its remedy, most first."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if not row["failure"]:
            continue
        key = (row["category"] or "not classified", row["failure"])
        group = groups.setdefault(
            key,
            {"category": key[0], "failure": key[1], "remedy": row["remedy"], "recordings": []},
        )
        group["recordings"].append(row["recording"])
    return sorted(groups.values(), key=lambda group: -len(group["recordings"]))


def make_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table to sort and filter, with all that it needs: DataTables, by itables."""
    import itables
    import pandas as pd
    from itables import to_html_datatable
    from itables.javascript import generate_init_offline_itables_html

    frame = pd.DataFrame(
        [[_short(row[name]) if name in NUMBERS else row[name] for name in COLUMNS] for row in rows],
        columns=list(COLUMNS.values()),
    )
    bundle = Path(itables.__file__).parent / "html/dt_bundle.js"
    return generate_init_offline_itables_html(bundle) + to_html_datatable(
        frame,
        table_id="batch",
        connected=False,
        maxBytes=0,
        showIndex=False,
        lengthMenu=[25, 100, 1000],
        layout={
            "topStart": "search",
            "topEnd": "pageLength",
            "bottomStart": "info",
            "bottomEnd": "paging",
        },
        column_filters="footer",
        text_in_header_can_be_selected=False,
        classes="display compact",
        style="width:100%",
    )


def choose_figures(
    results: Path, rows: Sequence[Mapping[str, str]]
) -> dict[str, list[dict[str, str]]]:
    """Return each recording's figures, as many of all as fit into one page.

    All figures, or an overview of each recording and links, or links alone.
    """
    shown = {row["recording"]: figures.of_recording(results / row["recording"]) for row in rows}
    paths = [path for found in shown.values() for path in found.values()]
    if sum(path.stat().st_size for path in paths) * BASE64 <= FIGURE_BYTES:
        return {
            recording: [
                {"name": name, "path": _link(path, results), "data": _inline(path)}
                for name, path in found.items()
            ]
            for recording, found in shown.items()
        }
    small = {recording: figures.overview(results / recording) for recording in shown}
    if sum(map(len, small.values())) * BASE64 > FIGURE_BYTES:
        small = dict.fromkeys(shown, b"")
    return {
        recording: [
            *(
                [{"name": "", "path": "", "data": _encode(small[recording], "webp")}]
                if found
                else []
            ),
            *({"name": name, "path": _link(path, results)} for name, path in found.items()),
        ]
        for recording, found in shown.items()
    }


def _link(path: Path, results: Path) -> str:
    return path.relative_to(results).as_posix()


def _inline(path: Path) -> str:
    return _encode(path.read_bytes(), path.suffix.removeprefix("."))


def _encode(picture: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}" if picture else ""


def describe(row: Mapping[str, str], shown: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return what a recording's own section shows."""
    return {
        **{name: row[name] for name in HIDDEN},
        "facts": {name: value for name, value in row.items() if value and name not in HIDDEN},
        "figures": shown,
    }
