"""Whether an opened file is a whole recording of spikes: its stream, size and parts."""

import contextlib
import glob
import itertools
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary.failures import RecordingLayoutError
from spikecanary.recording.formats import VOLTS, describe_binary, list_streams
from spikecanary.recording.probes import refuse
from spikecanary.recording.stamps import data_files
from spikecanary.table import Recording, is_url
from spikecanary.texts import shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spikeinterface.core import BaseRecording

#: Below this rate, in Hz, a signal is a field potential: spikes are sampled at 10 kHz and more,
#: field potentials at 0.5 to 2.5 kHz.
LEAST_RATE_HZ = 5_000.0
#: Streams without electrodes, by their names in SpikeGLX, Open Ephys and Intan.
NO_ELECTRODES = re.compile(
    r"(?i)\bsync\b|[-_ ]?sync$|digital|supply voltage|temperature|auxiliary|"
    r"\badc (input|output|channel)|[-_ ](adc|aux)$|\bdc amplifier|\bni-?daq|\bnidq\b|\bobx\d"
)
#: Streams that are not proposed: field potentials, too.
NO_SPIKES = re.compile(rf"{NO_ELECTRODES.pattern}|[-_.]lfp?$")
#: Bytes of a record of Open Ephys' older format, and its samples.
RECORD_BYTES, RECORD_SAMPLES = 2_070, 1_024
COPY_REMEDY = "Finish the copy, and compare the file with the original."
#: Clocks of two computers differ by less, in s.
CLOCKS_DIFFER_S = 120.0
#: Samples and their numbers are written in blocks, which a crash leaves of unequal length, s.
BUFFERED_S, BUFFERED_SHARE = 1.0, 0.1
#: A file of Neuralynx that holds its header alone is of a channel that was not recorded.
NCS_HEADER_BYTES = 16_384


def check_stream(opened: "BaseRecording", path: str, reader: str) -> None:
    """Raise RecordingLayoutError if a stream is a digital signal or a field potential."""
    name, rate_hz = getattr(opened, "stream_name", None), opened.get_sampling_frequency()
    stream = f"stream {name!r}" if name else "this recording"
    # Without a .dat, neo reads Neuroscope's field potential at the rate of the .dat.
    file = getattr(getattr(opened, "neo_reader", None), "data_file_path", "")
    is_digital = _is_digital(opened)
    is_other = name and NO_ELECTRODES.search(str(name)) and not _is_of_headstage(opened)
    if is_digital or is_other:
        msg = f"{stream} of {path} holds no electrodes (a synchronisation or auxiliary signal)"
    elif str(file).endswith((".lfp", ".eeg")):
        msg = f"{file} is a field potential, which has no spikes: its .dat file is not there"
    elif not LEAST_RATE_HZ <= rate_hz < np.inf:
        msg = (
            f"{stream} of {path} is sampled at {rate_hz:g} Hz: a field potential has no spikes (or "
            "its times are not in seconds)"
        )
    else:
        return
    others, now = [], (name, getattr(opened, "electrical_series_path", None))
    with contextlib.suppress(Exception):  # whatever a reader does not know of its streams
        others = [
            f"{column} {columns[column]}{f' ({other})' if columns[column].isdigit() else ''}"
            for other, columns in list_streams(path, reader)
            for column in ("stream_id", "reader_options")
            if column in columns and other not in now and not NO_SPIKES.search(other)
        ]
    remedy = "Is the rate in Hz? If not, name the electrodes' stream (stream_id, reader_options)."
    if others:
        remedy = f"Name the stream of the electrodes in the row: {', '.join(others)}."
    raise RecordingLayoutError(msg, path=path, remedy=remedy)


def _is_digital(opened: "BaseRecording") -> bool:
    """Whether no channel of a stream is a voltage.

    Plexon, and old files of SpikeGadgets, name no unit at all: nothing is known then.
    """
    units, neo = opened.get_property("physical_unit"), getattr(opened, "neo_reader", None)
    if units is None or neo is None:
        return False
    own = [str(unit).strip() for unit in units]
    names_any = any(own) or any(map(VOLTS.fullmatch, neo.header["signal_channels"]["units"]))
    return names_any and not any(map(VOLTS.fullmatch, own))


def _is_of_headstage(opened: "BaseRecording") -> bool:
    """Whether a NI-DAQ stream of SpikeGLX has multiplexed channels of electrodes (Whisper)."""
    infos = getattr(getattr(opened, "neo_reader", None), "signals_info_dict", {})
    of_stream = [info["meta"] for (_, stream), info in infos.items() if stream == opened.stream_id]
    n_of_kinds = [meta.get("snsMnMaXaDw", "0").split(",") for meta in of_stream]
    return any(int(n) > 0 for each in n_of_kinds for n in each[:2])


def check_complete(opened: "BaseRecording", path: str, row: Recording, notes: list[str]) -> None:
    """Raise RecordingUnreadableError if a file holds less than its header announces."""
    _check_set_ups(opened, path, row)
    known = ANNOUNCED.get(row.reader)
    for name, size, announced, unit in known(opened, path) if known else ():
        if size < announced:
            share = f"{size / announced:.0%}".replace("100%", "nearly all")
            msg = (
                f"{name} is not whole: {size:,} of {announced:,} {unit} are there "
                f"({share} of what should be there)"
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
        if size % frame_bytes:  # a channel more or less than the header's
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
        n_values, n_named = file.stat().st_size // 2, len(info["channels"])
        there, announced = n_values // n_named, len(sample_numbers(file))
        if announced and abs(announced - there) > _buffered(opened, announced):
            n_held, rest = divmod(n_values, announced)
            if n_held > n_named and not rest:
                msg = f"{file} holds {n_held} channels, its header names {n_named}"
                remedy = "Is the structure.oebin above it the one of this recording?"
                raise RecordingLayoutError(msg, path=str(file), remedy=remedy)
            yield str(file), there, announced, "samples"


def _buffered(opened: "BaseRecording", announced: int) -> float:
    """Return by how many samples a file and its clock may differ in length."""
    return float(min(opened.get_sampling_frequency() * BUFFERED_S, BUFFERED_SHARE * announced))


def _of_legacy(opened: "BaseRecording", _path: str) -> _Sizes:
    """Of Open Ephys' older format: its reader cuts all channels to the shortest file."""
    records = max(2.0, BUFFERED_S * opened.get_sampling_frequency() / RECORD_SAMPLES)
    for files in opened.neo_reader._info["continuous"].values():  # noqa: SLF001 - the paths
        sizes = {str(file): Path(file).stat().st_size for file in files}
        longest = max(sizes.values())
        short = {
            file: size for file, size in sizes.items() if longest - size > records * RECORD_BYTES
        }
        yield from ((file, size, longest, "bytes") for file, size in short.items())


def _of_nwb(opened: "BaseRecording", path: str) -> _Sizes:
    """Of NWB: all chunks, and a sample for each timestamp."""
    series: Any = getattr(getattr(opened, "_reader", None), "series", None)
    if not hasattr(series, "keys") or is_url(path):
        return
    data, times = (series.get(name) for name in ("data", "timestamps"))
    for array in (data, times):
        name, chunks = f"{path}{getattr(array, 'name', '')}", getattr(array, "chunks", None)
        if hasattr(array, "nchunks"):
            if array._dimension_separator == ".":  # noqa: SLF001
                yield name, _count_chunks(array), array.nchunks, "chunks"
        elif chunks:  # of HDF5, which gives zeros for one that was never written
            sides = (-(-n // size) for n, size in zip(array.shape, chunks, strict=True))
            yield name, array.id.get_num_chunks(), math.prod(sides), "chunks"
    is_upright = times is not None and len(data) >= data.shape[-1]  # see read_ends
    if is_upright and len(times) - len(data) > _buffered(opened, len(times)):
        yield f"{path}{data.name}", len(data), len(times), "samples"


def _check_set_ups(opened: "BaseRecording", path: str, row: Recording) -> None:
    """Raise RecordingUnreadableError if parts that a reader joins differ in their set-up.

    Readers take it from one of them: recordings of an experiment of Open Ephys, gates and triggers
    of SpikeGLX.
    """
    parts: dict[str, _SetUp] = {}
    if row.reader == "openephysbinary":
        parts = {
            info["raw_filename"]: {
                "sampling rates in Hz": [info["sample_rate"]],
                "numbers of channels": [len(info["channels"])],
                "channels": [channel["channel_name"] for channel in info["channels"]],
                "gains in uV per count": [channel.get("bit_volts") for channel in info["channels"]],
            }
            for info in open_ephys_streams(opened)
        }
    elif row.reader == "spikeglx":
        parts = {
            info["bin_file"]: {
                "sampling rates in Hz": [info["sampling_rate"]],
                "numbers of channels": [info["num_chan"]],
                "saved channels": [info["meta"].get("snsSaveChanSubset", "")],
                "gains in uV per count": info["channel_gains"].tolist(),
                "sites (imroTbl)": info["meta"].get("imroTbl"),
            }
            for (_, stream), info in sorted(opened.neo_reader.signals_info_dict.items())
            if stream == opened.stream_id
        }
    for name, other in parts.items():
        first, set_up = next(iter(parts.items()))
        if other != set_up:
            _refuse_unlike(set_up, other, f"{first} and {name}", row, path)


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


def _of_compressed(opened: "BaseRecording", _path: str) -> _Sizes:
    file = Path(opened._kwargs["cbin_file_path"])  # noqa: SLF001 - others may lie beside it
    with contextlib.suppress(ValueError, KeyError, IndexError, OSError):
        header = file.with_suffix(".ch").read_text(encoding="utf-8")
        announced = json.loads(header)["chunk_offsets"][-1]
        yield str(file), file.stat().st_size, int(announced), "bytes"


def _of_saved(opened: "BaseRecording", path: str) -> _Sizes:
    """Of a binary folder: it has whole samples only. Of zarr: all chunks."""
    if raw := describe_binary(opened):
        frame_bytes = raw["num_channels"] * np.dtype(raw["dtype"]).itemsize
        for file in map(Path, raw["file_paths"]):
            size = file.stat().st_size - raw["file_offset"]
            yield str(file), size, -(-size // frame_bytes) * frame_bytes, "bytes"
            times = file.with_name(file.name.replace("traces_cached", "times_cached"))
            n_times = times.stat().st_size // 8 if times != file and times.exists() else 0
            if size // frame_bytes < n_times:
                yield str(file), size // frame_bytes, n_times, "samples"
    root = getattr(opened, "_root", None)
    if root is None or path.startswith("http"):  # a web server lists no chunks
        return
    arrays = [each for name, each in root.arrays() if name.startswith(("traces", "times"))]
    for array in filter(None, [*arrays, root.get("properties/gain_to_uV")]):
        there = _count_chunks(array)
        if there or not is_url(path):  # none, where a bucket may not be listed
            yield f"{path}/{array.path}", there, array.nchunks, "chunks"


ANNOUNCED = {
    "spikeglx": _of_spikeglx,
    "openephysbinary": _of_open_ephys,
    "openephyslegacy": _of_legacy,
    "nwb": _of_nwb,
    "intan": _of_intan,
    "compressedbinaryibl": _of_compressed,
    "binaryfolder": _of_saved,
    "spikeinterface": _of_saved,
    "zarr": _of_saved,
}


def _count_chunks(array: Any) -> int:
    """Count the chunks of a zarr array that are there; what a copy left unfinished is none."""
    from zarr.storage import DirectoryStore, listdir

    store = array.chunk_store
    names = [x for x in listdir(store, array.path) if re.fullmatch(r"\d+(\.\d+)*", x)]
    if isinstance(store, DirectoryStore):  # on a full disk, cp leaves files without contents
        names = [x for x in names if Path(store.path, array.path, x).stat().st_size]
    return len(names)


def open_ephys_streams(opened: "BaseRecording") -> Iterator[dict[str, Any]]:
    """Yield what neo knows of the stream in each Open Ephys recording."""
    streams = opened.neo_reader._sig_streams[opened.block_index]  # noqa: SLF001 - the paths
    for segment in streams.values():
        yield from (s for s in segment.values() if s["stream_name"] == opened.stream_name)


def sample_numbers(file: Path) -> "NDArray[Any]":
    """Return the numbers of an Open Ephys recording's samples, mapped; none where it has none."""
    for name in ("sample_numbers.npy", "timestamps.npy"):
        if (beside := file.with_name(name)).is_file():
            numbers: NDArray[Any] = np.load(beside, mmap_mode="r")
            return numbers
    return np.empty(0)


def find_times(opened: "BaseRecording", segment: int = 0) -> Any:
    """Return the list of a segment's times, as its reader or its NWB file has it; None for none."""
    if opened.has_time_vector(segment):
        return opened.get_times(segment)
    series: Any = getattr(getattr(with_all_channels(opened), "_reader", None), "series", None)
    times = series.get("timestamps") if hasattr(series, "keys") else None
    is_whole = times is not None and len(times) >= opened.get_num_samples(segment)
    return times if is_whole else None


def with_all_channels(opened: "BaseRecording") -> "BaseRecording":
    """Return what some channels of which were chosen."""
    from spikeinterface.core.channelslice import ChannelSliceRecording

    while isinstance(opened, ChannelSliceRecording):
        opened = opened.get_parent()
    return opened


def describe_left_out(path: str, reader: str) -> Iterator[str]:
    """Name files without samples, and recordings without their header, which readers leave out."""
    if reader == "neuralynx":
        files = (file for file in sorted(Path(path).glob("*.[nN][cC][sS]")) if file.is_file())
        if empty := [file.name for file in files if file.stat().st_size <= NCS_HEADER_BYTES]:
            yield f"channels without samples are left out: {shorten(empty)} in {path}"
    for folder in sorted(Path(path).rglob("continuous")) if reader == "openephysbinary" else ():
        if not (folder.parent / "structure.oebin").exists():
            yield f"{folder.parent} has no structure.oebin, and is left out: is the copy finished?"


def read_ends(opened: "BaseRecording", path: str, row: Recording) -> None:
    """Read every segment's first and last sample; raise RecordingUnreadableError if one fails."""
    for index in range(opened.get_num_segments()):
        n_samples = opened.get_num_samples(index)
        for at in {0, n_samples - 1} if n_samples > 0 else ():
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
                is_turned = read.shape[1] > n_samples
                remedy = "Is the data transposed? Write it as samples by channels."
                raise refuse(row, msg, remedy if is_turned else COPY_REMEDY, path)


def describe_future(row: Recording) -> Iterator[str]:
    """Name files whose time lies in the future."""
    for path in itertools.filterfalse(is_url, row.paths):
        times = [(0.0, path)]
        with contextlib.suppress(FileNotFoundError):  # a link to nowhere that is not read
            times += ((ns / 1e9, file) for file, _, ns in data_files(path, row.reader))
        newest, file = max(times)
        if newest > time.time() + CLOCKS_DIFFER_S:
            dated = datetime.fromtimestamp(newest).astimezone().isoformat(timespec="minutes")
            yield (
                f"{file} is dated in the future ({dated}): is the clock of the recording computer "
                "right?"
            )


#: What parts that are sorted together have in common, by what it is called.
_SetUp = Mapping[str, Sequence[Any] | None]


def check_alike(parts: Sequence["BaseRecording"], row: Recording) -> None:
    """Raise RecordingUnreadableError if parts differ in their set-up; all differences are named."""
    set_ups: list[_SetUp] = [
        {
            "sampling rates in Hz": [part.get_sampling_frequency()],
            "numbers of channels": [part.get_num_channels()],
            "channels": [str(name) for name in part.channel_ids],
            "types of samples": [str(part.get_dtype())],
            "gains in uV per count": part.get_channel_gains(),
            "offsets in uV": part.get_channel_offsets(),
            "positions of channels in um": (
                part.get_channel_locations() if part.has_probe() and row.probe is None else None
            ),
        }
        for part in parts
    ]
    for path, other in zip(row.paths[1:], set_ups[1:], strict=True):
        _refuse_unlike(set_ups[0], other, f"{row.paths[0]} and {path}", row, path)


def _refuse_unlike(first: _SetUp, other: _SetUp, what: str, row: Recording, path: str) -> None:
    """Raise RecordingUnreadableError if two set-ups differ, with the first values that do."""
    most_hz = row.reader_options.get("sampling_frequency_max_diff", 0.0)
    different = []
    for name, values in first.items():
        both = (["none"] if each is None else [*each] for each in (values, other[name]))
        for one, another in zip(*both, strict=False):  # how many there are is a fact of its own
            if not _is_like(one, another, most_hz if "rates" in name else None):
                different.append(f"{name} ({one} and {another})")
                break
    if different:
        msg = f"{what} cannot be sorted together, since they differ: {'; '.join(different)}"
        remedy = (
            "Sort each in a row of its own (from a folder of its own, if they are in one folder "
            "now), or name parts of one set-up in column path. A small difference of the rate is "
            'allowed by reader_options: {"sampling_frequency_max_diff": ...} (in Hz).'
        )
        raise refuse(row, msg, remedy, path)


def _is_like(one: Any, other: Any, most: float | None) -> bool:
    """Whether two texts are equal, or two numbers (or places) but for ``most``, or for rounding."""
    if isinstance(one, str) or isinstance(other, str):
        return str(one) == str(other)
    if most is not None:  # as SpikeInterface compares rates
        return bool(abs(one - other) <= most)
    return bool(np.allclose(one, other, atol=1e-12, equal_nan=True))
