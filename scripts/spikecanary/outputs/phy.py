"""What people do with units by hand, in Phy and SpikeInterface's GUI: never lost, and read back."""

import contextlib
import itertools
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from spikecanary.outputs import FILES, OutputError
from spikecanary.recording.formats import describe_binary, find_source
from spikecanary.recording.stamps import digest
from spikecanary.texts import one_line

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import BaseRecording, BaseSorting, SortingAnalyzer

logger = logging.getLogger(__name__)

#: Phy's own groups of clusters.
GROUPS = ("good", "mua", "noise")
#: Phy's file of the unit of each spike, and its table of labels.
CLUSTERS, LABELS = "spike_clusters.npy", "cluster_group.tsv"
#: In a Phy folder: digests of what was exported; by the version before, when it was exported.
NOTE, STAMP = "exported.json", ".snakemake_timestamp"
#: In that note: the names of the arrays that were exported. Phy itself adds some (phylib 2.6).
ARRAYS, OF_PHY = "*.npy, *.dat", ("whitening_mat_inv.npy", "_phy_spikes_subset.")
#: Where SpikeInterface's GUI keeps a curation, in the analyzer's folder, and its file there.
GUI, CURATION = "spikeinterface_gui", "curation_data.json"
#: Raw files that Phy opens (phylib 2.6, EPHYS_RAW_EXTENSIONS).
RAW_FILES = (".dat", ".bin", ".raw", ".mda")
#: Traces with less noise, in their own numbers, lose their shape as whole numbers.
LEAST_INT16_NOISE = 2.0
#: SpikeInterface's file of a sorting's spikes; copied beside a curation, it tells what that is of.
SPIKES = "spikes.npy"
#: What messages say of work by hand: what it is, and what makes it count.
OF_GUI = "a curation made by hand in SpikeInterface's GUI"
READ_BACK = "set `curation: {{manual: {}}}`: its units and labels are then those of all outputs"
ONE_TOOL = (
    "move the folder elsewhere, since all outputs follow one tool, and `curation.manual` says {}"
)


def _list_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the files of a Phy folder that people may make or change, and the names of its arrays.

    Arrays are too large to be read, and people do not edit them. What programs make is left out.
    """
    ours = (NOTE, STAMP, Path(FILES["phy"]).name)
    of_programs = (".DS_Store", "phy.log", ".phy")  # made by looking alone
    files, arrays = {}, []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix in (".npy", ".dat") and path.name != CLUSTERS:
            arrays += [str(name)] if not path.name.startswith(OF_PHY) else []
        elif path.is_file() and path.name not in ours and {*name.parts}.isdisjoint(of_programs):
            files[str(name)] = path
    return files, sorted(arrays)


def find_edits(folder: Path) -> list[str]:
    """Name what people made or changed in a Phy folder since it was exported.

    A folder of the version before has no note of that. There counts what is newer than the
    export, in doubt everything.
    """
    files, arrays = _list_files(folder)
    try:
        noted = json.loads((folder / NOTE).read_text())
    except FileNotFoundError:
        stamp = folder / STAMP
        exported = stamp.stat().st_mtime if stamp.exists() else 0.0
        return [name for name, path in files.items() if path.stat().st_mtime > exported]
    except ValueError:
        noted = {}
    edits = [name for name, path in files.items() if noted.get(name) != digest(path)]
    # A note of the version before names no arrays.
    return edits + [name for name in arrays if name not in noted.get(ARRAYS, arrays)]


def look_for_work(folder: Path, pattern: str, manual: str | None, *, dry: bool) -> dict[str, str]:
    """Return a digest of what people made in a recording's Phy folder, or in the GUI, if asked for.

    In a Phy folder the files of a pattern count, if one of them was changed. Called before a job
    that removes the analyzer: what a GUI has saved there is moved away.
    """
    if not dry:
        shelter(folder)
    inside = folder / "analyzer" / GUI
    if manual == "gui" and (found := _curations(folder, *[inside][: not inside.is_symlink()])):
        return {"gui": " ".join(digest(place / CURATION) for place in found)}
    try:
        if manual != "phy" or not any(Path(x).match(pattern) for x in find_edits(folder / "phy")):
            return {}
        return {"phy": " ".join(map(digest, sorted((folder / "phy").glob(pattern))))}
    except OSError as err:  # its own job fails and says so
        return {"phy": f"cannot be read: {err.strerror}"}


def _refuse(work: str, keep: str) -> NoReturn:
    """Raise OutputError for work by hand that stands in the way: what keeps it, what drops it."""
    msg = f"{work}. To keep the work, {keep}. To drop it, remove the folder"
    raise OutputError(msg)


def may_replace(folder: Path, manual: str | None) -> bool:
    """Whether a Phy folder can be exported anew; False where it is the source of all outputs.

    Raises OutputError if it holds work of a person that nothing has read back.
    """
    edits = find_edits(folder)
    if edits and manual != "phy":
        named = ", ".join([*edits[:3], *(["..."] if edits[3:] else [])])
        work = f"{folder} was edited by hand ({named}), so it is not exported anew"
        _refuse(work, ONE_TOOL.format(manual) if manual else READ_BACK.format("phy"))
    return not edits


def say_empty(folder: Path, tool: str) -> None:
    """Make a folder that says why there is nothing in it."""
    folder.mkdir()
    (folder / "README.txt").write_text(
        f"The sorting has no units, so {tool} has nothing to show.\n"
    )


def write(
    analyzer: "SortingAnalyzer", units: "pd.DataFrame", params: Mapping[str, Any], folder: Path
) -> None:
    """Write a folder for ``phy template-gui params.py``, with labels as Phy's groups.

    Traces are those of the raw file where Phy can read it, else a filtered copy.
    """
    if analyzer.sorting.count_total_num_spikes() > 1:  # phylib opens no single spike
        _export(analyzer, units, params, folder)
    else:
        say_empty(folder, "Phy")
    files, arrays = _list_files(folder)
    note = {**{name: digest(path) for name, path in files.items()}, ARRAYS: arrays}
    (folder / NOTE).write_text(json.dumps(note, indent=1) + "\n")
    (folder / Path(FILES["phy"]).name).touch()


def _export(
    analyzer: "SortingAnalyzer", units: "pd.DataFrame", params: Mapping[str, Any], folder: Path
) -> None:
    import pandas as pd
    from spikeinterface.core import get_noise_levels
    from spikeinterface.exporters import export_to_phy

    waveforms = analyzer.has_extension("waveforms")
    if not waveforms:
        logger.info("no waveforms (analysis.extensions): Phy gets no features")
    raw = None if params.get("copy_binary") else find_raw(analyzer.recording)
    copied = params.get("copy_binary", raw is None)
    options = {"copy_binary": copied, "use_relative_path": copied, "verbose": False}
    options["compute_pc_features"] = waveforms
    if copied and find_source(analyzer.recording)[0].get_dtype() in ("int16", "uint16"):
        # Not where whitening or zscore left numbers around 1.
        noise = get_noise_levels(analyzer.recording, return_in_uV=False)
        options |= {"dtype": "int16"} if np.median(noise) >= LEAST_INT16_NOISE else {}
    export_to_phy(analyzer, folder, **{**options, **params})
    if raw is not None:
        channels = raw.pop("channels")
        np.save(folder / "channel_map.npy", channels.astype("int32"))
        lines = {**raw, "sample_rate": analyzer.sampling_frequency, "hp_filtered": False}
        text = "".join(f"{name} = {value!r}\n" for name, value in lines.items())
        (folder / "params.py").write_text(text)
    _fit_phylib(folder)
    labels = units.loc[[str(unit) for unit in analyzer.unit_ids], "label"]
    groups = labels.where(labels.isin(GROUPS), "unsorted")
    for name, values in {"group": groups, "label": labels}.items():
        table = pd.DataFrame({"cluster_id": range(len(values)), name: list(values)})
        table.to_csv(folder / f"cluster_{name}.tsv", sep="\t", index=False)


def _fit_phylib(folder: Path) -> None:
    """Give a single template a second, empty one: phylib squeezes arrays, and opens none of one."""
    rows = {"templates": 0, "similar_templates": 0, "template_ind": -1, "pc_feature_ind": -1}
    for name, empty in rows.items():
        path = folder / f"{name}.npy"
        if path.exists() and len(array := np.load(path)) == 1:
            width = [(0, 1), (0, int(name == "similar_templates")), (0, 0)][: array.ndim]
            np.save(path, np.pad(array, width, constant_values=empty))


def find_raw(recording: "BaseRecording") -> dict[str, Any] | None:
    """Find the one plain file that a recording's traces are read from, which Phy can open.

    Returns
    -------
    dict or None
        ``dat_path``, ``n_channels_dat``, ``dtype`` and ``offset`` (of its first sample, in bytes)
        for Phy, and ``channels``: where each channel is in the file. None where there is none,
        or where samples or channels of the recording are not those of the file.
    """
    source, first = find_source(recording)
    if (
        source.get_num_segments() != 1
        or source.sampling_frequency != recording.sampling_frequency
        or first + recording.get_num_samples() > source.get_num_samples()
        or not set(recording.channel_ids) <= set(source.channel_ids)
    ):
        return None
    if found := describe_binary(source):
        if found["time_axis"] != 0 or len(found["file_paths"]) != 1:
            return None
        path, n_channels = found["file_paths"][0], found["num_channels"]
        places = np.arange(n_channels)
    else:
        neo = getattr(source, "neo_reader", None)
        if neo is None or not neo.has_buffer_description_api():
            return None
        stream = next(
            each for each in neo.header["signal_streams"] if each["id"] == source.stream_id
        )
        found = neo.get_analogsignal_buffer_description(source.block_index, 0, stream["buffer_id"])
        if found["type"] != "raw" or found.get("order", "C") != "C":
            return None
        path, n_channels = found["file_path"], found["shape"][1]
        chosen = neo._stream_buffer_slice[source.stream_id]  # noqa: SLF001 - neo has no other way
        places = np.arange(n_channels)[slice(None) if chosen is None else chosen]
    dtype = np.dtype(found["dtype"])
    is_readable = dtype.isnative and Path(path).suffix in RAW_FILES
    if not is_readable or len(places) != source.get_num_channels():
        return None
    return {
        "dat_path": str(Path(path).absolute()),
        "n_channels_dat": int(n_channels),
        "dtype": dtype.name,
        "offset": int(found["file_offset"]) + first * int(n_channels) * dtype.itemsize,
        "channels": places[source.ids_to_indices(recording.channel_ids)],
    }


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Name the Phy folder whose files are broken."""
    try:
        yield
    except (OSError, ValueError, LookupError) as err:
        msg = (
            f"{folder} was edited by hand, but cannot be read ({one_line(str(err), 200)}). Save it "
            "again in Phy, or bring back what is missing. To drop the work, remove the folder"
        )
        raise OutputError(msg) from err


def _unit_names(folder: Path) -> dict[int, str]:
    """Return the ids of the exported units, by Phy's number."""
    import pandas as pd

    path = folder / "cluster_si_unit_ids.tsv"
    table = pd.read_csv(path, sep="\t", dtype={"si_unit_id": str}, keep_default_na=False)
    return dict(zip(table["cluster_id"], table["si_unit_id"], strict=True))


def read_sorting(folder: Path, sampling_frequency_hz: float) -> "BaseSorting":
    """Read the units of a Phy folder; those that were merged or split are named phy and a number.

    SpikeInterface's reader wants numbers as ids.
    """
    from spikeinterface.core import NumpySorting

    with _reading(folder):
        names = _unit_names(folder)
        samples, clusters = (
            np.load(folder / name).ravel() for name in ("spike_times.npy", CLUSTERS)
        )
        found, of_spikes = np.unique(clusters, return_inverse=True)
        ids = [names.get(int(cluster), f"phy{cluster}") for cluster in found]
        return NumpySorting.from_samples_and_labels(
            samples.astype("int64"), of_spikes.ravel(), sampling_frequency_hz
        ).rename_units(ids)


def check_of_sort(folder: Path, sorting: "BaseSorting") -> None:
    """Raise OutputError if an edited Phy folder is of an earlier sort: its spikes are others."""
    with _reading(folder):
        spikes = np.load(folder / "spike_times.npy")
    if not np.isin(spikes, sorting.to_spike_vector()["sample_index"]).all():
        _refuse(
            f"{folder} was edited by hand, but is of an earlier sort: its spikes are not those of "
            "this one",
            "move the folder elsewhere (Phy opens it there), or undo the change for which the "
            "recording was sorted again",
        )


def check_current(folder: Path, sorting: "BaseSorting") -> None:
    """Raise OutputError if a Phy folder stays, since it was edited, but holds other units.

    Then the recording, or its analysis, has changed since the folder was exported.
    """
    exported: dict[str, Any] = {}
    if (folder / CLUSTERS).exists():  # not where there were no units
        read = read_sorting(folder, sorting.sampling_frequency)
        exported = {unit: read.get_unit_spike_train(unit) for unit in read.unit_ids}
    units = {str(unit): sorting.get_unit_spike_train(unit) for unit in sorting.unit_ids}
    # Not equal: since the export, spikes at joins of parts may have been left out.
    are_in = (np.isin(train, exported.get(unit, ())).all() for unit, train in units.items())
    if {*units} != {*exported} or not all(are_in):
        _refuse(
            f"{folder} was edited by hand, so it stays, but its units are not those of all other "
            "outputs: the sort or its analysis has changed since",
            "move the folder elsewhere, or undo the change",
        )


def read_labels(folder: Path) -> dict[str, dict[str, str]]:
    """Read what people said of units in Phy: by column, by unit; without units of that say nothing.

    ``phy_label`` is Phy's group, ``phy_NAME`` a column that a person made.
    """
    import pandas as pd

    found: dict[str, dict[str, str]] = {"phy_label": {}}
    with _reading(folder):
        exported = json.loads((folder / NOTE).read_text()) if (folder / NOTE).exists() else None
        for path in sorted(folder.glob("cluster_*.tsv")):
            is_own = exported is not None and path.name not in (*exported, "cluster_info.tsv")
            if path.name == LABELS or is_own:
                names = _unit_names(folder)
                table = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
                ids = [names.get(int(each), f"phy{each}") for each in table["cluster_id"]]
                name, texts = table.columns[-1], table.iloc[:, -1].str.strip()
                labels = {unit: text for unit, text in zip(ids, texts, strict=True) if text}
                found["phy_label" if path.name == LABELS else f"phy_{name}"] = labels
    # As Phy writes them.
    groups = {unit: text.lower() for unit, text in found["phy_label"].items()}
    return found | {"phy_label": {unit: x for unit, x in groups.items() if x != "unsorted"}}


def shelter(folder: Path) -> None:
    """Move a GUI's curation out of the analyzer, which Snakemake removes; a link stays there."""
    inside = folder / "analyzer" / GUI
    if inside.is_symlink():  # what it leads to may have been dropped: the GUI needs a folder
        with contextlib.suppress(OSError):
            _make_place(folder / inside.readlink().name, folder / "analyzer")
        return
    if not (inside / CURATION).exists():
        return
    outside = _next_place(folder, folder.glob(f"{GUI}*"))
    with contextlib.suppress(OSError):  # none: it fits nothing, and is refused
        shutil.copy(folder / "analyzer/sorting" / SPIKES, inside)
    inside.rename(outside)
    with contextlib.suppress(OSError):  # a file system without links
        inside.symlink_to(Path("..") / outside.name)


def keep_outside(analyzer: Path, folder: Path) -> None:
    """Link a GUI's place in a new analyzer to a recording's folder beside it.

    So what is saved there stays when Snakemake removes the analyzer, also while a sort runs.
    """
    outside = _next_place(folder, _curations(folder))
    with contextlib.suppress(OSError):  # a file system without links: it is sheltered later
        (outside / SPIKES).unlink(missing_ok=True)
        _make_place(outside, analyzer)
        (analyzer / GUI).symlink_to(Path("..") / outside.name)


def _next_place(folder: Path, places: Iterable[Path]) -> Path:
    """Return a place for a curation that comes after those in others, also where some are gone."""
    names = [each.name.removeprefix(GUI).lstrip(".") for each in places]
    number = max((1 + int(each or 0) for each in names if each.isdigit() or not each), default=0)
    return folder / (f"{GUI}.{number}" if number else GUI)


def _make_place(folder: Path, analyzer: Path) -> None:
    """Make a folder for the GUI's curation of an analyzer, with that analyzer's spikes."""
    folder.mkdir(exist_ok=True)
    if not (folder / SPIKES).exists():
        shutil.copy(analyzer / "sorting" / SPIKES, folder)


def _curations(folder: Path, *further: Path) -> list[Path]:
    """Return the folders of the GUI's curations, in the order in which they were made."""
    places = sorted(folder.glob(f"{GUI}*"), key=lambda path: (len(path.name), path.name))
    return [path for path in (*places, *further) if (path / CURATION).exists()]


def check_sheltered(folder: Path, manual: str | None = None) -> None:
    """Raise OutputError if a curation is of a former analysis; ``manual``: the config's tool."""
    if found := _curations(folder):
        work = f"{', '.join(map(str, found))}: {OF_GUI}, for a former analysis of the sorting"
        _refuse(work, ONE_TOOL.format(manual) if manual else READ_BACK.format("gui"))


def apply_gui(folder: Path, sorting: "BaseSorting") -> "BaseSorting":
    """Apply the GUI's curations, each made on what the one before it left.

    Labels are properties: ``gui_label`` of category quality, ``gui_NAME`` of others. Raises
    OutputError if one was made on other units.
    """
    from spikeinterface.core import load
    from spikeinterface.curation import apply_curation, load_curation

    used = {*map(str, load(folder / "sorting").unit_ids)}
    sorting = sorting.remove_empty_units()
    for place in _curations(folder):
        of = place / SPIKES
        if not of.exists() or not np.array_equal(np.load(of), sorting.to_spike_vector()):
            keep = "move the folder elsewhere, or undo the change of the sort or its analysis"
            _refuse(f"{place}: {OF_GUI}, but on other units", keep)
        curation = load_curation(place / CURATION)
        _name_new_units(curation, sorting, used)
        sorting = apply_curation(sorting, curation)
        used |= {*map(str, sorting.unit_ids)}
        for name, labels in _labels_of(curation, sorting):
            before = sorting.get_property(name)
            is_first = before is None
            sorting.set_property(name, labels if is_first else np.where(labels, labels, before))
    return sorting


def _name_new_units(curation: Any, sorting: "BaseSorting", used: set[str]) -> None:
    """Give merged and split units ids that no unit ever had, unless a person gave them such.

    SpikeInterface counts from those that are left, and would give a removed unit's id again.
    """
    named = {str(each.new_unit_id) for each in curation.merges}
    named |= {str(x) for each in curation.splits for x in each.new_unit_ids or ()}
    largest = max((int(x) for x in used | named if x.isdecimal()), default=-1)
    free = map(int if sorting.unit_ids.dtype.kind in "iu" else str, itertools.count(largest + 1))
    for merge in curation.merges:
        if merge.new_unit_id is None or str(merge.new_unit_id) in used:
            merge.new_unit_id = next(free)
    for split in curation.splits:
        if not used.isdisjoint(map(str, split.new_unit_ids or used)):
            split.new_unit_ids = [next(free) for _ in split.get_full_spike_indices(sorting)]


def _labels_of(curation: Any, sorting: "BaseSorting") -> Iterator[tuple[str, Any]]:
    """Yield each category of a curation's labels, as a property's name, and the units' labels."""
    for category, definition in curation.label_definitions.items():
        name = "gui_label" if category == "quality" else f"gui_{category}"
        labels = sorting.get_property(category)
        if not definition.exclusive:  # a flag for each label
            flags = {each: sorting.get_property(each) for each in definition.label_options}
            known_flags = {each: flag for each, flag in flags.items() if flag is not None}
            of_units = zip(*known_flags.values(), strict=True)
            texts = [
                ", ".join(x for x, is_so in zip(known_flags, y, strict=True) if is_so)
                for y in of_units
            ]
            labels = np.array(texts) if known_flags else None
        if labels is not None:
            yield name, np.char.lower(labels.astype(str))
