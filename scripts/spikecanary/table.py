"""The recordings table: its rows, and TSV files of a results folder."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from spikecanary.config import BadInputError, did_you_mean
from spikecanary.sentinel import write_atomic

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


def _check_id(value: str) -> str:
    if value in RESERVED_IDS:
        msg = f"{value!r} is the name of a folder of the results; use another id"
        raise ValueError(msg)
    return value


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _or(value: Any) -> BeforeValidator:
    """Return a validator that puts a value in place of an empty field."""
    return BeforeValidator(lambda text: text or value)


Time = Annotated[Annotated[float, Field(ge=0, allow_inf_nan=False)] | None, _or(None)]
Text = Annotated[str | None, _or(None)]


class _Row(BaseModel):
    """The fields of a row, as texts; further columns are kept as they are."""

    model_config = ConfigDict(extra="allow")

    recording: Annotated[
        str, StringConstraints(pattern=f"^{ID_PATTERN}$"), AfterValidator(_check_id)
    ]
    path: Annotated[list[str], BeforeValidator(_split), Field(min_length=1)]
    reader: Annotated[str, StringConstraints(min_length=1)]
    stream_id: Text = None
    reader_options: Annotated[Json[dict[str, Any]], _or("{}")] = {}
    probe: Text = None
    start_s: Time = None
    end_s: Time = None
    sorter: Text = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
            msg = f"end_s {self.end_s:g} s is not after start_s {self.start_s or 0.0:g} s"
            raise ValueError(msg)
        return self

    def as_recording(self, line: int) -> Recording:
        """Return the row as the recording that it describes."""
        fields = self.model_dump(include=set(OPTIONAL_COLUMNS))
        return Recording(
            id=self.recording,
            paths=tuple(self.path),
            reader=self.reader,
            **fields,
            metadata=self.model_extra or {},
            line=line,
        )


#: What pydantic's errors of a column mean for a table's author.
MEANINGS = {
    ("recording", "string_pattern_mismatch"): (
        "illegal id; use letters, digits, '.', '_' and '-', the first a letter or digit"
    ),
    ("path", "too_short"): "the column is empty",
    ("reader", "string_too_short"): "the column is empty",
    ("reader_options", "json_invalid"): "not JSON",
    ("reader_options", "dict_type"): 'must be a JSON object ({"name": value})',
    **{
        (column, kind): "must be a time of 0 s or more"
        for column in ("start_s", "end_s")
        for kind in ("float_parsing", "greater_than_equal", "finite_number")
    },
}


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
        All problems of the table, each with its line and column.
    """
    lines = _read_lines(path)
    fields = _parse(path, lines)
    numbers = [line for line, _ in lines[1:]]
    wheres = [
        f"{path}, line {line} (recording {row['recording']!r})"
        for line, row in zip(numbers, fields, strict=True)
    ]
    problems = _find_repeated([row["recording"] for row in fields], numbers, wheres)
    try:
        rows = TypeAdapter(list[_Row]).validate_python(fields)
    except ValidationError as err:
        problems += [f"{wheres[each['loc'][0]]}: {_describe(each)}" for each in err.errors()]  # type: ignore[index]
    if problems:
        raise BadInputError(problems)
    return [row.as_recording(line) for row, line in zip(rows, numbers, strict=True)]


def _describe(error: Mapping[str, Any]) -> str:
    """Describe one of pydantic's errors of a row: column, what is wrong, the value."""
    if len(error["loc"]) == 1:
        return str(error["msg"]).removeprefix("Value error, ")
    column = error["loc"][1]
    message = MEANINGS.get((column, error["type"]), error["msg"].removeprefix("Value error, "))
    return f"column {column}: {message}, got {error['input']!r}"


def _find_repeated(ids: list[str], numbers: list[int], wheres: list[str]) -> list[str]:
    """Find ids that an earlier line has too."""
    first: dict[str, int] = {}
    problems = []
    for id_, number, where in zip(ids, numbers, wheres, strict=True):
        if id_ in first:
            hint = f"the id is already in line {first[id_]}; give each row an id of its own"
            problems.append(f"{where}: {hint}")
        first.setdefault(id_, number)
    return problems


def _read_lines(path: str | Path) -> list[tuple[int, str]]:
    """Return the table's lines with their numbers, without comments and empty lines."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        msg = f"{path}: cannot read the recordings table: {err}; set `recordings` in the config"
        raise BadInputError([msg]) from err
    numbered = enumerate(text.splitlines(), start=1)
    return [(n, line) for n, line in numbered if line.strip() and not line.startswith("#")]


def _parse(path: str | Path, lines: list[tuple[int, str]]) -> list[dict[str, str]]:
    """Return the fields of each row by column, all as texts."""
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
    text = io.StringIO("\n".join(line for _, line in lines))
    if not problems:
        table = pd.read_csv(text, sep="\t", dtype=str, keep_default_na=False).fillna("")
        others = [str(name) for name in table if name not in (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)]
        problems = [
            f"{path}: column {name!r} is missing{did_you_mean(name, others) if others else ''}"
            for name in REQUIRED_COLUMNS
            if name not in table
        ]
    if problems:
        raise BadInputError(problems)
    rows = table.to_dict("records")
    return [{str(name): str(value).strip() for name, value in row.items()} for row in rows]


def write_tsv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table, whole or not at all; what is None or missing is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Read a table as texts, a dict a row; without pandas, whose import takes longer than a gate.

    Raises
    ------
    OSError
        It cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))
