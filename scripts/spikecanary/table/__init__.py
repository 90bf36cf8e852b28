"""The recordings table: its rows and their problems."""

import csv
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from spikecanary.config import SHORTEST_S, BadInputError
from spikecanary.config.pathtypes import UserPath, expand, not_a_name, not_readable
from spikecanary.sentinel import write_atomic
from spikecanary.texts import did_you_mean, printable, quote

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]*"
#: What stands in the results folder and belongs to no recording; the last two may stand there.
RESERVED_IDS = (
    *("gates", "waves", "sessions", "history", "summary.tsv", "report.html", "plan.tsv"),
    *("logs", "benchmarks"),
)
#: What no name of a file, channel or option holds.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
REQUIRED_COLUMNS = ("recording", "path", "reader")
#: What people add to the name of a column.
SUFFIX = re.compile(r"_(s|ms|ids?|name|file|path|json|sec|seconds)$")
#: What other programs call a column.
ALIASES = {
    **dict.fromkeys(("t_start", "begin"), "start_s"),
    **dict.fromkeys(("t_stop", "t_end", "stop"), "end_s"),
    **dict.fromkeys(("sorter_param", "sorter_params", "parameters"), "params"),
    **dict.fromkeys(("chans", "channel"), "channels"),
    "reader_kwargs": "reader_options",
    "probefile": "probe",
    "preproc": "preprocessing",
    "bad_ch": "bad_channels",
}
#: What to do about a table that is no text.
SAVE_AS = "save it as text with tabs (TSV, UTF-8)"
#: How a line begins by which discover says what is not in the table.
COMMENT = "# discover: "
#: Readers that find the same data from the folders above.
NESTED = ("spikeglx", "openephysbinary")
#: Reader options that choose a stream.
STREAM_OPTIONS = (
    *("electrical_series_path", "rec_name", "cbin_file_path", "stream_name"),
    *("experiment_name", "block_index"),
)
#: Columns of a table that discover begins, and those that it adds where it can fill them.
FIRST_COLUMNS = ("recording", "path", "reader", "stream_id", "reader_options", "channels")
TOLD_COLUMNS = ("subject", "session", "probe_name")
#: What to say instead of pydantic's own message.
MESSAGES = {
    "missing": "is empty",
    "too_short": "is empty",
    "string_pattern_mismatch": "use letters, digits and '.', '_', '-', a letter or digit first",
}


def _split_paths(value: Any) -> Any:
    """Split the paths of a table's field; they are separated by semicolons."""
    if not isinstance(value, str):
        return value
    return [path.strip() for path in value.split(";") if path.strip()]


def _parse_options(value: Any) -> Any:
    """Parse the JSON of a table's field."""
    try:
        options = json.loads(value) if isinstance(value, str) else value
        json.dumps(options, ensure_ascii=False).encode()  # records hold it
    except (ValueError, RecursionError) as err:
        msg = f"not JSON: {err}"
        raise ValueError(msg) from err
    try:
        _Options.model_validate(options if isinstance(options, dict) else {})
    except ValidationError as err:
        # Of what is a number or a list, what is wrong with the number.
        why = {each["loc"][0]: each["msg"] for each in reversed(err.errors())}
        msg = "; ".join(f"{name}: {text}" for name, text in why.items())
        raise ValueError(msg) from err
    return options


class _Options(BaseModel):
    """Options of readers that have a meaning, and limits, of their own."""

    model_config = ConfigDict(allow_inf_nan=False, strict=True)

    sampling_frequency: PositiveFloat = 1
    num_channels: PositiveInt = 1
    file_offset: NonNegativeInt = 0
    time_axis: Literal[0, 1] = 0
    gain_to_uV: float | list[float] | None = None  # noqa: N815 - the reader's
    offset_to_uV: float | list[float] | None = None  # noqa: N815 - the reader's


def _parse_chunks(value: Any) -> Any:
    """Parse the chunks of a table's field, such as ``0-60,120-300``."""
    if not isinstance(value, str):
        return value
    chunks = [chunk.split("-") for chunk in value.split(",")]
    if any(len(chunk) != 2 for chunk in chunks):  # noqa: PLR2004
        msg = "write start-end in seconds, such as 0-60,120-300"
        raise ValueError(msg)
    return chunks


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Recording(BaseModel):
    """One row of the recordings table.

    ``start_s`` and ``end_s`` are seconds from the first sample of the recording (of
    the first path, where several are concatenated); None is the beginning or the end. ``chunks``
    are several such pieces, which are joined.
    ``channels`` and ``bad_channels`` are read by :mod:`spikecanary.recording.probes`;
    ``preprocessing`` and ``params`` name entries of the config.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern=f"^{ID_PATTERN}$")]
    paths: Annotated[tuple[UserPath, ...], BeforeValidator(_split_paths), Field(min_length=1)]
    reader: str
    stream_id: str | None = None
    reader_options: Annotated[dict[str, Any], BeforeValidator(_parse_options)] = {}
    probe: UserPath | None = None
    wiring: str | None = None
    channels: str | None = None
    bad_channels: str | None = None
    start_s: Seconds | None = None
    end_s: Seconds | None = None
    chunks: Annotated[tuple[tuple[Seconds, Seconds], ...], BeforeValidator(_parse_chunks)] = ()
    sorter: str | None = None
    preprocessing: str | None = None
    params: str | None = None
    metadata: dict[str, str] = {}
    line: int | None = None

    @field_validator("paths", "reader", "stream_id", "probe", "wiring", "channels", mode="before")
    @classmethod
    def _shown_as_it_is(cls, value: Any) -> Any:
        if isinstance(value, str) and (found := CONTROL.search(value)):
            msg = f"holds the control character {found[0]!r}; take it out"
            raise ValueError(msg)
        return value

    @field_validator("id")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        reserved = "is the name of a file or folder of the results; choose another id"
        if why := reserved if value.casefold() in RESERVED_IDS else not_a_name(value):
            raise ValueError(why)
        return value

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        if why := next(self._misfits(), ""):
            raise ValueError(why)
        return self

    def _misfits(self) -> Iterator[str]:
        """Say which fields do not fit together."""
        options = self.reader_options
        if self.stream_id and str(options.get("stream_id", self.stream_id)) != self.stream_id:
            yield "stream_id is a column, and another one is in reader_options: take one out"
        gain = options.get("gain_to_uV")
        if 0 in (gain if isinstance(gain, list) else [gain]):
            yield "reader_options: gain_to_uV is 0, so all samples would be 0 uV"
        if self.wiring and not self.probe:
            yield "column wiring is set, but column probe is empty"
        first_s = self.start_s or 0.0
        if self.end_s is not None and self.end_s <= first_s:
            yield f"end_s {self.end_s:g} s is not after start_s {first_s:g} s"
        if self.chunks and (self.start_s, self.end_s) != (None, None):
            yield "chunks is set, and so is start_s or end_s: leave these empty"
        for before_s, after_s in pairwise(chain.from_iterable(self.chunks)):
            if after_s <= before_s:
                wrong = f"column chunks: {after_s:g} s is not after {before_s:g} s"
                yield f"{wrong}; write chunks in their order, apart from each other"
        for start_s, end_s in self.pieces():
            if end_s is not None and end_s - start_s < SHORTEST_S:
                yield f"{start_s:g}-{end_s:g} s is less than {SHORTEST_S:g} s; they are in seconds"

    def pieces(self) -> tuple[tuple[float, float | None], ...]:
        """Return what is sorted of the recording: begin and end of each piece in s."""
        return self.chunks or ((self.start_s or 0.0, self.end_s),)

    @property
    def filled(self) -> dict[str, str]:
        """Its further columns that are not empty."""
        return {name: value for name, value in self.metadata.items() if value}

    @property
    def session(self) -> str | None:
        """Its session, as a name of a file, with the subject where a column tells it."""
        subject = self.metadata.get("subject") or self.metadata.get("subject_id")
        session = self.metadata.get("session")
        named = "_".join(filter(None, (subject, session)))
        return re.sub(r"[^\w.-]", "-", named, flags=re.ASCII) if session else None

    @property
    def is_remote(self) -> bool:
        """Whether any of its paths is a URL."""
        return any(map(is_url, self.paths))


#: Columns of the table, and the fields of a recording that they fill.
COLUMNS = {
    {"id": "recording", "paths": "path"}.get(field, field): field
    for field in Recording.model_fields
    if field not in ("metadata", "line")
}


def is_url(path: str) -> bool:
    """Return whether a path is a URL, which its reader is given as it is."""
    return "://" in path


def read_table(path: str | Path) -> list[Recording]:
    """Read the recordings table, a TSV file, or raise BadInputError with all its problems.

    Empty lines, and lines that begin with #, are comments.
    """
    recordings, problems = read_valid(path)
    if problems:
        raise BadInputError(problems)
    return recordings


def read_valid(path: str | Path) -> tuple[list[Recording], list[str]]:
    """Return the rows of the recordings table that are valid, and the problems of the others.

    Raises BadInputError where there are no rows to speak of.
    """
    header, lines, problems = _read_lines(path)
    recordings = []
    first_lines: dict[str, int] = {}
    for line, fields in lines:
        where = f"{path}, line {line}"
        if len(fields) > len(header):
            problems.append(f"{where}: {len(fields)} fields, but the header has {len(header)}")
        if len(fields) == 1:
            problems.append(f"{where}: no tab; fields are separated by tabs")
            continue
        named = dict(zip_longest(header, fields[: len(header)], fillvalue=""))
        row: dict[str, Any] = {COLUMNS[k]: v for k, v in named.items() if k in COLUMNS and v}
        own = {printable(k): printable(v) for k, v in named.items() if k and k not in COLUMNS}
        row |= {"metadata": own, "line": line}
        try:
            recordings.append(Recording.model_validate(row))
        except ValidationError as err:
            problems += [_describe(path, row, each) for each in err.errors()]
        id_ = named["recording"]
        first = first_lines.setdefault(id_.casefold(), line)  # some disks know no upper case
        if id_ and first != line:
            text = f"recording {quote(id_)} is already in line {first}; choose another id"
            problems.append(f"{where}: {text}")
    return recordings, problems


_Lines = list[tuple[int, list[str]]]


def _read_lines(path: str | Path) -> tuple[list[str], _Lines, list[str]]:
    """Return the header's fields, number and fields of each line that is no comment, problems."""
    lines: _Lines = []
    problems: list[str] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip() or _is_comment(line):
            continue
        try:
            (fields,) = csv.reader([line], delimiter="\t", strict=True)
        except csv.Error as err:
            hint = "a quote that is not closed, or a line break in a field"
            why = err if "larger" in str(err) else f"{hint} ({err})"
            problems.append(f"{path}, line {number}: {why}")
            if not lines:  # the header
                raise BadInputError(problems) from err
            continue
        lines.append((number, [field.strip() for field in fields]))
    if not lines:
        msg = f"{path}: is empty; its first line names the columns {', '.join(REQUIRED_COLUMNS)}"
        raise BadInputError([msg])
    (_, header), *lines = lines
    if len(header) == 1 and header[0] not in COLUMNS:
        msg = f"{path}: no tab in its first line; columns are separated by tabs"
        raise BadInputError([msg])
    others = {*header} - {*COLUMNS, ""}
    wrong = [
        f"{path}: column {column!r} is missing{did_you_mean(column, others)}"
        for column in REQUIRED_COLUMNS
        if column not in header
    ]
    wrong += [
        f"{path}: column {quote(column)} appears twice"
        for column in dict.fromkeys(header)
        if column and header.count(column) > 1
    ]
    if wrong:
        raise BadInputError([*problems, *wrong])
    return header, lines, [*problems, *_near_misses(path, header)]


def _is_comment(line: str) -> bool:
    """Whether a line is a comment; spreadsheets put one with a comma in quotes."""
    return line.lstrip('"').startswith("#")


def _read_text(path: str | Path) -> str:
    """Return a table's text; its lines end as on any system."""
    why, text = not_readable(path), ""
    try:
        text = "" if why else Path(path).read_text(encoding="utf-8-sig")
        why = f"it holds NUL: {SAVE_AS}" if "\0" in text else why
    except (OSError, UnicodeDecodeError) as err:
        why = f"{err}: {SAVE_AS}" if isinstance(err, ValueError) else str(err)
    if why:
        msg = f"{path}: cannot read the recordings table: {why} (`recordings` in the config)"
        raise BadInputError([msg])
    return text


def _near_misses(path: str | Path, header: Iterable[str]) -> Iterator[str]:
    """Name own columns that look like an optional one, which would be ignored."""
    known = {SUFFIX.sub("", name): name for name in COLUMNS if name not in REQUIRED_COLUMNS}
    for column in header:
        if column not in (*COLUMNS, *TOLD_COLUMNS):
            plain = SUFFIX.sub("", re.sub(r"[^a-z]+", "_", column.casefold()).strip("_"))
            near = [known[each] for each in get_close_matches(plain, known, n=1, cutoff=0.85)]
            if meant := ALIASES.get(plain) or "".join(near):
                what = f"{path}: column {quote(column)} is not read"
                yield f"{what} (did you mean {meant!r}?); rename it"


def _describe(path: str | Path, row: Mapping[str, Any], error: Mapping[str, Any]) -> str:
    """Describe one of pydantic's errors: line, recording, column, what is wrong."""
    where = f"{path}, line {row['line']} (recording {quote(row.get('id', ''))})"
    fields = [name for name, field in COLUMNS.items() if field in error["loc"]]
    column = f", column {fields[0]}" if fields else ""
    message = MESSAGES.get(error["type"], error["msg"].removeprefix("Value error, "))
    got = f", got {quote(error['input'])}" if isinstance(error["input"], str) else ""
    return f"{where}{column}: {message}{got}"


class GrowingTable:
    """The recordings table as a text: rows are added to it, and none is changed.

    It need not exist. BadInputError has all its problems.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = _read_text(path) if path.exists() else ""
        self.lines = text.removesuffix("\n").split("\n") if text else []
        rows = (n for n, line in enumerate(self.lines) if line.strip() and not _is_comment(line))
        self.header_at = at = next(rows, len(self.lines))
        if at < len(self.lines):
            read_table(path)
        else:
            self.lines.append("\t".join(FIRST_COLUMNS))
        (header,) = csv.reader([self.lines[at]], delimiter="\t")
        self.columns = [name.strip() for name in header]
        self.ids: set[str] = set()
        self.sessions: list[tuple[str, str, str]] = []
        self.known: dict[tuple[str, ...], set[tuple[str, float]]] = {}  #: channels, end in s
        for line in self.lines[:at] + self.lines[at + 1 :]:
            if line.strip() and _told_path(line) is None:
                self._know(line)

    def _know(self, line: str) -> None:
        """Remember a row, and one that a person made a comment."""
        fields = next(csv.reader([line.lstrip("# ")], delimiter="\t"))
        row = {name: text.strip() for name, text in zip(self.columns, fields, strict=False)}
        if not all(map(row.get, ("reader", "recording", "path"))):
            return
        self.ids.add(row["recording"])
        path = row["path"].split(";")[0]
        self.sessions.append((row.get("subject", ""), row.get("session", ""), path))
        try:
            end_s = float(row.get("end_s") or row.get("chunks", "").split("-")[-1] or "inf")
        except ValueError:  # in a comment
            end_s = float("inf")
        for path in _split_paths(row["path"]):
            key = stream_key(row | {"path": path})
            for each in (key, key[:1]):
                self.known.setdefault(each, set()).add((row.get("channels", ""), end_s))

    def select_new(self, rows: Sequence[dict[str, str]]) -> list[bool]:
        """Say of each row whether the table lacks it.

        A row is known by path, stream and channels; one that begins where those known end is new. A
        stream whose row has other channels than all rows proposed was edited: none of them is new.
        """
        proposed: dict[tuple[str, ...], set[str]] = {}
        for row in rows:
            proposed.setdefault(stream_key(row), set()).add(row.get("channels", ""))
        n_streams = Counter(path for path, *_ in proposed)
        are_new = []
        for row in rows:
            key = stream_key(row)
            by_path = [key[:1]] if n_streams[key[0]] == 1 else []
            keys = [key, *by_path, *_keys_above(row)]
            rows_known = set().union(*(self.known.get(each, set()) for each in keys))
            end_s = max((end_s for _, end_s in rows_known), default=0.0)
            is_after = float(row.get("start_s") or 0) >= end_s
            known = set() if is_after else {channels for channels, _ in rows_known}
            are_new.append(known <= proposed[key] and row.get("channels", "") not in known)
        return are_new

    def add(
        self,
        rows: Sequence[Mapping[str, str]],
        left_out: Iterable[tuple[str, str, str]],
        looked_at: Container[str],
    ) -> None:
        """Write the table with more rows, and what was left out: path, stream, reason.

        Comments of discover on paths that have been looked at anew (real ones) are replaced.
        """
        lacking = {name for row in rows for name, value in row.items() if value} - {*self.columns}
        more = [name for name in (*COLUMNS, *TOLD_COLUMNS) if name in lacking]
        lines = list(self.lines)
        lines[self.header_at] = "\t".join([lines[self.header_at], *more])
        lines = [
            line
            for line in lines
            if (path := _told_path(line)) is None or os.path.realpath(path) not in looked_at
        ]
        lines += ["\t".join(row.get(n, "") for n in [*self.columns, *more]) for row in rows]
        lines += [COMMENT + "\t".join(" ".join(text.split()) for text in o) for o in left_out]
        if lines != self.lines or not self.path.exists():
            target = self.path.resolve()  # it may be a link to a table that others use
            target.parent.mkdir(parents=True, exist_ok=True)
            mode = target.stat().st_mode if target.exists() else None
            write_atomic(target, "\n".join(lines) + "\n")
            if mode is not None:
                target.chmod(stat.S_IMODE(mode))


def _told_path(line: str) -> str | None:
    """Return the path of a comment of discover, maybe in a spreadsheet's quotes; None for none."""
    if not line.lstrip('"').startswith(COMMENT):
        return None
    return next(csv.reader([line], delimiter="\t"))[0].removeprefix(COMMENT)


def _keys_above(row: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield the keys by which rows of the folders above hold a stream.

    A row of a record node (Open Ephys) names the experiment, or means the first one.
    """
    path, stream, options = stream_key(row)
    here, held = Path(path), [options]

    def number(experiment: Path) -> int:
        return int(re.sub(r"\D", "", experiment.name) or 0)

    if row["reader"] == "openephysbinary":
        is_first = all(number(x) >= number(here) for x in here.parent.glob("experiment*"))
        held = [str({"experiment_name": here.name}), *[options] * is_first]
    # The streams of a session's folder are numbered over all its nodes.
    nodes = [node for session in here.parents[1:2] for node in session.glob("Record Node*")]
    for above in here.parents[: 1 if nodes[1:] else 2] if row["reader"] in NESTED else ():
        yield from ((str(above), s, o) for s in {stream, stream or "0"} for o in held)


def stream_key(row: Mapping[str, str]) -> tuple[str, str, str]:
    """Return what tells the streams of all rows apart: path, stream, options."""
    try:
        options_of_row = json.loads(row.get("reader_options") or "{}")
        options = {name: options_of_row[name] for name in STREAM_OPTIONS if name in options_of_row}
    except (ValueError, TypeError):
        options = {}
    return os.path.realpath(expand(row["path"])), row.get("stream_id", ""), str(options)
