"""Recordings: the table, opening one through its reader, windows, preprocessing."""

import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from spikecanary.config import BadInputError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]*"
#: Folders of a results folder that are no recordings.
RESERVED_IDS = ("gates", "waves")
REQUIRED_COLUMNS = ("recording", "path", "reader")
OPTIONAL_COLUMNS = ("stream_id", "reader_options", "probe", "start_s", "end_s", "sorter")


class Recording(BaseModel):
    """One row of the recordings table.

    ``start_s`` and ``end_s`` are seconds from the first sample of the recording (of
    the first path, where several are concatenated); None is the beginning or the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    paths: tuple[str, ...]
    reader: str
    stream_id: str | None = None
    reader_options: dict[str, Any] = {}
    probe: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    sorter: str | None = None
    metadata: dict[str, str] = {}
    line: int | None = None

    def files(self) -> list[str]:
        """Return the paths and the probe file that exist here."""
        named = [*self.paths, *([self.probe] if self.probe else [])]
        return [path for path in named if Path(path).exists()]


def read_table(path: str | Path) -> list[Recording]:
    """Read the recordings table.

    Parameters
    ----------
    path : str or Path
        A TSV file. Empty lines and lines that begin with ``#`` are comments.

    Returns
    -------
    list of Recording
        One a row, in the order of the file; none where the table has no row yet.

    Raises
    ------
    BadInputError
        All problems of the table, each with its line.
    """
    lines = _read_lines(path)
    table = _parse(path, lines)
    _check_columns(path, table)
    rows: list[Recording] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for (line, _), fields in zip(lines[1:], table.to_dict("records"), strict=True):
        where = f"{path}, line {line}"
        row, row_problems = _read_row({str(k): str(v).strip() for k, v in fields.items()})
        problems += [f"{where} (recording {fields['recording']!r}): {p}" for p in row_problems]
        if row is None:
            continue
        if row.id in first_line:
            problems.append(
                f"{where}: recording {row.id!r} is already in line {first_line[row.id]}; "
                "give each row an id of its own"
            )
        first_line.setdefault(row.id, line)
        rows.append(row.model_copy(update={"line": line}))
    if problems:
        raise BadInputError(problems)
    return rows


def _read_lines(path: str | Path) -> list[tuple[int, str]]:
    """Return the table's lines with their numbers, without comments and empty lines."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        msg = f"{path}: cannot read the recordings table: {err}; set `recordings` in the config"
        raise BadInputError([msg]) from err
    numbered = enumerate(text.splitlines(), start=1)
    return [(n, line) for n, line in numbered if line.strip() and not line.startswith("#")]


def _parse(path: str | Path, lines: list[tuple[int, str]]) -> "pd.DataFrame":
    import pandas as pd

    if not lines:
        msg = f"{path}: is empty; its first line names the columns {', '.join(REQUIRED_COLUMNS)}"
        raise BadInputError([msg])
    n_columns = lines[0][1].count("\t") + 1
    problems = [
        f"{path}, line {n}: {line.count(chr(9)) + 1} fields, but the header has {n_columns}"
        for n, line in lines[1:]
        if line.count("\t") + 1 > n_columns
    ]
    if problems:
        raise BadInputError(problems)
    text = "\n".join(line for _, line in lines)
    table = pd.read_csv(io.StringIO(text), sep="\t", dtype=str, keep_default_na=False)
    return table.fillna("")


def _check_columns(path: str | Path, table: "pd.DataFrame") -> None:
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    others = [column for column in table.columns if column not in known]
    problems = []
    for column in REQUIRED_COLUMNS:
        if column not in table.columns:
            hint = did_you_mean(column, others) if others else ""
            problems.append(f"{path}: column {column!r} is missing{hint}")
    if problems:
        raise BadInputError(problems)


def _read_row(fields: Mapping[str, str]) -> tuple[Recording | None, list[str]]:
    """Turn a row's text fields into a recording; collect what is wrong with them."""
    problems = []
    recording = fields["recording"]
    if not re.fullmatch(ID_PATTERN, recording):
        problems.append(
            f"illegal id {recording!r}; use letters, digits, '.', '_' and '-', the first a "
            "letter or digit"
        )
    if recording in RESERVED_IDS:
        problems.append(f"id {recording!r} is the name of a folder of the results; use another")
    paths = tuple(part.strip() for part in fields["path"].split(";") if part.strip())
    if not paths:
        problems.append("column path is empty")
    if not fields["reader"]:
        problems.append("column reader is empty")
    options = _read_options(fields.get("reader_options", ""), problems)
    start_s = _read_seconds("start_s", fields.get("start_s", ""), problems)
    end_s = _read_seconds("end_s", fields.get("end_s", ""), problems)
    if end_s is not None and end_s <= (start_s or 0.0):
        problems.append(f"end_s {end_s:g} s is not after start_s {start_s or 0.0:g} s")
    if problems:
        return None, problems
    row = Recording(
        id=recording,
        paths=paths,
        reader=fields["reader"],
        stream_id=fields.get("stream_id") or None,
        reader_options=options,
        probe=fields.get("probe") or None,
        start_s=start_s,
        end_s=end_s,
        sorter=fields.get("sorter") or None,
        metadata={
            name: value
            for name, value in fields.items()
            if name not in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
        },
    )
    return row, []


def _read_options(text: str, problems: list[str]) -> dict[str, Any]:
    if not text:
        return {}
    try:
        options = json.loads(text)
    except ValueError as err:
        problems.append(f"reader_options is not JSON: {err}, got {text!r}")
        return {}
    if not isinstance(options, dict):
        problems.append(f'reader_options must be a JSON object ({{"name": value}}), got {text!r}')
        return {}
    return options


def _read_seconds(column: str, text: str, problems: list[str]) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        problems.append(f"{column} must be a time of 0 s or more, got {text!r}")
        return None
    return value


def ids(rows: Iterable[Recording]) -> list[str]:
    """Return the recordings' ids, in their order."""
    return [row.id for row in rows]
