"""A recording: opening it through its reader, windows, preprocessing, its header."""

import contextlib
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary.config.pathtypes import not_readable
from spikecanary.failures import (
    ClassifiedSortFailure,
    DependencyError,
    PreprocessingError,
    RecordingUnreadableError,
)
from spikecanary.recording import clock, formats, integrity
from spikecanary.recording.probes import check_ranges, place_channels, refuse, select_channels
from spikecanary.sentinel import Part
from spikecanary.table import Recording, is_url
from spikecanary.texts import did_you_mean, one_line, shorten

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording

#: The reader option, in Hz, that is ours: by how much the rates of a recording's parts may differ.
RATES_DIFFER = "sampling_frequency_max_diff"
#: Of what a reader says, so many characters are quoted.
LONGEST_MESSAGE = 600
#: How files begin that stand for others, which were not fetched, and what fetches these.
POINTERS = {
    b"/annex/objects/": "git annex get, datalad get",
    b"version https://git-lfs": "git lfs pull",
}
#: What to do about what readers say: of a file that ends too early, of an NWB file with all its
#: electrodes at one place, which no other probe replaces, and of gaps in a file of Blackrock, where
#: the advice is behind a long table.
REMEDIES = {
    re.compile(
        r"(?i:set|use|using|with)(?: the)? [`']?(?!stream_)\w+_\w+(?:=|[`'] (?:to|par|arg))"
    ): "Set the option that the message names in reader_options.",
    re.compile(
        r"(?i)truncated|unexpected end|mmap length|end of file|EOFError|reshape|buffer is smaller|"
        r"multiple of the (data-type|element) size|out of bounds|JSONDecodeError|"
        r"No data left|nSavedChans|different sections structures|Incompatible section structures"
    ): integrity.COPY_REMEDY,
    re.compile("positions must be unique"): (
        "Correct rel_x and rel_y of the electrodes in the file: all are at one place."
    ),
    re.compile("timestamp gaps"): 'Write reader_options: {"gap_tolerance_ms": 1} in its row.',
}
#: Preprocessing is tried on so many pieces of so many s.
N_CHECKED, CHECKED_S = 5, 0.1
#: It spoils channels where this share of their samples has one value, and few others are there.
SPOILT_SHARE, FEW_VALUES = 0.9, 3
#: Where a row says ``stream_mode: fsspec``, which reads 5 MB ahead by default.
READ_AHEAD_BYTES = 100_000
#: What zarr and SpikeInterface say of any failure at a URL.
HIDDEN = re.compile(r"nothing found at path|(?i:install) \S+ to access")
URL_REMEDY = "In the environment that runs the job: pip install remfile s3fs aiohttp requests"
UNSIGNED_REMEDY = "Put unsigned_to_signed before the other steps of the config's preprocessing."
SPOILT_REMEDY = (
    "Leave step {step} out of the config's preprocessing, or the channels out of the sort (column "
    "bad_channels; step detect_and_remove_bad_channels)."
)


def open_recording(
    row: Recording,
    notes: list[str] | None = None,
    *,
    thorough: bool = False,
    opened: "BaseRecording | None" = None,
    parts: list[Part] | None = None,
) -> "BaseRecording":
    """Open a recording lazily: its paths concatenated, its channels chosen, its part cut out.

    It has one segment.

    Parameters
    ----------
    row : Recording
    notes : list of str, optional
        What people should know of it is appended. Without it, what was sorted is opened as it was:
        a row that has two meanings is not refused.
    thorough : bool
        Read the first and last samples, and the clock, too.
    opened : BaseRecording, optional
        What the row's reader makes of its only path, where it has been opened.
    parts : list of Part, optional
        The parts of the recording are appended, as far as they are not cut away.

    Raises
    ------
    RecordingUnreadableError
        A path does not exist, is not whole, or cannot be opened; parts or probe do not fit.
    RecordingLayoutError
        It holds no spikes.
    DependencyError
        The reader lacks a module.
    MemoryError
        There is not enough memory.
    """
    strict, notes = notes is not None, [] if notes is None else notes
    try:
        recording, filled = _concatenate(row, notes, opened, thorough=thorough, strict=strict)
        rate_hz = recording.get_sampling_frequency()
        # Not of one part alone, for its joins: its clock may be as long as the samples, at a URL.
        is_wanted = parts is not None or (thorough and len(filled) > 1)
        described = _describe(filled) if is_wanted else []
        if thorough:
            notes += clock.describe_joins(described, rate_hz)
        if parts is not None:
            parts += clock.cut(described, row.pieces(), rate_hz)
        return _cut(place_channels(recording, row, notes), row)
    except (ClassifiedSortFailure, MemoryError):
        raise
    except ImportError as err:
        msg = f"reader {row.reader!r} needs a module that cannot be imported: {err}"
        remedy = URL_REMEDY if row.is_remote else ""
        raise DependencyError(msg, module=err.name, remedy=remedy) from err
    except Exception as err:  # whatever its type: the recording cannot be opened
        msg = f"the recording {row.id} cannot be opened: {_first_words(err)}"
        raise refuse(row, msg, path=row.paths[0]) from err


#: A path, one of its segments, and what was opened.
_Opened = tuple[str, int, "BaseRecording"]


def _concatenate(
    row: Recording, notes: list[str], opened: Any, *, thorough: bool, strict: bool
) -> tuple["BaseRecording", list[_Opened]]:
    """Open all paths of a recording as one segment, and name those parts that have samples."""
    from spikeinterface.core import concatenate_recordings

    parts = [_open_path(path, row, notes, opened, thorough=thorough) for path in row.paths]
    for path, part in zip(row.paths, parts, strict=True) if strict else ():
        check_ranges(part, row)
        if row.reader == "spikeglx":
            formats.check_one_run(part, path, row)
    if row.probe is None:  # parts may differ in channels that are left out
        parts = [select_channels(part, row) for part in parts]
    integrity.check_alike(parts, row)
    if thorough:
        notes += integrity.describe_future(row)
    filled: list[_Opened] = []
    for path, part in zip(row.paths, parts, strict=True):
        for index in range(part.get_num_segments()):
            if part.get_num_samples(index) > 1:
                filled.append((path, index, part))
            else:
                notes.append(f"segment {index} of {path} has no samples, and is left out")
    if not filled:
        raise refuse(row, f"{', '.join(row.paths)}: no samples", path=row.paths[0])
    segments = [
        part if part.get_num_segments() == 1 else part.select_segments([index])
        for _, index, part in filled
    ]
    if len(segments) == 1:
        return segments[0], filled
    most_hz = row.reader_options.get(RATES_DIFFER, 0.0)
    return concatenate_recordings(segments, sampling_frequency_max_diff=most_hz), filled


def _describe(filled: list[_Opened]) -> list[Part]:
    """Describe the parts of a recording, one behind the other."""
    lengths = (opened.get_num_samples(index) for _, index, opened in filled)
    starts = itertools.accumulate(lengths, initial=0)
    return [clock.describe_part(*each, start) for each, start in zip(filled, starts, strict=False)]


def _check_readable(path: str, row: Recording) -> None:
    """Check that a path can be read, and does not stand for what was not fetched."""
    if why := not_readable(path):
        raise refuse(row, f"{why} (recording {row.id})", path=path)
    if Path(path).is_file():
        with Path(path).open("rb") as file:
            begins = file.peek()
        for fetch in (POINTERS[each] for each in POINTERS if begins.startswith(each)):
            msg = f"{path} only points to its content"
            raise refuse(row, msg, f"Fetch it: {fetch}.", path=path)


def _open_path(
    path: str, row: Recording, notes: list[str], opened: Any, *, thorough: bool
) -> "BaseRecording":
    """Open one path with the row's reader, and check that it is whole."""
    from spikeinterface.core import BaseRecording

    if is_url(path):
        _set_up_network()
    else:
        _check_readable(path, row)
    options = {name: value for name, value in row.reader_options.items() if name != RATES_DIFFER}
    if row.stream_id is not None:
        options["stream_id"] = row.stream_id
    try:
        if opened is None:
            opened = _read(path, row.reader, options)
    except (ClassifiedSortFailure, ImportError, MemoryError):
        raise
    except Exception as err:
        msg = f"reader {row.reader!r} cannot open {path}: {_first_words(err)}"
        raise refuse(row, msg, remedy_of(err), path) from err
    if isinstance(opened, tuple):  # readers of simulated data return (recording, sorting)
        opened = opened[0]
    if not isinstance(opened, BaseRecording):
        msg = f"{path} holds a {type(opened).__name__}, which is no recording"
        raise refuse(row, msg, "Name the recording that was sorted.", path)
    for index, segment in enumerate(opened.segments):
        start_s: Any = opened.get_time_info(index)["t_start"]
        if np.ndim(start_s):  # of NWB in zarr
            segment._t_start = float(start_s[0])  # noqa: SLF001 - nothing else sets it
    formats.mend(opened, path, options, notes)
    integrity.check_stream(opened, path, row.reader)
    integrity.check_complete(opened, path, row, notes)
    if thorough:
        integrity.read_ends(opened, path, row)
        if not is_url(path):
            notes += clock.describe_gaps(opened, row)
            notes += integrity.describe_left_out(path, row.reader)
    return opened


def _read(path: str, reader: str, options: Mapping[str, Any]) -> Any:
    """Call a reader; where zarr hides what the server answers, or what is missing, raise that."""
    if reader == "binary" and options.get("time_axis") == 1:
        return _read_by_channel(path, options)
    try:
        return reader_function(reader)(path, **options)
    except ValueError as err:
        if is_url(path) and HIDDEN.search(str(err)):
            import fsspec

            files, root = fsspec.url_to_fs(path, **(options.get("storage_options") or {}))
            files.cat_file(f"{root}/.zgroup")
        raise


def _read_by_channel(path: str, options: Mapping[str, Any]) -> "BaseRecording":
    """Open a raw file that holds one channel after the other as slices of a single long channel.

    SpikeInterface 0.105 takes a piece of it for one of all channels (``time_axis`` 1).
    """
    from spikeinterface.core import aggregate_channels, read_binary

    whole, n_channels = read_binary(path, **options), options["num_channels"]
    shared = ("sampling_frequency", "dtype", "file_offset")
    one = {name: options[name] for name in shared if name in options}
    long, n_samples = read_binary(path, num_channels=1, **one), whole.get_num_samples()
    cut = [long.frame_slice(n * n_samples, (n + 1) * n_samples) for n in range(n_channels)]
    made = aggregate_channels(cut, renamed_channel_ids=whole.channel_ids)
    whole.copy_metadata(made)
    return made


@functools.cache
def _set_up_network() -> None:
    """Have fsspec read little ahead, and zarr 2 raise OSErrors: it takes them for zeros."""
    with contextlib.suppress(ImportError):  # there is no FSStore in zarr 3, which raises them
        import fsspec

        fsspec.config.conf.setdefault("http", {}).setdefault("block_size", READ_AHEAD_BYTES)
        from zarr.storage import FSStore

        FSStore.__init__ = functools.partialmethod(FSStore.__init__, exceptions=(KeyError,))


def remedy_of(error: Exception) -> str:
    """Return what to do about a reader's own error; an empty text where nothing is known."""
    text = f"{type(error).__name__}: {error}"
    return next((REMEDIES[each] for each in reversed(REMEDIES) if each.search(text)), "")


def _first_words(error: Exception) -> str:
    """Return an exception's type and message in one line of a readable length."""
    return one_line(f"{type(error).__name__}: {error}", LONGEST_MESSAGE)


def readers() -> dict[str, Any]:
    """Return SpikeInterface's recording readers by name, and ``spikeinterface`` for ``si.load``."""
    from spikeinterface.core import load
    from spikeinterface.extractors import recording_extractor_full_dict

    return {
        **{k: v for k, v in recording_extractor_full_dict.items() if k != "numpy"},
        "spikeinterface": load,
    }


def reader_function(name: str) -> Any:
    """Return what opens a path of that format; raise RecordingUnreadableError if nothing does."""
    known = readers()
    if name not in known:
        msg = f"unknown reader {name!r}{did_you_mean(name, known)}"
        raise RecordingUnreadableError(msg, reader=name)
    return known[name]


def _cut(recording: "BaseRecording", row: Recording) -> "BaseRecording":
    """Cut out [start_s, end_s], or chunks, which are joined, where the table gives them."""
    from spikeinterface.core import concatenate_recordings

    if row.pieces() == ((0.0, None),):
        return recording
    duration_s = recording.get_num_samples() / recording.get_sampling_frequency()
    one_sample_s = 1 / recording.get_sampling_frequency()
    cut = []
    for start_s, last_s in row.pieces():
        end_s = duration_s if last_s is None else last_s
        if start_s >= duration_s or end_s > duration_s + one_sample_s:
            until = "its end" if last_s is None else f"{end_s:.10g} s"
            asked = f"the table asks for {start_s:.10g} s to {until}"
            msg = f"{asked}, but {row.id} ends at {duration_s:.10g} s"
            remedy = "Correct start_s, end_s or chunks in the table. They are in seconds."
            raise refuse(row, msg, remedy, row.paths[0])
        cut.append(cut_window(recording, start_s, end_s))
    return concatenate_recordings(cut) if row.chunks else cut[0]


def find_chunks(recording: "BaseRecording") -> tuple[int, int, int]:
    """Return where in its stored data a recording begins, in samples; samples in a chunk of these.

    And bytes of a sample of all stored channels. Of several parts the first counts; what has no
    chunks of zarr or HDF5 has them of one sample.
    """
    root, first = formats.find_source(recording, of_first_part=True)
    stored = vars(root.segments[0])
    data = stored.get("_timeseries", stored.get("electrical_series_data"))  # zarr, NWB
    chunk = (getattr(data, "chunks", None) or (1,))[0]
    return first, int(chunk), root.get_num_channels() * root.get_dtype().itemsize


def cut_window(recording: "BaseRecording", start_s: float, end_s: float) -> "BaseRecording":
    """Cut out [start_s, end_s), in seconds from the recording's first sample, lazily."""
    rate = recording.get_sampling_frequency()
    end = min(round(end_s * rate), recording.get_num_samples())
    return recording.frame_slice(start_frame=round(start_s * rate), end_frame=end)


def preprocessing_steps() -> dict[str, Any]:
    """Return SpikeInterface's preprocessing steps by name."""
    from spikeinterface import preprocessing

    known = preprocessing.PreprocessingPipeline.function_names_to_functions
    return {**known, "scale_to_uV": preprocessing.scale_to_uV}  # which its pipeline does not know


def preprocess(
    recording: "BaseRecording", steps: Mapping[str, Mapping[str, Any]]
) -> "BaseRecording":
    """Apply preprocessing steps of SpikeInterface, lazily.

    Raises PreprocessingError if one cannot be built for this recording, or leaves no channel.
    """
    made = [recording, *(each for _, each in _apply(recording, steps))]
    return made[-1]


def _apply(
    recording: "BaseRecording", steps: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, "BaseRecording"]]:
    """Yield each step, and what it makes of what those before it have made."""
    known = preprocessing_steps() if steps else {}
    made = recording
    for step, params in steps.items():
        try:
            made = known[step](made, **params)
        except MemoryError:
            raise
        except Exception as err:
            msg = f"preprocessing: step {step!r} cannot be applied: {_first_words(err)}"
            remedy = UNSIGNED_REMEDY if re.search(r"(?i)\bunsigned\b", str(err)) else ""
            raise PreprocessingError(msg, step=step, remedy=remedy) from err
        if not made.get_num_channels() or not made.get_num_samples():
            msg = f"preprocessing: step {step!r} leaves no channels or no samples"
            raise PreprocessingError(msg, step=step)
        yield step, made


def check_preprocessed(recording: "BaseRecording", steps: Mapping[str, Mapping[str, Any]]) -> None:
    """Check on some pieces of a recording that preprocessing leaves what a sorter can take.

    Raises PreprocessingError if a step makes NaN of finite samples, one value of different ones, or
    negative numbers of unsigned ones, or filters spikes away.
    """
    if not steps:
        return
    stages = [("", recording), *_apply(recording, steps)]
    for (_, source), (step, target) in itertools.pairwise(stages):
        was, now = source.get_dtype(), target.get_dtype()
        if step == "astype" and (was.kind, now.kind) == ("u", "i") and not np.can_cast(was, now):
            msg = "preprocessing: step 'astype' makes negative numbers of large unsigned ones"
            raise PreprocessingError(msg, step=step, remedy=UNSIGNED_REMEDY)
    last, made = stages[-1]
    if (rate_hz := made.get_sampling_frequency()) < integrity.LEAST_RATE_HZ:
        msg = (
            f"preprocessing: at {rate_hz:g} Hz, to which the recording is resampled, are no spikes"
        )
        remedy = "Leave step resample out of the config's preprocessing, or raise its rate."
        raise PreprocessingError(msg, step="resample", remedy=remedy)
    n_samples = min(recording.get_num_samples(), made.get_num_samples())
    length = min(n_samples, round(CHECKED_S * recording.get_sampling_frequency()))
    starts = np.linspace(0, n_samples - length, N_CHECKED).astype(int).tolist()
    before = _read_with_ids(recording, starts, length)
    try:
        after = _read_with_ids(made, starts, length)
    except MemoryError:
        raise
    except Exception as err:
        msg = f"preprocessing: its samples cannot be read: {_first_words(err)}"
        raise PreprocessingError(msg, step=last) from err
    for step, partly in stages[1:] if _spoilt(before, after)[0] else ():
        channels, fault = _spoilt(before, _read_with_ids(partly, starts, length))
        if channels:
            msg = f"preprocessing: step {step!r} makes {fault} on {shorten(channels)}"
            remedy = SPOILT_REMEDY.format(step=step)
            raise PreprocessingError(msg, step=step, channels=channels, remedy=remedy)


def _read_with_ids(
    recording: "BaseRecording", starts: Sequence[int], length: int
) -> dict[str, Any]:
    """Read pieces as a dict of their traces, one behind the other, by channel id."""
    pieces = [recording.get_traces(start_frame=at, end_frame=at + length) for at in starts]
    return dict(zip(map(str, recording.channel_ids), np.concatenate(pieces).T, strict=True))


def _spoilt(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the channels that lost their signal, and how."""
    finite = [name for name in before if name in after and np.isfinite(before[name]).all()]
    if not_finite := [name for name in finite if not np.isfinite(after[name]).all()]:
        return not_finite, "samples that are not finite (NaN)"
    alive = [name for name in finite if _share_of_one_value(before[name]) < SPOILT_SHARE]
    is_lost = all(  # spikes above rounded noise are a signal
        _share_of_one_value(after[name]) >= SPOILT_SHARE
        and len(np.unique(after[name])) <= FEW_VALUES
        for name in alive
    )
    return alive if is_lost else [], "nearly all samples the same, or at two limits,"


def _share_of_one_value(samples: Any) -> float:
    """Return the share of samples with the most frequent value, or at the lowest or highest."""
    at_limits = ((samples == samples.min()) | (samples == samples.max())).mean()
    return max(float((samples == np.median(samples)).mean()), float(at_limits))


def is_plain(recording: "BaseRecording") -> bool:
    """Whether a recording is one file of whole samples from its first byte on.

    Kilosort's wrappers hand over the path of a binary file alone (SpikeInterface 0.105).
    """
    raw = formats.describe_binary(recording)
    if raw is None:
        return False
    frame_bytes = raw["num_channels"] * np.dtype(raw["dtype"]).itemsize
    sizes = [Path(file).stat().st_size for file in raw["file_paths"]]
    return not raw["file_offset"] and not any(size % frame_bytes for size in sizes)


def describe_header(recording: "BaseRecording") -> dict[str, Any]:
    """Describe a recording from its header; reads no traces.

    Returns
    -------
    dict
        ``duration_s``, ``n_samples``, ``n_channels``, ``sampling_frequency_hz``,
        ``dtype``, ``n_probes``; ``gain_to_uV``: of the first channel, None where it is not known;
        ``is_binary``: whether sorters can read its file as it is.
    """
    rate, gains = recording.get_sampling_frequency(), recording.get_channel_gains()
    return {
        "duration_s": recording.get_num_samples() / rate,
        "n_samples": recording.get_num_samples(),
        "n_channels": recording.get_num_channels(),
        "sampling_frequency_hz": rate,
        "dtype": str(recording.get_dtype()),
        "n_probes": len(recording.get_probes()) if recording.has_probe() else 0,
        "gain_to_uV": None if gains is None else float(gains[0]),
        "is_binary": is_plain(recording),
    }
