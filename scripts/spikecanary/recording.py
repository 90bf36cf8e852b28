"""A recording: opening it through its reader, windows, preprocessing, its header."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikecanary.config import did_you_mean
from spikecanary.failures import ClassifiedSortFailure, RecordingUnreadableError
from spikecanary.table import Recording

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording


def size_bytes(row: Recording) -> int:
    """Return the size of a recording's files, those that exist."""
    total = 0
    for path in map(Path, row.files()):
        files = path.rglob("*") if path.is_dir() else [path]
        for file in files:
            with contextlib.suppress(OSError):
                total += file.stat().st_size
    return total


def open_recording(row: Recording) -> "BaseRecording":
    """Open a recording lazily: its paths concatenated, its probe set, its part cut out.

    Returns
    -------
    BaseRecording
        One segment. No traces are read.

    Raises
    ------
    RecordingUnreadableError
        A path does not exist, or the reader cannot open it.
    Exception
        What the reader raised, where its type tells that the machine is to blame
        (a module that is missing, no memory).
    """
    from spikeinterface.core import concatenate_recordings

    parts = [_open_path(path, row) for path in row.paths]
    recording = parts[0]
    if len(parts) > 1 or recording.get_num_segments() > 1:
        recording = concatenate_recordings(parts)
    if row.probe:
        recording = _with_probe(recording, row.probe)
    return _cut(recording, row)


def _open_path(path: str, row: Recording) -> "BaseRecording":
    """Open one path with the row's reader."""
    if "://" not in path and not Path(path).exists():
        msg = f"{path} does not exist (recording {row.id})"
        raise RecordingUnreadableError(msg, path=path, reader=row.reader)
    options = dict(row.reader_options)
    if row.stream_id is not None:
        options["stream_id"] = row.stream_id
    try:
        opened = reader_function(row.reader)(path, **options)
    except (ClassifiedSortFailure, ImportError, MemoryError):
        raise
    except Exception as err:
        msg = f"reader {row.reader!r} cannot open {path}: {type(err).__name__}: {err}"
        raise RecordingUnreadableError(msg, path=path, reader=row.reader) from err
    if isinstance(opened, tuple):  # readers of simulated data return (recording, sorting)
        opened = opened[0]
    from spikeinterface.core import BaseRecording

    if not isinstance(opened, BaseRecording):
        msg = f"{path} holds a {type(opened).__name__}, not a recording"
        raise RecordingUnreadableError(msg, path=path, reader=row.reader)
    return opened


def readers() -> dict[str, Any]:
    """Return SpikeInterface's recording readers by name, and ``spikeinterface`` for ``si.load``."""
    from spikeinterface.core import load
    from spikeinterface.extractors import recording_extractor_full_dict

    return {
        **{k: v for k, v in recording_extractor_full_dict.items() if k != "numpy"},
        "spikeinterface": load,
    }


def reader_function(name: str) -> Any:
    """Return the function or class that opens a path of that format.

    Raises
    ------
    RecordingUnreadableError
        SpikeInterface has no such reader.
    """
    known = readers()
    if name not in known:
        msg = f"unknown reader {name!r}{did_you_mean(name, known)}"
        raise RecordingUnreadableError(msg, reader=name)
    return known[name]


def _with_probe(recording: "BaseRecording", path: str) -> "BaseRecording":
    """Attach a probeinterface JSON file."""
    from probeinterface import read_probeinterface

    if not Path(path).exists():
        msg = f"probe file {path} does not exist"
        raise RecordingUnreadableError(msg, path=path)
    try:
        probegroup = read_probeinterface(path)
        for probe in probegroup.probes:
            if probe.device_channel_indices is None:
                probe.set_device_channel_indices(range(probe.get_contact_count()))
        recording.set_probegroup(probegroup)
    except Exception as err:
        msg = f"probe file {path} does not fit the recording: {type(err).__name__}: {err}"
        raise RecordingUnreadableError(msg, path=path) from err
    return recording


def _cut(recording: "BaseRecording", row: Recording) -> "BaseRecording":
    """Cut out [start_s, end_s] where the table gives them."""
    if row.start_s is None and row.end_s is None:
        return recording
    duration_s = recording.get_num_samples() / recording.get_sampling_frequency()
    start_s = row.start_s or 0.0
    end_s = duration_s if row.end_s is None else row.end_s
    one_sample_s = 1 / recording.get_sampling_frequency()
    if start_s >= duration_s or end_s > duration_s + one_sample_s:
        msg = (
            f"start_s {start_s:g} s, end_s {end_s:g} s: the recording {row.id} ends at "
            f"{duration_s:.3f} s"
        )
        raise RecordingUnreadableError(msg, path=row.paths[0], reader=row.reader)
    return cut_window(recording, start_s, end_s)


def cut_window(recording: "BaseRecording", start_s: float, end_s: float) -> "BaseRecording":
    """Cut out [start_s, end_s), in seconds from the recording's first sample, lazily."""
    rate = recording.get_sampling_frequency()
    end = min(round(end_s * rate), recording.get_num_samples())
    return recording.frame_slice(start_frame=round(start_s * rate), end_frame=end)


def preprocess(
    recording: "BaseRecording", steps: Mapping[str, Mapping[str, Any]]
) -> "BaseRecording":
    """Apply SpikeInterface's ``PreprocessingPipeline`` of these steps, lazily."""
    from spikeinterface.preprocessing import PreprocessingPipeline, apply_preprocessing_pipeline

    if not steps:
        return recording
    pipeline = PreprocessingPipeline({name: dict(params) for name, params in steps.items()})
    return apply_preprocessing_pipeline(recording, pipeline)


def describe_header(recording: "BaseRecording") -> dict[str, Any]:
    """Describe a recording from its header; reads no traces.

    Returns
    -------
    dict
        ``duration_s``, ``n_samples``, ``n_channels``, ``sampling_frequency_hz``,
        ``dtype``, ``has_probe``; ``is_binary``: whether sorters can read its file as it is.
    """
    rate = recording.get_sampling_frequency()
    return {
        "duration_s": recording.get_num_samples() / rate,
        "n_samples": recording.get_num_samples(),
        "n_channels": recording.get_num_channels(),
        "sampling_frequency_hz": rate,
        "dtype": str(recording.get_dtype()),
        "has_probe": recording.has_probe(),
        "is_binary": recording.is_binary_compatible(),
    }
