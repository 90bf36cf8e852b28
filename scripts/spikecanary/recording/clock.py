"""The clock of a recording: its parts, its gaps, and when its spikes were."""

import contextlib
import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary.recording.integrity import (
    CLOCKS_DIFFER_S,
    find_times,
    open_ephys_streams,
    sample_numbers,
    with_all_channels,
)
from spikecanary.recording.probes import refuse
from spikecanary.sentinel import Part
from spikecanary.table import Recording, is_url
from spikecanary.texts import count, sentences, shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spikeinterface.core import BaseRecording

logger = logging.getLogger(__name__)

#: How Open Ephys notes beside its files when it began: milliseconds since 1970; a date.
UNIX_MS = re.compile(r"(?i)since midnight Jan 1st 1970 UTC\): *(\d{12,})")
CREATED = re.compile(r"<DATE>([^<]+)</DATE>")
#: How Intan's program ends the names of its files and folders, which hold no date.
INTAN_NAME = re.compile(r"_(\d{6}_\d{6})$")
FORMATS = ("%d %b %Y %H:%M:%S", "%d-%b-%Y %H%M%S", "%y%m%d_%H%M%S")
#: An interval between two samples of more than so many samples is a gap.
GAP_SAMPLES = 1.5
#: A clock is read at so many samples first; with more gaps it jitters.
MOST_KNOTS = 1_000
#: A clock and a header disagree where their rates differ by this share; clocks of recording
#: systems differ by less than a tenth of it. So many times off, the clock is in another unit.
RATES_DIFFER, OTHER_UNIT = 1e-3, 3.0
#: Further off, a rate that was made of rounded times spoils filters, and lets times drift away.
ROUNDED_RATE = 0.005


def describe_part(path: str, segment: int, opened: "BaseRecording", start_sample: int) -> Part:
    """Describe a segment of a path that begins at a sample of the sort, with its clock.

    A list of times is kept as its first and last, and those around each gap; of one that cannot be
    used (:func:`find_fault`) only the first is.
    """
    n_samples, knots = opened.get_num_samples(segment), {}
    start_s = float(opened.get_start_time(segment))
    start_s = start_s if np.isfinite(start_s) else 0.0
    # A list in an NWB file is as long as the samples: at a URL it is not read.
    is_known = opened.has_time_vector(segment) or not is_url(path)
    times = find_times(opened, segment) if is_known else None
    if times is not None:
        step_s = 1 / opened.get_sampling_frequency()
        if not find_fault(times, step_s):
            gaps = find_gaps(times, step_s)
            wanted = {0, n_samples - 1, *(at - 1 for at, _ in gaps), *(at for at, _ in gaps)}
            if len(gaps) > MOST_KNOTS:  # it jitters: the curve that it follows
                wanted = {*choose_knots(n_samples).tolist()}
            knots = {at: float(times[at]) for at in sorted(wanted)}
    return Part(
        file=path,
        segment=segment,
        start_sample=start_sample,
        n_samples=n_samples,
        t_start_s=start_s,
        began=read_start(opened, path, segment),
        clock=list(knots.items()),
    )


def _part_times(part: Part, samples: "NDArray[Any]", rate_hz: float) -> "NDArray[Any]":
    """Return when samples of a sort were, by the clock of one part, which goes on at its ends."""
    samples = samples - part.start_sample
    if not part.clock:
        return part.t_start_s + samples / rate_hz
    samples = samples + part.first_sample
    at, times = np.array(part.clock).T
    known = np.clip(samples, at[0], at[-1])
    found: NDArray[Any] = np.interp(known, at, times) + (samples - known) / rate_hz
    return found


def cut(
    parts: Sequence[Part], pieces: Iterable[tuple[float, float | None]], rate_hz: float
) -> Iterator[Part]:
    """Yield what pieces of a recording (from, to, in s), joined, leave of its parts."""
    free = 0
    lagging = [*zip(parts, lags_s(parts, rate_hz), strict=True)]
    for (first_s, last_s), (part, lag_s) in itertools.product(pieces, lagging):
        begin = max(round(first_s * rate_hz), part.start_sample)
        end = part.start_sample + part.n_samples
        end = end if last_s is None else min(end, round(last_s * rate_hz))
        if begin < end:
            found = {
                "start_sample": free,
                "first_sample": part.first_sample + begin - part.start_sample,
                "n_samples": end - begin,
                "t_start_s": float(_part_times(part, np.array([begin]), rate_hz)[0]),
                "lag_s": lag_s,
            }
            free += end - begin
            yield part.model_copy(update=found)


def resample(part: Part, factor: float) -> Part:
    """Return a part in samples of so many times the rate, its end as near as its begin."""
    begin, end = part.start_sample, part.start_sample + part.n_samples
    start = round(begin * factor)
    return part.model_copy(
        update={
            "start_sample": start,
            "n_samples": round(end * factor) - start,
            "first_sample": round(part.first_sample * factor),
            "clock": [(round(at * factor), time_s) for at, time_s in part.clock],
        }
    )


def part_of(samples: "NDArray[Any]", parts: Sequence[Part]) -> "NDArray[Any]":
    """Return in which part samples of a sort are; those outside are in the first or the last."""
    starts = [part.start_sample for part in parts]
    return np.clip(np.searchsorted(starts, samples, side="right") - 1, 0, None)


def times_s(samples: "NDArray[Any]", parts: Sequence[Part], rate_hz: float) -> "NDArray[Any]":
    """Return when samples, counted from the first of a sort, were on the recording's own clock.

    A part that begins, by its own clock, before the one before it has ended is taken to follow
    it at once: two files that both begin at 0 s do not lie on each other.
    """
    which, times = part_of(samples, parts), np.empty(len(samples))
    for index, (part, later_s) in enumerate(zip(parts, lags_s(parts, rate_hz), strict=True)):
        mine = which == index
        times[mine] = _part_times(part, samples[mine], rate_hz) + later_s
    return times


def lags_s(parts: Sequence[Part], rate_hz: float) -> Iterator[float]:
    """Yield by how many s each part is later than its own clock says."""
    free_s = -np.inf
    for part in parts:
        ends = np.array([0, part.n_samples]) + part.start_sample
        first_s, end_s = _part_times(part, ends, rate_hz)
        lag_s = float(max(part.lag_s, free_s - first_s))
        yield lag_s
        free_s = end_s + lag_s


def describe_joins(parts: Sequence[Part], rate_hz: float) -> Iterator[str]:
    """Say where time has passed between segments, and which files do not follow each other."""
    for before, after in itertools.pairwise(parts):
        end = np.array([before.start_sample + before.n_samples])
        later_s = after.t_start_s - float(_part_times(before, end, rate_hz)[0])
        if before.file == after.file and before.segment < after.segment:
            if later_s > 1 / rate_hz and after.t_start_s > 0:
                yield (
                    f"segment {after.segment} of {after.file} begins {later_s:.6g} s after the one "
                    "before has ended. The sort counts samples, as if there were no pause"
                )
        elif all(Path(x.file).exists() for x in (before, after)) and Path(before.file).samefile(
            after.file
        ):
            yield f"{after.file} is named twice"
        elif before.began and after.began and before.began != after.began:
            began = [datetime.fromisoformat(part.began) for part in (before, after) if part.began]
            passed_s = (began[1] - began[0]).total_seconds()
            if passed_s < max(0.0, before.n_samples / rate_hz - CLOCKS_DIFFER_S):
                overlap = f"{after.file} began before {before.file} had ended"
                yield f"{overlap}: is their order right?"


def read_start(opened: "BaseRecording", path: str, segment: int = 0) -> str | None:
    """Return when a segment began, in ISO 8601, where its header, or a file beside it, says so.

    SpikeGLX, Open Ephys and Neuralynx note it in texts, Intan in names, NWB itself, Blackrock in
    UTC; of others neo tells. Where no zone is noted, it is that of this machine.
    """
    opened = with_all_channels(opened)
    try:
        return next(filter(None, map(_iso, _noted(opened, path, segment))), None)
    except Exception:  # whatever a header holds, it must not cost the sort
        logger.exception("%s: cannot tell when it began", path)
        return None


def _noted(opened: "BaseRecording", path: str, segment: int) -> Iterator[Any]:
    """Yield what is noted of a segment's beginning: dates, as objects or texts."""
    reader: Any = getattr(opened, "neo_reader", None)
    kind = type(reader).__name__.removesuffix("RawIO")
    for (of, *_), info in reader.signals_info_dict.items() if kind == "SpikeGLX" else ():
        meta = info["meta"]  # CatGT keeps the time of its input apart
        if of == segment:
            yield meta.get("fileCreateTime_original", meta.get("fileCreateTime"))
    streams = open_ephys_streams(opened) if kind == "OpenEphysBinary" else ()
    for info in itertools.islice(streams, segment, segment + 1):
        folder = Path(info["raw_filename"]).parents[2]
        number = folder.parent.name.removeprefix("experiment")
        settings = "settings.xml" if number == "1" else f"settings_{number}.xml"
        texts = (folder / "sync_messages.txt", folder.parents[1] / settings)
        for text in filter(Path.is_file, texts):
            content = text.read_text(encoding="utf-8", errors="replace")
            since_1970 = map(int, UNIX_MS.findall(content))
            yield from (datetime.fromtimestamp(ms / 1000, UTC) for ms in since_1970)
            yield from CREATED.findall(content)
    if kind == "Intan":
        names = (Path(path).stem, Path(path).parent.name)
        yield from (match[1] for name in names if (match := INTAN_NAME.search(name)))
    for header in reader.file_headers.values() if kind == "Neuralynx" else ():
        yield header.get("recording_opened")
    for header in reader._nsx_basic_header.values() if kind == "Blackrock" else ():  # noqa: SLF001
        if "year" in header.dtype.names and header["year"]:  # not before version 2.2
            date = ("year", "month", "day", "hour", "minute", "second")
            iso = "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}+00:00"
            yield iso.format(*(int(header[name]) for name in date))
    nwb = getattr(getattr(opened, "_reader", None), "file", None)
    if nwb is not None and "session_start_time" in nwb:
        noted = np.ravel(nwb["session_start_time"][()])[0]  # in zarr a list of one
        yield noted.decode() if isinstance(noted, bytes) else noted
    for block in getattr(reader, "raw_annotations", {}).get("blocks", ()):
        for noted in (block, *block["segments"]):
            yield from (noted.get("rec_datetime"), noted.get("date_created"))


def _iso(noted: Any) -> str | None:
    """Return a date in ISO 8601 with its zone; None where it is none."""
    text = noted.isoformat() if isinstance(noted, datetime) else str(noted).strip(" '")
    for form in FORMATS:
        with contextlib.suppress(ValueError):
            return datetime.strptime(text, form).astimezone().isoformat()
    with contextlib.suppress(ValueError):
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.astimezone()).isoformat()
    return None


def describe_gaps(opened: "BaseRecording", row: Recording) -> Iterator[str]:
    """Name the gaps of a recording's clock, and where samples were lost."""
    rate_hz = opened.get_sampling_frequency()
    for index in range(opened.get_num_segments()):
        start_s = opened.get_start_time(index)
        if not np.isfinite(start_s) and find_times(opened, index) is None:
            yield f"its start time is not a number ({start_s}). Times are counted from 0 s"
    for name, clock, step, unit in _clocks(opened, row):
        if len(clock) <= 1:
            continue
        if fault := find_fault(clock, step):
            yield sentences(f"{name} {fault}", "Times are counted from its start, by the rate")
            continue
        gaps = find_gaps(clock, step)
        if len(gaps) > MOST_KNOTS:
            yield f"{name} does not go on evenly: {len(gaps):,} of its steps are not of one sample"
        elif gaps:
            named = [
                f"{abs(size):.6g} {unit}{' back' * (size < 0)} after {at / rate_hz:.3f} s "
                f"(sample {at})"
                for at, size in gaps
            ]
            yield (
                f"{name} has {count(len(gaps), 'gap')}, and the sort counts samples as if there "
                f"were none: {shorten(named)}"
            )
        share = step / _usual_step(clock)
        if abs(share - 1) <= RATES_DIFFER:
            continue
        msg = f"{name} runs at {share * rate_hz:.6g} Hz, its header says {rate_hz:.6g}"
        if row.reader == "nwb" and abs(share - 1) > ROUNDED_RATE:  # of which its reader makes one
            remedy = "Write the rate into the file (rate and starting_time in place of timestamps)."
            raise refuse(row, f"{msg}: its times are rounded", remedy)
        yield msg


def _clocks(
    opened: "BaseRecording", row: Recording
) -> "Iterator[tuple[str, NDArray[Any], float, str]]":
    """Yield the name of each clock, its value at each sample, its usual step, and its unit."""
    n_segments, step_s = opened.get_num_segments(), 1 / opened.get_sampling_frequency()
    for index in range(n_segments):
        where = f" of segment {index}" if n_segments > 1 else ""
        name = f"the clock{where}" if opened.has_time_vector(index) else "its list of timestamps"
        if (times := find_times(opened, index)) is not None:
            yield name, times, step_s, "s"
    reader: Any = getattr(opened, "neo_reader", None)
    if row.reader == "intan" and getattr(reader, "discontinuous_timestamps", False):
        yield "its list of timestamps", reader.get_intan_timestamps(), 1.0, "samples"
    for info in open_ephys_streams(opened) if row.reader == "openephysbinary" else ():
        numbers = sample_numbers(Path(info["raw_filename"]))
        if numbers.dtype.kind in "iu":
            yield info["raw_filename"], numbers, 1.0, "samples"


def choose_knots(n_samples: int) -> "NDArray[np.intp]":
    """Return samples at even distances, the first and the last among them."""
    return np.unique(np.linspace(0, n_samples - 1, MOST_KNOTS).astype(int))


def find_gaps(clock: "NDArray[Any]", step: float) -> list[tuple[int, float]]:
    """Return after which samples a clock does not go on by ``step``, and how far it is off."""
    gaps: list[tuple[int, float]] = []
    for start, steps in _odd_stretches(clock, step):
        odd = np.flatnonzero((steps > GAP_SAMPLES * step) | (steps <= 0))
        gaps += [(start + int(at) + 1, float(steps[at]) - step) for at in odd]
    return gaps


def _odd_stretches(clock: "NDArray[Any]", step: float) -> "Iterator[tuple[int, NDArray[Any]]]":
    """Yield where the time between two knots is not that of the samples, and the steps there."""
    knots = choose_knots(len(clock))
    off = np.diff(np.asarray(clock[knots], dtype=np.float64)) - np.diff(knots) * step
    for index in np.flatnonzero(np.abs(off) >= (GAP_SAMPLES - 1) * step):
        start, end = knots[index : index + 2].tolist()
        yield start, np.diff(np.asarray(clock[start : end + 1]))


def _usual_step(clock: "NDArray[Any]") -> float:
    """Return by how much a clock goes on from sample to sample, without its gaps and jitter."""
    knots = choose_knots(len(clock))
    times = np.asarray(clock[knots], dtype=np.float64)
    return float(np.median(np.diff(times) / np.diff(knots)))


def find_fault(clock: "NDArray[Any]", step: float) -> str:
    """Say why a clock cannot be used: no numbers, no progress, another unit; empty where it can."""
    usual = _usual_step(clock)
    if usual <= 0:
        return "stands still" if usual == 0 else "runs backwards"
    if np.isfinite(usual) and not 1 / OTHER_UNIT < usual / step < OTHER_UNIT:
        return f"goes on by {usual:.6g} a sample, not {step:.6g}: is it in another unit?"
    # Elsewhere the samples around it tell the time; where time is missing, they do not.
    are_known = all(np.isfinite(steps).all() for _, steps in _odd_stretches(clock, step))
    return "" if np.isfinite(usual) and are_known else "is not a number at some samples"
