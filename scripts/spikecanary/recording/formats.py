"""Which reader of SpikeInterface opens what: recognise recordings by their files."""

import contextlib
import inspect
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikecanary.config.pathtypes import not_readable
from spikecanary.recording.probes import refuse
from spikecanary.table import Recording, is_url
from spikecanary.texts import shorten

#: Names of files, their reader, and what column path names: the file (0), its folder (1), or the
#: folder above that (2: an experiment of Open Ephys).
MARKS = {
    r".+\.imec\d*\.(ap|lf)\.meta": ("spikeglx", 1),
    r"structure\.oebin": ("openephysbinary", 2),
    r".+\.continuous": ("openephyslegacy", 1),
    r".+\.ncs": ("neuralynx", 1),
    r".+\.(tsq|tbk)": ("tdt", 1),
    r".+\.mpx": ("alphaomega", 1),
    r"raw\.mda": ("mda", 1),
    r".+\.cbin": ("compressedbinaryibl", 1),
    r".+\.rh[ds]": ("intan", 0),
    r".+\.ns[1-9]": ("blackrock", 0),
    r".+\.plx": ("plexon", 0),
    r".+\.pl2": ("plexon2", 0),
    r".+\.smr": ("spike2", 0),
    r".+\.smrx": ("ced", 0),
    r".+\.brw": ("biocam", 0),
    r".+\.nwb": ("nwb", 0),
    r".+\.xdat\.json": ("neuronexus", 0),
    r".+\.nix": ("nix", 0),
    r".+\.nex": ("neuroexplorer", 0),
    r".+\.edf": ("edf", 0),
    r".+\.abf": ("axon", 0),
}
#: Files whose names do not tell their format: what they hold. Of HDF5 a group, else a first text.
HDF5 = {
    "maxwell": ("wells", "mapping"),
    "mcsh5": ("Data/Recording_0/AnalogStream",),
    "biocam": ("3BRecInfo", "ExperimentSettings"),
    "nwb": ("specifications", "acquisition"),
    "mearec": ("recordings",),
    "sinapsresearchplatformh5": ("RealTimeProcessedData",),
}
TEXTS = {
    ".raw": ("mcsraw", b"MC_DataTool"),
    ".rec": ("spikegadgets", b"<Configuration"),
    ".set": ("axona", b"trial_date"),
    ".xml": ("neuroscope", b"<acquisitionSystem"),
}
#: Files of folders that hold results of SpikeInterface and of this project; Phy's lie beside data.
RESULTS = {"spikeinterface_log.json", "spikeinterface_info.json", "numpysorting_info.json"}
RESULTS |= {"canary.json", "sort.json"}
#: Files that cannot be opened beside each other, and what to do.
MIXED = {
    "spikeglx": (("*_tcat.*", "*_t[0-9]*.imec*"), "Move CatGT's output to a folder of its own"),
    "neuralynx": (("*_[0-9][0-9][0-9][0-9].ncs",), "Move files _0001.ncs to a folder of their own"),
}
#: What tells the runs of one session apart in their paths: gates, experiments, times, numbers (but
#: no dates: those of several days are several sessions).
RUN = re.compile(
    r"_g\d+(?=(_imec\d*)?([/\\]|$))|(?<=experiment)\d+$|(?<=_\d{6})_\d{6}(?=(\.|[/\\]info\.)rh[ds]$)"
    r"|[-_]?(?<!(?<!\d)\d{3})(?<!(?<!\d)\d{5})\d{3}(?=\.ns\d$)"
)
#: Names of files and folders that say nothing.
NO_NAME = re.compile(
    r"(?i)(record.?node.*|experiment\d*|recording\d*|data(\.raw)?|info|raw|traces|ap)"
)
#: So many folders above a run may be needed to tell sessions apart.
MOST_ABOVE = 3
#: Extensions of neo's readers that other files have too.
NOT_DATA = {"", "txt", "xml", "json", "npy", "mat", "tsv", "meta"}
#: Units of a voltage, as formats and people write them, and uV in them by how they begin.
VOLTS = re.compile(r"(?i)\s*([uµμmn]|micro|milli|nano)?v(olts?)?\s*")
UV_IN = {"": 1e6, "m": 1e3, "milli": 1e3, "n": 1e-3, "nano": 1e-3}
#: Units of which SpikeInterface 0.105 knows the gain.
KNOWN_UNITS = ("V", "Volt", "Volts", "mV", "uV")


@dataclass(frozen=True)
class Recognised:
    """A path and its reader, or (with ``reason``) why it has none."""

    path: str
    reader: str = ""
    reason: str = ""
    failed: bool = False


def walk(folder: str, seen: set[str]) -> Iterator[Recognised]:
    """Yield what is recognised in a folder (or a file), and other files that may be data.

    ``seen``: folders that have been walked, to which those of this one are added, and files that
    have a row already: of these nobody needs to be told that they are not recognised.
    """
    is_remote = is_url(folder)
    if why := "is a URL: write its row by hand" if is_remote else not_readable(folder):
        yield Recognised(folder, reason=why.removeprefix(f"{folder} "), failed=True)
        return
    unread: list[OSError] = []
    if Path(folder).is_file():
        parent, name = os.path.split(folder)
        found = [*_recognise(parent, [name], seen)]
    elif os.path.realpath(folder) in seen:
        return
    else:
        found = [*_walk_folder(folder, seen, unread)]
    yield from found
    for error in unread:
        yield Recognised(str(error.filename), reason=f"cannot be listed: {error}", failed=True)
    if not found and not unread:
        yield Recognised(folder, reason="no file of a known format")


def _walk_folder(folder: str, seen: set[str], unread: list[OSError]) -> Iterator[Recognised]:
    """Yield what is recognised in a folder and those in it; append what cannot be listed."""
    linked = []  # they come after the real ones
    for root, folders, files in os.walk(folder, onerror=unread.append):
        real = os.path.realpath(root)
        if real in seen or (RESULTS & {*files} and "binary.json" not in files):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if {"binary.json", ".zgroup", "zarr.json"} & {*files}:
            folders.clear()
            is_nwb = (Path(root) / "specifications").exists()
            is_recording = "binary.json" in files or (Path(root) / "channel_ids").exists()
            if is_nwb or is_recording:
                yield Recognised(root, "nwb" if is_nwb else "spikeinterface")
            continue
        if "structure.oebin" in files:  # what is below belongs to it
            folders.clear()
        linked += [str(path) for name in folders if (path := Path(root, name)).is_symlink()]
        yield from _recognise(root, sorted(n for n in files if not n.startswith(".")), seen)
    for each in linked:
        yield from _walk_folder(each, seen, unread)


def _recognise(root: str, files: Sequence[str], seen: set[str]) -> Iterator[Recognised]:
    """Recognise the files of one folder."""
    from neo.rawio import rawiolist

    found: dict[str, str] = {}
    for name in files:
        path = Path(root) / name
        marks = (
            mark
            for pattern, mark in MARKS.items()
            if re.fullmatch(pattern, name.lower(), re.DOTALL)
        )
        reader, above = next(marks, None) or (_look_into(path) if path.is_file() else "", 0)
        if reader == "spikeglx" and path.with_suffix(".cbin").exists():
            continue
        if reader:
            above -= above > 1 and not path.parent.name.startswith("recording")
            found[str([path, path.parent, path.parent.parent][above])] = reader
    info = [path for path in found if re.fullmatch(r"info\.rh[ds]", Path(path).name)]
    yield from (Recognised(path, found[path]) for path in info or found)
    if info or "params.py" in files or any(Path(path).is_dir() for path in found):
        return
    stems = {Path(path).name.split(".")[0] for path in found}
    known = {name.lower() for io in rawiolist for name in io.extensions} - NOT_DATA
    other: dict[str, list[str]] = {}
    for name in files:
        suffix = Path(name).suffix.lower()
        if os.path.realpath(Path(root) / name) in seen:
            continue
        if name.split(".")[0] not in stems and suffix[1:] in known | {"hdf5", "cbin"}:
            other.setdefault(suffix, []).append(name)
    for suffix, names in other.items():
        if any(re.fullmatch(r".+\.(nidq|obx\d*)\.bin", name) for name in names):
            yield Recognised(root, reason=f"{shorten(names)}: NI-DAQ or OneBox, no probe")
            continue
        reason = f"not recognised: {shorten(names)}"
        if suffix in (".bin", ".dat", ".raw"):
            reason += " (raw samples do not say their rate, type and channels: write a row by hand)"
        yield Recognised(root, reason=reason)


def _look_into(path: Path) -> str:
    """Return the reader of a file by what it holds; empty where none is known."""
    suffix = path.suffix.lower()
    with contextlib.suppress(OSError):
        if suffix in (".h5", ".hdf5"):
            import h5py

            with h5py.File(path) as file:
                known = (name for name, groups in HDF5.items() if any(g in file for g in groups))
                return next(known, "")
        reader, text = TEXTS.get(suffix, ("", b""))
        if reader:
            with path.open("rb") as opened:
                return reader if text in opened.read(10_000) else ""
    return ""


def describe_layout(path: str, reader: str) -> str:
    """Say how files have to lie that cannot be opened; nothing where they do."""
    patterns, remedy = MIXED.get(reader, ((), ""))
    if patterns and all(any(Path(path).glob(pattern)) for pattern in patterns):
        return remedy
    is_lost = reader == "openephysbinary" and not Path(path).name.startswith("experiment")
    return "Open Ephys's folders are experiment1/recording1: bring them back" if is_lost else ""


def list_streams(path: str, reader: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name of each stream of a path, and the columns that choose it, or a ``reason``."""
    if reader in ("nwb", "maxwell", "mcsh5"):
        yield from _streams_of_hdf5(path, reader)
    elif reader == "compressedbinaryibl":
        files = sorted(Path(path).glob("*.cbin"))
        of_spikes = [file for file in files if file.name.endswith("ap.cbin")]
        for file in files:  # its reader finds the one of spikes by itself
            options = {"reader_options": json.dumps({"cbin_file_path": str(file)})}
            yield file.stem, {} if [file] == of_spikes else options
    elif reader in ("spikeinterface", "blackrock", "mda", "mearec", "sinapsresearchplatformh5"):
        yield "", {}
    else:
        from spikeinterface.extractors import get_neo_streams

        names, ids = get_neo_streams(reader, path)
        for name, stream in zip(names, ids, strict=True):
            yield str(name), {"stream_id": str(stream)} if len(ids) > 1 else {}


def _streams_of_hdf5(path: str, reader: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the streams of formats of which neo knows none."""
    import h5py
    from spikeinterface.extractors.nwbextractors import NwbRecordingExtractor

    if reader == "nwb":
        series = NwbRecordingExtractor.fetch_available_electrical_series_paths(path)
        labelled = {}
        if Path(path).is_file():
            labels = {"subject": "general/subject/subject_id", "session": "general/session_id"}
            with h5py.File(path) as file:
                labelled = {name: file[at].asstr()[()] for name, at in labels.items() if at in file}
        for name in series:
            options = {"reader_options": json.dumps({"electrical_series_path": name})}
            yield name, labelled | (options if len(series) > 1 else {})
        return
    with h5py.File(path) as file:
        if reader == "mcsh5":
            for name, stream in file["Data/Recording_0/AnalogStream"].items():
                noted: list[Any] = [stream.attrs.get(x, "") for x in ("Label", "DataSubType")]
                kind = " ".join(x.decode() if isinstance(x, bytes) else str(x) for x in noted)
                # Of electrodes, ids of recordings hold the name.
                is_other = re.search(r"(?i)auxiliary|digital|analog data", kind)
                stream_id = {"stream_id": name.removeprefix("Stream_")}
                yield f"{name} {kind}" if is_other else name, stream_id
            for name in {*file["Data"]} - {"Recording_0"}:
                yield name, {"reason": "SpikeInterface reads Recording_0 alone"}
        elif "wells" not in file:  # of MaxOne, before 2016
            yield "", {}
        for well, recordings in file.get("wells", {}).items():
            for name in recordings:
                options = {"reader_options": json.dumps({"rec_name": name})}
                yield f"{well} {name}", {"stream_id": well} | options


#: Of a gate of SpikeGLX: first sample and end in what its reader joins, and what neo knows of it.
_Run = tuple[int, int, Mapping[str, Any]]


def find_runs(opened: Any) -> dict[tuple[Path, bool], _Run]:
    """Return the gates that SpikeGLX's reader joins: folder and name, and whether CatGT made it."""
    runs: dict[tuple[Path, bool], _Run] = {}
    at = 0
    for segment in range(opened.get_num_segments()):
        info = opened.neo_reader.signals_info_dict[segment, opened.stream_id]
        file = Path(info["meta_file"])
        run = file.with_name(re.split(r"_t(?:\d+|cat)\.", file.name)[0]), "_tcat." in file.name
        first, _, known = runs.get(run, (at, at, info))
        at += opened.get_num_samples(segment)
        runs[run] = first, at, known
    return runs


def check_one_run(opened: Any, path: str, row: Recording) -> None:
    """Raise RecordingUnreadableError if gates are joined by a row that does not say where it ends.

    Files may have been added since it was written.
    """
    start_s, end_s = row.pieces()[-1]
    if end_s is not None or str(opened.stream_id).endswith("SYNC"):
        return
    rate_hz, runs = opened.get_sampling_frequency(), find_runs(opened)
    first = start_s * rate_hz if path == row.paths[0] else 0
    joined = [run for run, (_, end, _) in runs.items() if end > first + 1]
    if len(joined) > 1:
        names = [f"{run.name}_tcat" if is_catgt else run.name for run, is_catgt in joined]
        msg = f"{path} holds several runs, which would be joined: {', '.join(names)}"
        remedy = (
            "Move those that were added, CatGT's output too, to a folder of their own; the others "
            "are as before then."
        )
        if len(row.paths) == 1:
            end = max(end for _, end, _ in runs.values())
            remedy += f" To sort gates as one, write end_s {end / rate_hz}."
        raise refuse(row, msg, remedy, path)


def mend(opened: Any, path: str, options: Mapping[str, Any], notes: list[str]) -> None:
    """Set what SpikeInterface gets wrong: gains and offsets in uV, and options of neo's readers.

    Without an offset it ignores a gain, so a gain alone gets an offset of 0.
    It takes units that it does not know for uV. Plexon's (plx) are in mV, though neo names no unit;
    where another names none, that is noted. Processes that open the recording anew need its
    options, of which BioCAM's class forgets how gaps are filled.
    """
    gains, offsets = (opened.get_property(f"{name}_to_uV") for name in ("gain", "offset"))
    if gains is not None and offsets is None:
        opened.set_property("offset_to_uV", np.zeros(len(gains)))
    units, reader = opened.get_property("physical_unit"), getattr(opened, "neo_reader", None)
    if units is None or reader is None:
        return
    own_options = options.keys() & inspect.signature(type(opened)).parameters
    opened._kwargs = {x: options[x] for x in own_options} | opened._kwargs  # noqa: SLF001
    own = "mV" if type(reader).__name__ == "PlexonRawIO" else ""
    named_units = [str(unit).strip() or own for unit in units]
    volts = map(VOLTS.fullmatch, named_units)
    factors = [UV_IN.get((each[1] or "").lower(), 1.0) if each else 1.0 for each in volts]
    for name in ("gain", "offset"):
        known, read = (opened.get_property(f"{name}_to_{x}") for x in ("uV", "physical_unit"))
        mended = np.where(np.isin(units, KNOWN_UNITS), known, read * np.array(factors))
        opened.set_property(f"{name}_to_uV", mended)
    if not all(named_units):
        notes.append(f"{path} names no unit: its gain is not known, and a count taken for 1 uV")


def find_source(recording: Any, *, of_first_part: bool = False) -> tuple[Any, int]:
    """Return what a recording is read from, and the sample there that is its first.

    What joins several parts is a source itself, unless that of its first part is asked for.
    """
    below, first = recording, 0
    while below is not None:
        recording, kwargs = below, below._kwargs  # noqa: SLF001 - what it was made of
        first += kwargs.get("start_frame") or 0
        parts = kwargs.get("recording_list", ()) if of_first_part else ()
        below = recording.get_parent() or next(iter(parts), None)
    return recording, first


def describe_binary(recording: Any) -> Any:
    """Return how a recording lies in a raw file; None where it does in none, or nobody knows.

    WhiteMatter's class, and SHYBRID's, say that it does, and do not keep which file it is.
    """
    with contextlib.suppress(KeyError):
        return recording.get_binary_description() if recording.is_binary_compatible() else None
    return None


def names_in(path: str) -> list[str]:
    """Return the parts of a path that say something, without their extensions."""
    parts = [re.sub(r"\.[A-Za-z]\w*$", "", part) for part in Path(path).parts]
    return [part for part in parts if part and not NO_NAME.fullmatch(part)] or ["recording"]


def name_sessions(
    runs: Sequence[tuple[str, str, str]], known: Iterable[tuple[str, str, str]]
) -> list[str]:
    """Name the session of each run: by its run, with folders above where others are named so too.

    ``runs``: subject, path, and the run's name or path; ``known``: subject, session and path of
    rows that have theirs. The name is empty where nothing tells of several runs.
    """
    taken: dict[tuple[str, str], list[str]] = {}
    for subject, session, path in known:
        taken.setdefault((subject, session), []).append(path)
    asked: dict[tuple[str, str], set[Path]] = {}
    each_run = []
    for subject, path, run in runs:
        name = re.sub(r"_imec\d*$", "", names_in(RUN.sub("", run))[-1])
        place = _find_place(path, name)
        above = names_in(str(place))
        proposed = ["_".join([*above[len(above) - n :], name]) for n in range(MOST_ABOVE + 1)]
        proposed = proposed if RUN.search(run) else []
        for session in proposed:
            asked.setdefault((subject, session), set()).add(place)
        each_run.append((subject, name, place, proposed))
    named = []
    for subject, name, place, proposed in each_run:
        places = {x: {_find_place(p, name) for p in taken.get((subject, x), ())} for x in proposed}
        same = [x for x in proposed if places[x] == {place}]
        own = [x for x in proposed if not places[x] and asked[subject, x] == {place}]
        named.append(next(iter([*same, *own, *proposed[-1:]]), ""))
    return named


def _find_place(path: str, run: str) -> Path:
    """Return the folder in which a run is; its gates and probes may have folders of their own."""
    parts = Path(RUN.sub("", path)).absolute().parts
    own = re.compile(rf"(catgt_)?{re.escape(run)}(_imec\d*)?(\.\w+)*")
    return Path(*itertools.takewhile(lambda part: not own.fullmatch(part), parts))
