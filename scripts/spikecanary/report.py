"""The report: one self-contained page of a batch, for people."""

import base64
import json
import logging
import math
import platform
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from spikecanary import forecast, sentinel, summary
from spikecanary.config import Config
from spikecanary.outputs import all_files, figures
from spikecanary.table import read_tsv

logger = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_suffix(".html")
#: Figures are inlined up to so many bytes of the page, those of recordings in trouble first. All
#: others are links, so that a page of thousands of recordings still opens.
FIGURE_BYTES = 15_000_000
#: Columns of the table, and how a person calls them.
COLUMNS = {
    "recording": "recording",
    "sort": "sort",
    "verdict": "verdict",
    "outcome": "canary",
    "category": "category",
    "failure": "failure",
    "n_sorted": "units sorted",
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
    "n_sorted",
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


def write(path: Path, config: Config, results: Path) -> None:
    """Write the report of the recordings in a summary.

    Parameters
    ----------
    path : Path
        The page; appears whole or not at all.
    config : Config
        The configuration, which is shown.
    results : Path
        The results folder, with ``summary.tsv``.
    """
    import jinja2

    rows = read_tsv(results / "summary.tsv")
    shown = choose_figures(results, rows)
    # What is shown is other people's text: every value is escaped.
    page = jinja2.Template(TEMPLATE.read_text(encoding="utf-8"), autoescape=True)
    text = page.render(
        title=f"Spike Canary: {len(rows)} recordings",
        written=sentinel.now(),
        totals=count(rows, results),
        unexpected=sorted(
            (row for row in rows if row["outcome"] == "unexpected"), key=lambda row: row["reason"]
        ),
        draft=summary.DRAFT,
        reasons=group_reasons(rows),
        table=make_table(rows),
        recordings=[describe(row, shown[row["recording"]]) for row in rows],
        versions={"python": platform.python_version(), **sentinel.package_versions()},
        config=json.dumps(config.model_dump(mode="json"), indent=1),
    )
    sentinel.write_atomic(path, text)
    logger.info("%d recordings, %.1f MB", len(rows), len(text) / 1e6)


def end_failed_run(
    results: Path,
    further: Mapping[str, Mapping[str, str]],
    of_run: Collection[str],
    config: Config,
) -> None:
    """Write summary and report, whose rules did not run, and print how a run with errors ended.

    The parameters are those of :func:`spikecanary.summary.print_end`.
    """
    if of_run:
        summary.write(results / "summary.tsv", summary.describe(results, further))
        try:
            write(results / "report.html", config, results)
        except Exception:
            logger.exception("the report could not be written")
    summary.print_end(results, further, of_run, all_files(config.outputs))


def _sum(rows: Sequence[Mapping[str, str]], column: str) -> float:
    return math.fsum(float(row[column]) for row in rows if row[column])


def count(rows: Sequence[Mapping[str, str]], results: Path) -> dict[str, Any]:
    """Return the batch's totals: recordings by state, time spent, time saved in hours.

    Saved are the sorts of stopped recordings: what their canaries forecast, else what sorts with
    the same settings took, of those whose length is known.
    """
    states: dict[str, int] = {}
    for row in rows:
        states[row["sort"]] = states.get(row["sort"], 0) + 1
    stopped = [row for row in rows if row["sort"] == "stopped"]
    return {
        "n": len(rows),
        "states": states,
        "n_unexpected": sum(row["outcome"] == "unexpected" for row in rows),
        "n_sorted": round(_sum(rows, "n_sorted")),
        "n_units": round(_sum(rows, "n_units")),
        "n_good": round(_sum(rows, "n_good")),
        "canaries_h": _sum(rows, "canary_wall_s") / 3600,
        "sorts_h": _sum(rows, "sort_wall_s") / 3600,
        "saved_h": math.fsum(_forecast_s(row, results) for row in stopped) / 3600,
    }


def _forecast_s(row: Mapping[str, str], results: Path) -> float:
    """Return the time that a sort would have taken; 0 where its length is not known."""
    if row["forecast_s"] or not row["duration_s"]:
        return float(row["forecast_s"] or 0.0)
    record = sentinel.read_record(results / row["recording"] / "canary.json")
    history = forecast.read_history(forecast.history_path(results, record.sorter.params_digest))
    return forecast.forecast_by_rates(float(row["duration_s"]), 0.0, history)["wall_s"].likely


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


def _shorten(text: str, column: str) -> str:
    """Return a table's value, numbers with one decimal at most."""
    return f"{float(text):.1f}".removesuffix(".0") if text and column in NUMBERS else text


def make_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table to sort and filter, with all that it needs: DataTables, by itables."""
    import itables
    import pandas as pd
    from itables import to_html_datatable
    from itables.javascript import generate_init_offline_itables_html

    frame = pd.DataFrame(
        [[_shorten(row[name], name) for name in COLUMNS] for row in rows],
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
    """Return each recording's figures: name, path, and data where it fits into the page."""
    free = FIGURE_BYTES
    shown: dict[str, list[dict[str, str]]] = {}
    for row in sorted(rows, key=lambda row: not summary.is_in_trouble(row)):
        shown[row["recording"]] = []
        for name, path in figures.list_figures(results / row["recording"]).items():
            figure = {"name": name, "path": path.relative_to(results).as_posix(), "data": ""}
            if (size := path.stat().st_size * 4 // 3) <= free:  # as base64
                free -= size
                encoded = base64.b64encode(path.read_bytes()).decode()
                figure["data"] = f"data:image/png;base64,{encoded}"
            shown[row["recording"]].append(figure)
    return shown


def describe(row: Mapping[str, str], shown: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return what a recording's own section shows."""
    return {
        **{name: row[name] for name in HIDDEN},
        "facts": {name: value for name, value in row.items() if value and name not in HIDDEN},
        "figures": shown,
    }
