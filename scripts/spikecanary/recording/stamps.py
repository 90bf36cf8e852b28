"""Stamps of a recording's files, which tell whether it has changed since it was sorted.

Stamps are parameters of jobs, not inputs: Snakemake would sort again when a raw file is
archived, fail every job of one dated in the future, and not see one that was completed by a
copy with an older time.
"""

import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spikecanary.config.pathtypes import not_readable
from spikecanary.table import Recording, is_url

#: What SpikeInterface saves as a binary folder.
SAVED = r"(traces|times)_cached_seg[0-9]+\.(raw|npy)|properties/[^/]+\.npy|(binary|probe)\.json"
#: Of a folder count the files that its reader reads, by their paths in it (regular expressions,
#: tried on the whole path); of readers that are not here all files, but hidden ones. From the
#: readers' own sources (neo's rawio, SpikeInterface 0.105); other programs leave files in such
#: folders.
DATA_FILES = {
    "alphaomega": r".+\.(mpx|lsx)",
    "binaryfolder": SAVED,
    "compressedbinaryibl": r".+\.(cbin|ch|meta)",
    "mda": r"(?!firings)[^/]+\.mda|geom\.csv|params\.json",
    "neuralynx": r"(?i).+\.(ncs|nrd)",
    "openephysbinary": r"(.+/)?(structure\.oebin|continuous\.dat|(timestamps|sample_numbers)\.npy)",
    "openephyslegacy": r".+\.(continuous|openephys)",
    "spikeglx": r".+\.(bin|meta)",
    # A binary folder, or zarr's arrays and their chunks (0.1, c/0/1).
    "spikeinterface": SAVED + r"|(.+/)?(zarr\.json|\.z(array|attrs|group|metadata)|[0-9.]+)",
    "tdt": r".+\.(tbk|tdx|tev|tin|tnt|tsq|sev)",
}
#: Files beside the one that a row names, which its reader reads too: for which names ({stem}: of
#: that file), and which files.
BESIDE = {
    "axona": (".+", r"{stem}\.(bin|set|[0-9]+)"),
    "blackrock": (".+", r"{stem}\.(ns[1-9]|nev)"),
    "intan": (r"info\.rh[ds]", r"[^_]+\.dat"),
    "neuronexus": (r".+\.xdat\.json", r"{stem}.*\.xdat"),
    "neuroscope": (".+", r"{stem}\.(xml|dat)"),
}
#: A file's stamp has so many entries: name, size, time (ns).
N_OF_FILE = 3
NS_PER_S = 1_000_000_000
#: By so much the same time may differ on two file systems: FAT keeps even seconds.
TIMES_DIFFER_NS = 2 * NS_PER_S


def of_recording(row: Recording, plugin: str | None) -> dict[str, Any] | None:
    """Return the stamps of all files that decide what a sort gives; None while any is away.

    Returns
    -------
    dict or None
        ``paths``: of each path its name, size and time (ns), of a folder the number of data files,
        their size and digests of their names, sizes and times, in ns and in whole s. ``probe``,
        ``plugin`` and the probes in folders that SpikeInterface saved: digests of their contents,
        since a checkout of a repository gives files a new time.
    """
    paths = [_of_path(path, row.reader) for path in row.paths]
    named = {"probe": row.probe, "plugin": plugin}
    if row.reader in ("binaryfolder", "spikeinterface"):
        inside = (Path(each, "probegroup.json") for each in row.paths if not is_url(each))
        named |= {
            f"probe {n}": str(each) for n, each in enumerate(inside) if not not_readable(each)
        }
    texts = {name: _of_text(path) for name, path in named.items() if path}
    return None if None in [*paths, *texts.values()] else {"paths": paths, **texts}


def _of_path(path: str, reader: str) -> list[Any] | None:
    """Return the stamp of a file, a folder or an address; None where there is no data."""
    if is_url(path):
        return [path]
    named = Path(path)
    try:
        status = named.stat()
        if not named.is_dir() and _beside(named, reader) is None:
            return [named.name, status.st_size, status.st_mtime_ns]
        files = sorted(data_files(path, reader))
    except OSError:
        return None
    if not files:
        return None
    folder = len(str(named if named.is_dir() else named.parent))
    exact = [(name[folder:], size, time_ns) for name, size, time_ns in files]
    whole = [(name, size, time_ns - time_ns % NS_PER_S) for name, size, time_ns in exact]
    digests = [hashlib.sha256(repr(each).encode()).hexdigest()[:16] for each in (exact, whole)]
    return [named.name, len(files), sum(size for _, size, _ in files), *digests]


def _size(of_path: list[Any]) -> int:
    """Return the size in bytes in a path's stamp; of a URL 0."""
    return int(sum(of_path[1:2] if len(of_path) == N_OF_FILE else of_path[2:3]))


def size_bytes(stamp: Mapping[str, Any] | None) -> int:
    """Return the size of a recording's data files by its stamp; 0 where any is away."""
    return sum(map(_size, stamp["paths"])) if stamp else 0


def are_noted(now: Mapping[str, Any] | None, noted: Any, *, some_away: bool) -> bool:
    """Whether the stamps of now are those of files that were noted.

    Archives and file systems that keep times less exactly (tar, NTFS, exFAT) change no file. With
    ``some_away`` files may be away, all of them or, of a folder, some: it has fewer then, of a
    smaller size.
    """
    if now is None:
        return some_away
    try:
        paths = zip(now["paths"], noted["paths"], strict=True)
        # Earlier records do not note the probes in SpikeInterface's folders.
        known = {name: now[name] for name in now if name in noted or name in ("probe", "plugin")}
        others = {**known, "paths": None} == {**noted, "paths": None}
        return others and all(_is_noted(*each, some_away=some_away) for each in paths)
    except (TypeError, ValueError, LookupError):  # a record that somebody edited
        return False


def _is_noted(now: list[Any], noted: list[Any], *, some_away: bool) -> bool:
    if now == noted or now[0] != noted[0]:
        return now == noted
    if len(now) == N_OF_FILE:
        return bool(now[1] == noted[1] and abs(now[2] - noted[2]) <= TIMES_DIFFER_NS)
    lacks_some = now[1] < noted[1] and now[2] <= noted[2]
    # The last digest is that of whole seconds; earlier records have but that of exact times.
    is_same = now[1:3] == noted[1:3] and (now[-1] == noted[-1] or now[3] == noted[3])
    return is_same or (some_away and lacks_some)


def data_files(path: str, reader: str) -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time (ns) of the files that a reader reads; OSError if there is none."""
    named = Path(path)
    if named.is_dir():
        pattern = re.compile(DATA_FILES.get(reader, ".*"), re.DOTALL)
        yield from _files(str(named), pattern, len(str(named)) + 1, deep=True)
    elif (beside := _beside(named, reader)) is not None:
        yield from _files(str(named.parent), beside, len(str(named.parent)) + 1, deep=False)
    else:
        status = named.stat()
        yield path, status.st_size, status.st_mtime_ns


def _beside(named: Path, reader: str) -> re.Pattern[str] | None:
    """Return the pattern of a file and those beside it; None where it is read alone."""
    names, files = BESIDE.get(reader, ("", ""))
    if not re.fullmatch(names, named.name):
        return None
    stem = re.escape(re.sub(r"(\.xdat)?\.[^.]+$", "", named.name))
    return re.compile(f"{re.escape(named.name)}|{files.replace('{stem}', stem)}")


def _files(
    folder: str, pattern: re.Pattern[str], start: int, *, deep: bool
) -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time of a folder's files whose paths match from ``start`` on."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") and not entry.name.startswith(".z"):
                continue  # of another program, but zarr's: macOS, an editor's lock
            try:
                is_folder = entry.is_dir()
            except OSError:
                continue  # a link to itself
            if is_folder:
                if deep and not _is_loop(entry):
                    with contextlib.suppress(PermissionError):  # closed to readers, too
                        yield from _files(entry.path, pattern, start, deep=True)
            elif pattern.fullmatch(entry.path, start):
                status = entry.stat()
                yield entry.path, status.st_size, status.st_mtime_ns


def _is_loop(entry: os.DirEntry[str]) -> bool:
    """Whether a folder is a link to one that it is in."""
    here = Path(entry.path).parent.resolve()
    return entry.is_symlink() and Path(entry.path).resolve() in (here, *here.parents)


def describe_changes(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    """Name the files whose stamps differ, with their sizes; empty where none do."""
    if not before or not now or before == now:
        return ""
    changes = []
    for old, new in zip(before["paths"], now["paths"], strict=False):
        if old[0] != new[0]:
            changes.append(f"{new[0]} instead of {old[0]}")
        elif old != new:
            was, size = map(_size, (old, new))
            change = "other contents or another time"
            change = change if was == size else f"{was:,} bytes then, {size:,} now"
            changes.append(f"{new[0]}: {change}")
    texts = {*before, *now} - {"paths"}
    changes += [f"another {x} file" for x in sorted(texts) if before.get(x) != now.get(x)]
    return "; ".join(changes)


def digest(path: Path) -> str:
    """Return the digest of a file's contents (16 hex digits of SHA-256)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@functools.cache
def _of_text(path: str) -> str | None:
    """Return the digest of a file; None where it cannot be read."""
    try:
        return digest(Path(path)) if Path(path).is_file() else None  # a FIFO has no end
    except OSError:
        return None
