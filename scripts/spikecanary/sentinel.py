"""The sentinel, the sort record and the journal: models, atomic write, read."""

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import socket
import time
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from spikecanary.failures import Category, ClassifiedSortFailure, DiskExhaustionError
from spikecanary.texts import PlainError, one_line, printable

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
SchemaVersion = Annotated[int, Field(le=SCHEMA_VERSION)]
NOT_IN_JOURNAL = {"settings", "canary_settings", "versions", "signal_map", "parts"}
#: Categories whose verdict the next invocation tests again.
RETESTED: tuple[Category, ...] = ("environment", "resource")
#: When this run of snakemake began: an environment variable, since its jobs are to know it too.
RUN_BEGAN = "SPIKECANARY_RUN_BEGAN"
#: A batch system sets one of these in its jobs: it holds them to what they asked for.
SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID")
#: What they were where this run began, since snakemake itself may be in such a job.
RUN_IN = "SPIKECANARY_RUN_IN"
Verdict = Literal["proceed", "stop"]
#: The first four are a canary's, the others a full sort's; ``failed`` is in journals only,
#: and so is ``interrupted``, which has no verdict.
Outcome = Literal["passed", "skipped", "stopped", "unexpected", "sorted", "unsortable", "failed"]


class RecordError(PlainError):
    """A sentinel or sort record that cannot be read."""


class UnreachableRecordError(RecordError):
    """One that cannot be read for now: no permission, storage that does not answer."""


#: So many characters of a text that may have several lines; the log has all of it.
LONGEST_TEXT = 4_000


def _as_line(value: Any) -> Any:
    return one_line(value) if isinstance(value, str) else value


def _as_texts(value: Any) -> Any:
    """Make all texts in plain data printable, and none longer than a person reads."""
    if isinstance(value, str):
        return printable(value[:LONGEST_TEXT])[:LONGEST_TEXT]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # which JSON does not know
    if isinstance(value, Mapping):
        return {_as_line(name): _as_texts(each) for name, each in value.items()}
    return [*map(_as_texts, value)] if isinstance(value, list | tuple | set) else value


#: Texts of other programs enter here: they are shown in terminals, tables and pages.
Line = Annotated[str, BeforeValidator(_as_line)]
Text = Annotated[str, BeforeValidator(_as_texts)]


class _Model(BaseModel):
    """Readers ignore fields that a newer writer of the same version added."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",  # of settings, which are compared
    )


class Failure(_Model):
    """What went wrong; ``category`` is None when the failure is not classified."""

    class_name: Line = Field(alias="class")
    category: Category | None = None
    message: Text
    remedy: Text = ""
    evidence: Annotated[dict[str, Any], BeforeValidator(_as_texts)] = {}

    @classmethod
    def of(cls, error: ClassifiedSortFailure) -> "Failure":
        """Describe a classified failure."""
        return cls.model_validate(error.describe())


class Measured(_Model):
    """What a supervised child process used; peaks are of its whole process tree."""

    wall_s: float
    stages_s: dict[str, float] = {}
    peak_rss_mb: float | None = None
    peak_vram_mb: float | None = None
    disk_mb: float | None = None


class Interval(_Model):
    """A forecast: the most likely value, and between what it should be."""

    low: FiniteFloat
    likely: FiniteFloat
    high: FiniteFloat


class Window(_Model):
    """The part of a recording that a sort read, in seconds from its start, and what came of it."""

    start_s: float
    end_s: float
    why: Line
    ended: Line
    n_units: int | None = None
    n_spikes: int | None = None
    measured: Measured | None = None


class MapRow(_Model):
    """A row of the signal map: a period, and the most channels of each kind in it."""

    start_s: float
    end_s: float
    flat: int
    railed: int
    non_finite: int
    active: int
    noise_uV: float | None  # noqa: N815 - the field's unit


class BadPeriod(_Model):
    """A stretch of a recording without a usable signal."""

    start_s: float
    end_s: float
    what: Literal["flat", "railed", "noisy", "quiet"]

    @property
    def is_dead(self) -> bool:
        """Whether there is no signal at all; one that is noisier or quieter may be another gain."""
        return self.what in ("flat", "railed")


class Part(_Model):
    """A file, or a segment of one, that was sorted; samples of the sort count over all parts."""

    file: str
    segment: int = 0  #: of the file
    start_sample: int  #: where the part begins in the sort
    first_sample: int = 0  #: of the segment that was sorted (start_s and end_s, or chunks)
    n_samples: int
    t_start_s: float  #: when its first sample was, by the recording's own clock
    lag_s: float = 0.0  #: by how much it is later than that, as whole segments follow each other
    began: str | None = None  #: when the segment began, in ISO 8601, where its header tells
    #: Where that clock is a list of times: samples of the segment and their times, the first, the
    #: last, and those around each gap. Between two of them it is even.
    clock: list[tuple[int, float]] = []


class SorterInfo(_Model):
    """Which sorter ran, a digest of what was set, and a full sort's parameters with defaults."""

    name: str
    version: str | None = None
    params_digest: str
    params: dict[str, Any] | None = None


class Essentials(_Model):
    """What of a record decides what runs, and what none lacks; rules read thousands."""

    schema_version: SchemaVersion
    recording: str
    verdict: Verdict
    outcome: Outcome
    reason: Line
    failure: Failure | None = None
    sorter: SorterInfo
    attempt: int = 0
    started_at: str
    finished_at: str
    duration_s: float | None = None
    n_units: int | None = None
    settings: dict[str, Any] = {}
    canary_settings: dict[str, Any] | None = None

    @property
    def category(self) -> Category | None:
        """The category of its failure, if there is one."""
        return self.failure.category if self.failure else None


class Record(Essentials):
    """A sentinel (``canary.json``) or a sort record (``sort.json``)."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    warnings: list[Line] = []
    windows: list[Window] = []
    signal_map: list[MapRow] = []
    bad_periods: list[BadPeriod] = []
    n_spikes: int | None = None
    n_samples: int | None = None
    n_channels: int | None = None
    sampling_frequency_hz: float | None = None
    parts: list[Part] = []
    forecast: dict[str, Interval] | None = None
    measured: Measured | None = None
    forced: bool = False
    host: str = Field(default_factory=socket.gethostname)
    versions: dict[str, str] = {}
    log: str | None = None


R = TypeVar("R", bound=_Model)


def now() -> str:
    """Return the present time in ISO 8601 with its zone."""
    return datetime.fromtimestamp(time.time()).astimezone().isoformat(timespec="seconds")


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide a sort, those installed here."""
    versions = {}
    names = ("spikecanary", "spikeinterface", "kilosort", "torch", "numpy", "neo", "probeinterface")
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _temporary(path: Path) -> Path:
    """Return the name of a path until it is whole, which tells whose it is."""
    return path.with_name(f".{path.name}~{socket.gethostname()}~{os.getpid()}.tmp")


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that it appears whole or not at all, and survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems do that to files alone
            os.fsync(folder)
    finally:
        os.close(folder)


def move(source: Path, target: Path) -> None:
    """Move a folder so that it appears whole, in place of one that is there.

    To another file system it is copied first, beside its place; DiskExhaustionError if it cannot.
    """
    new, old = (_temporary(target.with_name(f"{target.name}.{word}.")) for word in ("new", "old"))
    try:
        try:
            source.rename(new)
        except OSError as err:
            if err.errno != errno.EXDEV:
                raise
            shutil.copytree(source, new, symlinks=True)
        if target.exists():
            target.rename(old)
        new.rename(target)
    except shutil.Error as err:
        msg = f"{target.name} cannot be copied from {source}: {err}"
        raise DiskExhaustionError(msg, path=str(target)) from err
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for remainder in (new, old):
            shutil.rmtree(remainder, ignore_errors=True)


def write_record(path: Path, record: Record) -> None:
    """Write a sentinel or sort record atomically."""
    write_atomic(path, record.model_dump_json(by_alias=True, indent=1) + "\n")


def read_as(kind: type[R], path: Path) -> R:
    """Read a sentinel or sort record, or what of it a kind names.

    Raises FileNotFoundError, or RecordError: no record, one of a newer Spike Canary, or one that
    cannot be reached.
    """
    why: Any = "no file"
    try:
        if not path.is_fifo():  # which has no end
            return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise
    except ValidationError as err:
        wrong = err.errors()[0]
        if wrong["loc"] == ("schema_version",) and wrong["type"] == "less_than_equal":
            msg = (
                f"{path} has schema version {wrong['input']}, this Spike Canary reads up to "
                f"version {SCHEMA_VERSION}; use the Spike Canary that wrote it, or remove the file "
                "to have it made again"
            )
            raise RecordError(msg) from err
        why = ": ".join([*map(str, wrong["loc"]), wrong["msg"]])
    except IsADirectoryError:
        why = "a folder"
    except OSError as err:  # the record itself may be whole
        msg = f"{path} cannot be read ({err.strerror}): mend that, and run again"
        raise UnreachableRecordError(msg) from err
    msg = f"{path} is not a Spike Canary record ({why}); remove it to have it made again"
    raise RecordError(one_line(msg))


def read_record(path: Path) -> Record:
    """Read a sentinel or sort record; raise FileNotFoundError or RecordError."""
    return read_as(Record, path)


def read_if_any(kind: type[R], path: Path) -> R | None:
    """Return what :func:`read_as` does, or None where there is none."""
    with contextlib.suppress(FileNotFoundError):
        return read_as(kind, path)
    return None


def read_if_readable(kind: type[R], path: Path) -> R | None:
    """Return what :func:`read_as` does, or None where there is none that can be read."""
    with contextlib.suppress(FileNotFoundError, RecordError):
        return read_as(kind, path)
    return None


Kind = Literal["canary", "sort"]


def append_journal(path: Path, kind: Kind, record: Record) -> None:
    """Append one finished attempt to the journal, which names that attempt's own log."""
    dumped = record.model_dump(by_alias=True, exclude=NOT_IN_JOURNAL)
    entry: dict[str, Any] = {"kind": kind, **dumped}
    del entry["sorter"]["params"]
    log = Path(record.log or "")
    if log.is_symlink():
        entry["log"] = str(log.parent / log.readlink())
    append_line(path, entry)


def append_interrupted(
    path: Path, kind: Kind, recording: str, started_at: str, error: SystemExit
) -> None:
    """Append an attempt that a signal ended, which has no verdict."""
    entry = {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "recording": recording,
        "verdict": None,
        "outcome": "interrupted",
        "reason": getattr(error, "reason", "interrupted"),
        "exit_status": error.code,
        "host": socket.gethostname(),
        "started_at": started_at,
        "finished_at": now(),
    }
    append_line(path, entry)


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Append one line of JSON in one write; a line that was cut off before it is ended first.

    What keeps it from being written (a full disk) is logged: it must not cost the result.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            torn = False
            if file.tell():
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            file.write(b"\n" * torn + json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as err:
        logger.warning("%s could not be written: %s", path, err)


def read_journal(path: Path) -> list[Mapping[str, Any]]:
    """Read the attempts of a journal, oldest first; what cannot be read is left out."""
    try:
        # A FIFO has no end.
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    except OSError:  # it costs no record
        return []
    entries: list[Mapping[str, Any]] = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # the torn last line of a process that was killed
            continue
        if isinstance(entry, dict) and isinstance(entry.get("failure") or {}, dict):
            entries.append(entry)
    return entries


def begin_run() -> None:
    """Note that a run of snakemake begins now, in the environment of its jobs."""
    os.environ |= {RUN_BEGAN: now(), RUN_IN: _scheduled_as()}


def _scheduled_as() -> str:
    return " ".join(os.environ.get(name, "-") for name in SCHEDULERS)


def is_job_of_scheduler() -> bool:
    """Whether a batch system holds this process to what its own job asked for."""
    is_held = any(name in os.environ for name in SCHEDULERS)
    return is_held and _scheduled_as() != os.environ.get(RUN_IN)


def run_began() -> datetime:
    """Return when this run of snakemake began; where that is not known, long ago."""
    return datetime.fromisoformat(os.environ.get(RUN_BEGAN, "2000-01-01T00:00:00+00:00"))


def read_attempts_of_run(path: Path, kind: Kind) -> list[Mapping[str, Any]]:
    """Read the attempts of a journal that ended in this run of snakemake, oldest first."""
    began, found = run_began(), []
    for entry in read_journal(path):
        with contextlib.suppress(KeyError, TypeError, ValueError):  # a time that is none
            if entry.get("kind") == kind and datetime.fromisoformat(entry["finished_at"]) >= began:
                found.append(entry)
    return found


def count_retestable(path: Path) -> int:
    """Count the canary's environment and resource stops in a journal.

    As a parameter of rule canary, the number makes the next invocation test the recording again.
    """
    return sum(
        entry.get("kind") == "canary"
        and entry.get("verdict") == "stop"
        and (entry.get("failure") or {}).get("category") in RETESTED
        for entry in read_journal(path)
    )
