"""Whether an opened file is a whole recording of spikes: its stream, size, clock and parts."""

import contextlib
import glob
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
#: Below this rate not even a field potential is sampled.
LEAST_OF_FIELDS_HZ = 100.0
#: Streams without electrodes, by their names in SpikeGLX, Open Ephys and Intan.
NO_ELECTRODES = re.compile(
    r"(?i)\bsync\b|[-_ ]?sync$|digital|supply voltage|temperature|auxiliary|\badc (input|channel)|"
    r"\bni-?daq|\bnidq\b"
)
COPY_REMEDY = "Finish the copy, and compare the file with the original."
#: Clocks of two computers differ by less, in s.
CLOCKS_DIFFER_S = 120.0
#: Open Ephys writes samples and their numbers in blocks, which a crash leaves of unequal length, s.
BUFFERED_S, BUFFERED_SHARE = 1.0, 0.1
#: An interval between two samples of more than so many samples is a gap.
GAP_SAMPLES = 1.5
#: Times are read so many at once.
TIMES_AT_ONCE = 10_000_000
#: Gaps that a warning names; with more than so many, a clock jitters.
MOST_GAPS, MOST_KNOTS = 3, 1_000
#: A clock and a header disagree where their rates differ by this share; clocks of recording
#: systems differ by less than a tenth of it. So many times off, the clock is in another unit.
RATES_DIFFER, OTHER_UNIT = 1e-3, 3.0


def check_stream(opened: "BaseRecording", path: str) -> None:
    """Raise RecordingLayoutError if a stream is a digital signal or a field potential."""
    name, rate_hz = getattr(opened, "stream_name", None), opened.get_sampling_frequency()
    stream = f"stream {name!r}" if name else "this recording"
    is_digital = not getattr(opened, "has_voltage_channels", True)
    if is_digital or (name and NO_ELECTRODES.search(str(name))):
        msg = f"{stream} of {path} holds no electrodes (a synchronisation or auxiliary signal)"
    elif not np.isfinite(rate_hz) or rate_hz < LEAST_OF_FIELDS_HZ:
        msg = f"{stream} of {path} is sampled at {rate_hz:g} Hz: its times are not in seconds"
        remedy = 'Name the true rate in reader_options: {"sampling_frequency": ...}.'
        raise RecordingLayoutError(msg, path=path, remedy=remedy)
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
    if row.reader == "openephysbinary":
        _check_open_ephys(opened, path, row)
    known = ANNOUNCED.get(row.reader)
    for name, size, announced, unit in known(opened, path) if known else ():
        if size < announced:
            share = f"{size / announced:.0%}".replace("100%", "nearly all")
            msg = (
                f"{name} is not whole: {size:,} of {announced:,} {unit} are there "
                f"({share} of what its header announces); is the copy finished?"
            )
            raise refuse(row, msg, COPY_REMEDY, path)
        if size > announced:
            notes.append(f"{name} has {size:,} {unit}, more than the {announced:,} of its header")


#: File, what is there, what its header announces, and the unit of both.
_Sizes = Iterator[tuple[str, int, int, str]]


def _of_spikeglx(opened: "BaseRecording", _path: str) -> _Sizes:
    for (_, stream), info in opened.neo_reader.signals_info_dict.items():
        if str(opened.stream_id).removesuffix("-SYNC") != stream:
            continue
        file, header = Path(info["bin_file"]), Path(info["meta_file"])
        size, frame_bytes = file.stat().st_size, 2 * int(info["meta"]["nSavedChans"])
        if announced := info["meta"].get("fileSizeBytes"):
            yield str(file), size, int(announced), "bytes"
        if file.suffix == ".bin" and size % frame_bytes:  # a channel more or less than the header's
            yield str(file), size, -(-size // frame_bytes) * frame_bytes, "bytes"
        # Another part of the run, of which the header is there already.
        for other in header.parent.glob(re.sub(r"_t\d+\.", "_t*.", glob.escape(header.name))):
            there = any(other.with_suffix(suffix).exists() for suffix in (".bin", ".cbin"))
            noted = re.search(r"fileSizeBytes=(\d+)", other.read_text(errors="replace"))
            if noted and not there:
                yield str(other.with_suffix(".bin")), 0, int(noted[1]), "bytes"


def _of_open_ephys(opened: "BaseRecording", _path: str) -> _Sizes:
    for info in open_ephys_streams(opened):
        file = Path(info["raw_filename"])
        there = file.stat().st_size // (2 * len(info["channels"]))
        announced = len(_sample_numbers(file))
        buffered = min(info["sample_rate"] * BUFFERED_S, BUFFERED_SHARE * announced)
        if announced and abs(announced - there) > buffered:
            yield str(file), there, announced, "samples"


def _check_open_ephys(opened: "BaseRecording", path: str, row: Recording) -> None:
    """Raise RecordingUnreadableError if recordings of one experiment differ in their set-up."""
    first, *others = open_ephys_streams(opened)
    for other in others:
        named = [
            {c["channel_name"]: c.get("bit_volts") for c in x["channels"]} for x in (first, other)
        ]
        names = [[*each] for each in named]
        rates = first["sample_rate"], other["sample_rate"]
        facts = {
            f"sampling rate {rates[0]:g} and {rates[1]:g} Hz": rates[0] != rates[1],
            f"{len(names[0])} and {len(names[1])} channels": len(names[0]) != len(names[1]),
            "names or order of the channels": names[0] != names[1],
            "gains": names[0] == names[1] and named[0] != named[1],
        }
        if different := [fact for fact, holds in facts.items() if holds]:
            msg = f"recordings of {path} cannot be sorted together: {'; '.join(different)}"
            raise refuse(row, msg, "Move them into folders of their own, and sort each.", path)


def _of_intan(opened: "BaseRecording", path: str) -> _Sizes:
    """Of files for each signal or channel: all have a number for each of ``time.dat``."""
    folder, times = Path(path).parent, Path(path).with_name("time.dat")
    is_amplifier = "amplifier" in str(opened.stream_name).lower()
    if not (is_amplifier and re.fullmatch(r"info\.rh[ds]", Path(path).name) and times.exists()):
        return
    n_samples = times.stat().st_size // 4
    widths = dict.fromkeys(sorted(folder.glob("amp-*.dat")), 1)
    widths = widths or {folder / "amplifier.dat": opened.get_num_channels()}
    for file, width in widths.items():
        yield str(file), file.stat().st_size, 2 * width * n_samples, "bytes"


def _of_compressed(_opened: "BaseRecording", path: str) -> _Sizes:
    for header in Path(path).glob("*.ch"):
        with contextlib.suppress(ValueError, KeyError, IndexError, OSError):
            announced = json.loads(header.read_text(encoding="utf-8"))["chunk_offsets"][-1]
            file = header.with_suffix(".cbin")
            yield str(file), file.stat().st_size, int(announced), "bytes"


def _of_zarr(opened: "BaseRecording", path: str) -> _Sizes:
    root = getattr(opened, "_root", None)
    if root is None or path.startswith("http"):  # a web server lists no chunks
        return
    for name, array in (each for each in root.arrays() if each[0].startswith("traces")):
        there = _count_chunks(array)
        if there or not is_url(path):  # none, where a bucket may not be listed
            yield f"{path}/{name}", there, array.nchunks, "chunks"


ANNOUNCED = {
    "spikeglx": _of_spikeglx,
    "openephysbinary": _of_open_ephys,
    "intan": _of_intan,
    "compressedbinaryibl": _of_compressed,
    "ibl_recording": _of_compressed,
    "spikeinterface": _of_zarr,
    "zarr": _of_zarr,
}


def _count_chunks(array: Any) -> int:
    """Count the chunks of a zarr array that are there; what a copy left unfinished is none."""
    from zarr.storage import listdir

    names = listdir(array.chunk_store, array.path)
    return sum(re.fullmatch(r"\d+(\.\d+)*", name) is not None for name in names)


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
        if fault := find_fault(clock, step):
            yield f"{name} {fault}. Times are counted from its start, by the sampling rate"
            continue
        gaps = find_gaps(clock, step)
        if len(gaps) > MOST_KNOTS:
            yield f"{name} does not go on evenly: {len(gaps):,} of its steps are not of one sample"
        elif gaps:
            shown = "; ".join(
                f"{size:,.6g} {unit} after {at / rate_hz:.3f} s (sample {at:,})"
                for at, size in gaps[:MOST_GAPS]
            )
            more = f"; and {len(gaps) - MOST_GAPS} more" if len(gaps) > MOST_GAPS else ""
            yield (
                f"{name} has {len(gaps)} gap{'s' * (len(gaps) != 1)}: {shown}{more}. The sort "
                "counts samples, as if there were none"
            )
        rates = step / _steps(clock)
        if abs(np.median(rates) - 1) > RATES_DIFFER:
            yield f"{name} runs at {np.median(rates) * rate_hz:.6g} Hz, its header says {rate_hz:g}"


def _clocks(
    opened: "BaseRecording", row: Recording
) -> "Iterator[tuple[str, NDArray[Any], float, str]]":
    """Yield the name of each clock, its value at each sample, its usual step, and its unit."""
    n_segments, step_s = opened.get_num_segments(), 1 / opened.get_sampling_frequency()
    for index in filter(opened.has_time_vector, range(n_segments)):
        where = f" of segment {index}" if n_segments > 1 else ""
        yield f"the clock{where}", opened.get_times(index), step_s, "s"
    series: Any = getattr(getattr(opened, "_reader", None), "series", None)  # of NWB
    times = series.get("timestamps") if hasattr(series, "keys") else None
    if times is not None and not opened.has_time_vector(0) and not _is_even(times, step_s):
        yield "its list of timestamps", times, step_s, "s"
    for info in open_ephys_streams(opened) if row.reader == "openephysbinary" else ():
        numbers = _sample_numbers(Path(info["raw_filename"]))
        if numbers.dtype.kind in "iu":
            yield info["raw_filename"], numbers, 1.0, "samples"


def find_gaps(clock: "NDArray[Any]", step: float) -> list[tuple[int, float]]:
    """Return after which samples a clock does not go on by ``step``, and how far it is off."""
    gaps: list[tuple[int, float]] = []
    for start in range(0, len(clock) - 1, TIMES_AT_ONCE):
        steps = np.diff(np.asarray(clock[start : start + TIMES_AT_ONCE + 1]))
        odd = np.flatnonzero((steps > GAP_SAMPLES * step) | (steps <= 0))
        gaps += [(start + int(at) + 1, float(steps[at]) - step) for at in odd]
    return gaps


def _stretch(clock: "NDArray[Any]") -> int:
    """Return how many samples of a clock are looked at together."""
    return max(1, len(clock) // MOST_KNOTS)


def _steps(clock: "NDArray[Any]") -> "NDArray[np.float64]":
    """Return the mean steps of a clock over even stretches, which jitter does not enter."""
    length = _stretch(clock)
    steps: NDArray[np.float64] = np.diff(np.asarray(clock[::length], dtype=np.float64)) / length
    return steps


def _is_even(clock: "NDArray[Any]", step: float) -> bool:
    """Whether a clock runs at its rate, by a thousand of its samples, which show each gap."""
    steps = _steps(clock)
    usual = float(np.median(steps))
    is_even = np.abs(steps - usual) * _stretch(clock) < (GAP_SAMPLES - 1) * step
    return bool(is_even.all()) and abs(usual / step - 1) < RATES_DIFFER


def find_fault(clock: "NDArray[Any]", step: float) -> str:
    """Say why a clock cannot be used: no numbers, no progress, another unit; empty where it can."""
    if len(clock) < MOST_GAPS:
        return ""
    n_odd = sum(
        int((~np.isfinite(clock[start : start + TIMES_AT_ONCE])).sum())
        for start in range(0, len(clock), TIMES_AT_ONCE)
    )
    if n_odd:
        return f"is not a number at {n_odd:,} of {len(clock):,} samples"
    usual = float(np.median(_steps(clock)))
    if usual == 0:
        return "stands still"
    if not 1 / OTHER_UNIT < usual / step < OTHER_UNIT:
        return f"goes on by {usual:.6g} a sample, not {step:.6g}: is it in another unit?"
    return ""


def read_ends(opened: "BaseRecording", path: str, row: Recording) -> None:
    """Read every segment's first and last sample; raise RecordingUnreadableError if one fails."""
    for index in range(opened.get_num_segments()):
        n_samples = opened.get_num_samples(index)
        for at in {0, n_samples - 1} if n_samples else ():
            try:
                read = opened.get_traces(segment_index=index, start_frame=at, end_frame=at + 1)
            except MemoryError:
                raise
            except Exception as err:
                msg = (
                    f"sample {at:,} of {n_samples:,} of {path} cannot be read: "
                    f"{type(err).__name__}: {err}"
                )
                raise refuse(row, msg, COPY_REMEDY, path) from err
            if read.shape[1] != (n_named := opened.get_num_channels()):
                msg = f"{path} holds {read.shape[1]} channels, its header names {n_named}"
                raise refuse(row, msg, COPY_REMEDY, path)


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
