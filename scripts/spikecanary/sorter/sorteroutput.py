"""The sorter's own files, kept beside a sorting: without copies of the data, written whole.

They are no output that is declared to Snakemake, which deletes the outputs of a job that failed: a
sorting that cannot be read must not cost the hours of its sort. Where settings and data are still
those of the files, they are read again instead of sorting.
"""

import itertools
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikecanary import sentinel
from spikecanary.recording.stamps import digest

logger = logging.getLogger(__name__)

NAME = "sorter_output"
#: What was sorted, and which files the sorter wrote.
NOTE = "spikecanary.json"
#: The parameter that decides which units are read, and nothing that a sorter writes.
KEEP_GOOD_ONLY = "keep_good_only"
#: Copies of the recording that sorters write into their folder, from their wrappers in
#: SpikeInterface 0.105: the kilosorts, klusta, yass, tridesclous, spykingcircus, ironclust,
#: rtsort, mountainsort5, waveclus, hdsort, pykilosort, and the cached preprocessing of
#: spykingcircus2, tridesclous2, lupin.
COPIES = (
    "recording.dat",
    "temp_wh.dat",
    "data.bin",
    "raw_signals_*.raw",
    "recording.npy",
    "raw.mda",
    "scaled_traces.npy",
    "recording",
    "cache_preprocessing",
    "recording.h5",
    "raw[0-9]*.h5",
    "ironclust_dataset/raw.mda",
    "rt_sort_inter/*.npy",
    ".kilosort",
)
#: Of sorters whose results have such a name too.
OWN_COPIES: dict[str, tuple[str, ...]] = {"combinato": (), "spykingcircus": ("recording.npy",)}
#: SpikeInterface's files beside a sorter's folder, without which it does not read it.
BESIDE = ("spikeinterface_*.*", "recording_attributes.json")


def keep(work: Path, results: Path, settings: Mapping[str, Any], version: str | None) -> None:
    """Keep what a sorter wrote into SpikeInterface's folder for it, in a recording's results.

    With it are noted ``settings``, all that decides the sort, and the sorter's version. What has
    been kept so far is replaced; where a person has changed it, it stays as ``sorter_output.N``.
    """
    source, target = work / NAME, results / NAME
    if not source.is_dir():
        return
    used = (settings.get("task") or {}).get("sorter") or {}
    copies = OWN_COPIES.get(used.get("name", ""), COPIES)
    if (used.get("params") or {}).get("save_preprocessed_copy"):  # then it was asked for
        copies = tuple(name for name in copies if name != "temp_wh.dat")
    for path in [path for pattern in copies for path in source.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in [path for pattern in BESIDE for path in work.glob(pattern)]:
        path.rename(source / path.name)
    files = {name: [size, digest(source / name)] for name, size in _list_sizes(source).items()}
    note = {"settings": settings, "sorter_version": version, "files": files}
    sentinel.write_atomic(source / NOTE, json.dumps(note) + "\n")
    noted = _read_note(target)
    if target.exists() and (noted is None or _is_changed(target, noted, added=True)):
        numbered = (target.with_name(f"{NAME}.{number}") for number in itertools.count(1))
        aside = target.rename(next(each for each in numbered if not each.exists()))
        logger.warning("%s was changed by hand: it is kept as %s", target, aside)
    sentinel.move(source, target)


def find(results: Path, settings: Mapping[str, Any]) -> Path | None:
    """Return the kept folder where it was written for these settings and is as it was written."""
    folder = results / NAME
    note = _read_note(folder)
    if note is None or _written_by(note["settings"]) != _written_by(settings):
        return None
    return None if _is_changed(folder, note) else folder


def _written_by(settings: Mapping[str, Any]) -> Any:
    """Return settings without what decides only which units are read."""
    compared = json.loads(json.dumps(settings))
    of_sorter = (compared.get("task") or {}).get("sorter") or {}
    params = of_sorter.pop("params", {})
    params.pop(KEEP_GOOD_ONLY, None)
    return compared, params


def lay_out(source: Path, work: Path, *, keep_good_only: bool | None = None) -> None:
    """Lay a kept folder out as SpikeInterface reads it: its own files beside the sorter's."""
    work.mkdir(parents=True)
    for path in [path for pattern in BESIDE for path in source.glob(pattern)]:
        shutil.copy(path, work / path.name)
    (work / NAME).symlink_to(source.absolute(), target_is_directory=True)
    if keep_good_only is not None:
        path = work / "spikeinterface_params.json"
        ran_with = json.loads(path.read_text(encoding="utf-8"))
        ran_with["sorter_params"][KEEP_GOOD_ONLY] = keep_good_only
        path.write_text(json.dumps(ran_with), encoding="utf-8")


def _is_changed(folder: Path, note: Mapping[str, Any], *, added: bool = False) -> bool:
    """Whether a file that a sorter wrote is gone or another, or (asked for) one was added."""
    now, then = _list_sizes(folder), note["files"]
    now.pop(NOTE, None)
    if added and now.keys() != then.keys():
        return True
    # A note of before has a time, too.
    return any(
        now.get(name) != size or digest(folder / name) != noted
        for name, (size, *_, noted) in then.items()
    )


def _list_sizes(folder: Path) -> dict[str, int]:
    """Return the size in bytes of each file of a folder, by its path in it."""
    return {
        str(path.relative_to(folder)): path.lstat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()  # no link to nowhere
    }


def _read_note(folder: Path) -> Mapping[str, Any] | None:
    try:
        note: Mapping[str, Any] = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        return note if isinstance(note["settings"], dict) and {**note["files"]} else None
    except (OSError, ValueError, LookupError, TypeError):  # somebody may have edited it
        return None


def save_empty(folder: Path, sampling_frequency_hz: float) -> None:
    """Write a SpikeInterface sorting folder with no units."""
    from spikeinterface.core import NumpySorting

    NumpySorting.from_unit_dict({}, sampling_frequency_hz).save(folder=folder)
