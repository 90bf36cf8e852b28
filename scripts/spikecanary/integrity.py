"""Whether an opened file is a whole recording of spikes: its stream, size, clock and parts."""

import contextlib
import json
import re
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary.failures import RecordingLayoutError
from spikecanary.probes import refuse
from spikecanary.stamps import data_files
from spikecanary.table import Recording, is_url

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spikeinterface.core import BaseRecording

#: Below this rate, in Hz, a signal is a field potential: spikes are sampled at 10 kHz and more,
#: field potentials at 0.5 to 2.5 kHz.
LEAST_RATE_HZ = 5_000.0
#: Streams without electrodes, by their names in SpikeGLX, Open Ephys and Intan.
NO_ELECTRODES = re.compile(
    r"(?i)\bsync\b|[-_ ]?sync$|digital|supply voltage|temperature|auxiliary|\badc (input|channel)|"
    r"\bni-?daq|\bnidq\b"
)
COPY_REMEDY = "Finish the copy, and compare the file with the original."
#: Clocks of two computers differ by less, in s.
CLOCKS_DIFFER_S = 120.0
#: Open Ephys writes samples and their numbers in blocks, which a crash leaves of unequal length, s.
BUFFERED_S = 1.0
#: An interval between two samples of more than so many samples is a gap.
GAP_SAMPLES = 1.5
#: Times are read so many at once.
TIMES_AT_ONCE = 10_000_000
#: Gaps that a warning names.
MOST_GAPS = 3


def check_stream(opened: "BaseRecording", path: str) -> None:
    """Raise RecordingLayoutError if a stream is a digital signal or a field potential."""
    name, rate_hz = getattr(opened, "stream_name", None), opened.get_sampling_frequency()
    stream = f"stream {name!r}" if name else "this recording"
    is_digital = not getattr(opened, "has_voltage_channels", True)
    if is_digital or (name and NO_ELECTRODES.search(str(name))):
        msg = f"{stream} of {path} holds no electrodes (a synchronisation or auxiliary signal)"
    elif rate_hz < LEAST_RATE_HZ:
        msg = f"{stream} of {path} is sampled at {rate_hz:g} Hz: a field potential has no spikes"
    else:
        return
    streams: Sequence[str] = []
    with contextlib.suppress(Exception):  # readers that do not know streams, or not of a path
        streams = type(opened).get_streams(path)[1]
    others = [str(each) for each in streams if not NO_ELECTRODES.search(str(each)) and each != name]
    there = f"; there are {', '.join(others)}" if others else ""
    remedy = f"Name the stream of the electrodes in column stream_id{there}."
    raise RecordingLayoutError(msg, path=path, remedy=remedy)


def check_complete(opened: "BaseRecording", path: str, row: Recording, notes: list[str]) -> None:
    """Raise RecordingUnreadableError if a file holds less than its header announces."""
    for name, size, announced, unit in _announced(opened, path, row):
        if size < announced:
            msg = (
                f"{name} is not whole: {size:,} of {announced:,} {unit} are there "
                f"({size / announced:.0%} of what its header announces); is the copy finished?"
            )
            raise refuse(row, msg, COPY_REMEDY, path)
        if size > announced:
            notes.append(f"{name} has {size:,} {unit}, more than the {announced:,} of its header")


def _announced(
    opened: "BaseRecording", path: str, row: Recording
) -> Iterator[tuple[str, int, int, str]]:
    """Yield file, what is there, what its header announces, and the unit of both."""
    if row.reader == "spikeglx":
        for (_, stream), info in opened.neo_reader.signals_info_dict.items():
            announced = info["meta"].get("fileSizeBytes")
            if announced and str(opened.stream_id).removesuffix("-SYNC") == stream:
                file = Path(info["bin_file"])
                yield str(file), file.stat().st_size, int(announced), "bytes"
    elif row.reader == "openephysbinary":
        for info in open_ephys_streams(opened):
            file = Path(info["raw_filename"])
            there = file.stat().st_size // (2 * len(info["channels"]))
            announced = len(_sample_numbers(file))
            if announced and abs(announced - there) > info["sample_rate"] * BUFFERED_S:
                yield str(file), there, announced, "samples"
    elif row.reader in ("compressedbinaryibl", "ibl_recording"):
        for header in Path(path).glob("*.ch"):
            with contextlib.suppress(ValueError, KeyError, IndexError, OSError):
                announced = json.loads(header.read_text(encoding="utf-8"))["chunk_offsets"][-1]
                file = header.with_suffix(".cbin")
                yield str(file), file.stat().st_size, int(announced), "bytes"
    elif row.reader in ("spikeinterface", "zarr") and not path.startswith("http"):
        root = getattr(opened, "_root", None)  # of zarr; a web server lists no chunks
        arrays = root.arrays() if root is not None else ()
        for name, array in (each for each in arrays if each[0].startswith("traces")):
            there = array.nchunks_initialized
            if there or not is_url(path):  # none, where a bucket may not be listed
                yield f"{path}/{name}", there, array.nchunks, "chunks"


def open_ephys_streams(opened: "BaseRecording") -> Iterator[dict[str, Any]]:
    """Yield what neo knows of the stream in each Open Ephys recording."""
    known: Any = opened
    streams = known.neo_reader._sig_streams[known.block_index]  # noqa: SLF001 - the paths
    for segment in streams.values():
        yield from (s for s in segment.values() if s["stream_name"] == known.stream_name)


def _sample_numbers(file: Path) -> "NDArray[Any]":
    """Return the numbers of an Open Ephys recording's samples, mapped; none where it has none."""
    for name in ("sample_numbers.npy", "timestamps.npy"):
        if (beside := file.with_name(name)).is_file():
            numbers: NDArray[Any] = np.load(beside, mmap_mode="r")
            return numbers
    return np.empty(0)


def describe_gaps(opened: "BaseRecording", row: Recording) -> Iterator[str]:
    """Name the gaps of a recording's clock, and where samples were lost."""
    rate_hz = opened.get_sampling_frequency()
    for name, clock, step, unit in _clocks(opened, row):
        if gaps := find_gaps(clock, step):
            shown = "; ".join(
                f"{size:,.6g} {unit} after {at / rate_hz:.3f} s (sample {at:,})"
                for at, size in gaps[:MOST_GAPS]
            )
            more = f"; and {len(gaps) - MOST_GAPS} more" if len(gaps) > MOST_GAPS else ""
            yield (
                f"{name} has {len(gaps)} gap{'s' * (len(gaps) != 1)}: {shown}{more}. The sort "
                "counts samples, as if there were none"
            )


def _clocks(
    opened: "BaseRecording", row: Recording
) -> "Iterator[tuple[str, NDArray[Any], float, str]]":
    """Yield the name of each clock, its value at each sample, its usual step, and its unit."""
    n_segments = opened.get_num_segments()
    for index in filter(opened.has_time_vector, range(n_segments)):
        where = f" of segment {index}" if n_segments > 1 else ""
        step_s = 1 / opened.get_sampling_frequency()
        yield f"the clock{where}", opened.get_times(index), step_s, "s"
    for info in open_ephys_streams(opened) if row.reader == "openephysbinary" else ():
        numbers = _sample_numbers(Path(info["raw_filename"]))
        if numbers.dtype.kind in "iu":
            yield info["raw_filename"], numbers, 1.0, "samples"


def find_gaps(clock: "NDArray[Any]", step: float) -> list[tuple[int, float]]:
    """Return after which samples a clock does not go on by ``step``, and how far it is off."""
    gaps: list[tuple[int, float]] = []
    for start in range(0, len(clock) - 1, TIMES_AT_ONCE):
        steps = np.diff(np.asarray(clock[start : start + TIMES_AT_ONCE + 1]))
        odd = np.flatnonzero((steps > GAP_SAMPLES * step) | (steps < 0))
        gaps += [(start + int(at) + 1, float(steps[at]) - step) for at in odd]
    return gaps


def read_ends(opened: "BaseRecording", path: str, row: Recording) -> None:
    """Read every segment's first and last sample; raise RecordingUnreadableError if one fails."""
    for index in range(opened.get_num_segments()):
        n_samples = opened.get_num_samples(index)
        for at in {0, n_samples - 1} if n_samples else ():
            try:
                opened.get_traces(segment_index=index, start_frame=at, end_frame=at + 1)
            except MemoryError:
                raise
            except Exception as err:
                msg = (
                    f"sample {at:,} of {n_samples:,} of {path} cannot be read: "
                    f"{type(err).__name__}: {err}"
                )
                raise refuse(row, msg, COPY_REMEDY, path) from err


def describe_future(row: Recording) -> Iterator[str]:
    """Name files whose time lies in the future."""
    for path in row.paths:
        if is_url(path):
            continue
        for file, _, time_ns in data_files(path, row.reader):
            if time_ns / 1e9 > time.time() + CLOCKS_DIFFER_S:
                dated = datetime.fromtimestamp(time_ns / 1e9).astimezone()
                yield (
                    f"{file} is dated in the future ({dated.isoformat(timespec='minutes')}): is "
                    "the clock of the recording computer right?"
                )
                break


def check_alike(parts: Sequence["BaseRecording"], row: Recording) -> None:
    """Raise RecordingUnreadableError if parts differ in their set-up; all differences are named."""
    first = parts[0]
    for path, part in zip(row.paths[1:], parts[1:], strict=True):
        if different := list(_find_differences(first, part, row)):
            msg = f"{row.paths[0]} and {path} cannot be sorted together: {'; '.join(different)}"
            remedy = "Sort them in rows of their own, or name parts of one set-up in column path."
            if "sampling rate" in different[0]:
                remedy += (
                    " A small difference of the rate is allowed by reader_options: "
                    '{"sampling_frequency_max_diff": ...} (in Hz).'
                )
            raise refuse(row, msg, remedy, path)


def _find_differences(
    first: "BaseRecording", second: "BaseRecording", row: Recording
) -> Iterator[str]:
    """Name what differs between the headers of two parts."""
    rates = first.get_sampling_frequency(), second.get_sampling_frequency()
    if abs(rates[0] - rates[1]) > row.reader_options.get("sampling_frequency_max_diff", 0.0):
        yield f"sampling rate {rates[0]:.12g} and {rates[1]:.12g} Hz"
    ids = list(first.channel_ids), list(second.channel_ids)
    if len(ids[0]) != len(ids[1]):
        yield f"{len(ids[0])} and {len(ids[1])} channels"
        return
    if ids[0] != ids[1]:
        yield f"channel ids {ids[0][0]} ... and {ids[1][0]} ..."
    if first.get_dtype() != second.get_dtype():
        yield f"{first.get_dtype()} and {second.get_dtype()} samples"
    for name, unit in (("gains", "uV per count"), ("offsets", "uV")):
        one, other = (getattr(part, f"get_channel_{name}")() for part in (first, second))
        if not _equal(one, other):
            yield f"{name} {_range(one)} and {_range(other)} {unit}"
    if row.probe is None:
        places = [p.get_channel_locations() if p.has_probe() else None for p in (first, second)]
        if not _equal(*places):
            yield f"positions of the channels, {_first_place(places, ids[0])}"


def _equal(one: Any, other: Any) -> bool:
    """Whether two arrays, or None, are the same but for rounding."""
    if one is None or other is None:
        return one is other
    return bool(np.allclose(one, other, atol=1e-12, equal_nan=True))


def _first_place(places: Sequence[Any], ids: Sequence[Any]) -> str:
    """Name the first channel that has two places, or the part that has none."""
    if any(each is None for each in places):
        return f"which only the {'second' if places[0] is None else 'first'} one has"
    at = int(np.argmax(~np.isclose(*places).all(axis=1)))
    one, other = (", ".join(f"{each:g}" for each in where[at]) for where in places)
    return f"such as {ids[at]} at ({one}) and at ({other}) um"


def _range(values: Any) -> str:
    """Describe numbers by the lowest and the highest."""
    if values is None:
        return "none"
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
