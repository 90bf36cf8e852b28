"""The probe of a recording: read its file, choose channels, check the contacts' positions."""

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary.config.pathtypes import not_readable
from spikecanary.failures import RecordingUnreadableError
from spikecanary.table import Recording
from spikecanary.texts import did_you_mean, shorten

if TYPE_CHECKING:
    from probeinterface import Probe, ProbeGroup
    from spikeinterface.core import BaseRecording

#: Micrometres in the units that probeinterface knows.
UM_IN = {"um": 1.0, "mm": 1e3, "m": 1e6}
#: Plausible distances of neighbouring contacts, in um: the densest probes have 6 um (Neuropixels
#: Ultra), ECoG grids 10 mm. Below are positions in mm that are declared as um, above those in nm.
PLAUSIBLE_PITCH_UM = (1.0, 15_000.0)
N_DIMENSIONS = 2
#: So far apart, in um, no neuron is seen by two probes.
APART_UM = 200.0
#: Contacts of two probes are no nearer, in um.
NEAR_UM = 10.0


def place_channels(recording: "BaseRecording", row: Recording, notes: list[str]) -> "BaseRecording":
    """Attach the row's probe, if it has one, and check where channels are; append notes for people.

    Without a probe, the row's channels have been chosen by :func:`select_channels`. Raises
    RecordingUnreadableError if the probe does not fit the recording, or positions cannot be.
    """
    if row.probe:
        recording = select_channels(recording, row, _attach(recording, row, row.probe, notes))
    if recording.has_probe():
        _check_positions(recording, row, notes)
    return recording


def refuse(
    row: Recording, message: str, remedy: str = "", path: str = ""
) -> RecordingUnreadableError:
    """Return the failure of a recording; ``path``: which of its files it is about."""
    where = path or row.probe or row.paths[0]
    return RecordingUnreadableError(message, path=where, reader=row.reader, remedy=remedy)


def _attach(
    recording: "BaseRecording", row: Recording, path: str, notes: list[str]
) -> "BaseRecording":
    """Attach the probe of a file; keep the channels that it wires."""
    group = _read(path, row)
    n_channels = recording.get_num_channels()
    wired = group.get_global_device_channel_indices()["device_channel_indices"]
    wired = wired[wired >= 0]
    named, n_contacts = np.unique(wired, return_counts=True)
    wrong = named[(named >= n_channels) | (n_contacts > 1)].tolist()
    if wrong or not len(wired):
        wires = f"the probe {path} wires channels {shorten(wrong) or '(none)'}"
        msg = f"{wires}; the recording has channels 0 to {n_channels - 1}, for one contact each"
        remedy = f"Mend device_channel_indices in {path} (column probe): is it of this recording?"
        raise refuse(row, msg, remedy)
    ids = recording.channel_ids
    placed = recording.select_channels_with_probegroup(group)
    names = {*placed.channel_ids}
    if left_out := [name for name in ids if name not in names]:
        notes.append(
            f"{len(left_out)} of {len(ids)} channels are not wired by {path}, and are left out: "
            f"{shorten(left_out)}"
        )
    if recording.has_probe():
        notes.append(f"the data have a probe of their own; {path} (column probe) replaces it")
    return placed


def _read(path: str, row: Recording) -> "ProbeGroup":
    """Read a probeinterface file, wired, in um and in two dimensions."""
    from probeinterface import read_probeinterface

    if why := not_readable(path):
        raise refuse(row, f"the probe file {why}", "Mend column probe of the recordings table.")
    try:
        read = read_probeinterface(path)
    except Exception as err:
        msg = f"the probe file {path} cannot be read: {type(err).__name__}: {err}"
        remedy = "Mend it, or give another file of probeinterface (JSON) in column probe."
        raise refuse(row, msg, remedy) from err
    if not read.probes:
        raise refuse(row, f"{path} holds no probe", "Give the probe's file in column probe.")
    first = 0
    for probe in read.probes:
        _wire(probe, row, path, first)
        first += probe.get_contact_count()
    return _in_um(read, row)


def _wire(probe: "Probe", row: Recording, path: str, first: int) -> None:
    """Wire a probe as column wiring says; without it, it must be wired already."""
    from probeinterface import get_available_pathways

    if row.wiring == "identity":
        probe.set_device_channel_indices(first + np.arange(probe.get_contact_count()))
    elif row.wiring is not None:
        try:
            probe.wiring_to_device(row.wiring, channel_offset=first)
        except Exception as err:
            known = ["identity", *get_available_pathways()]
            hint = f": {err}" if row.wiring in known else did_you_mean(row.wiring, known)
            msg = f"the probe {path} cannot be wired as {row.wiring!r}{hint}"
            remedy = "Write identity, or a pathway of probeinterface, in column wiring."
            raise refuse(row, msg, remedy) from err
    if probe.device_channel_indices is None:
        msg = f"the probe {path} does not say which contact is on which channel"
        remedy = (
            f"Set device_channel_indices in {path} (probeinterface: probe.wiring_to_device(...)), "
            "or write `identity` in column wiring if contact n is on channel n."
        )
        raise refuse(row, msg, remedy)


def _in_um(group: "ProbeGroup", row: Recording) -> "ProbeGroup":
    """Return probes with their positions in um, and in two dimensions."""
    from probeinterface import Probe, ProbeGroup

    if all(probe.si_units == "um" and probe.ndim == N_DIMENSIONS for probe in group.probes):
        return group
    converted = ProbeGroup()
    for probe in group.probes:
        if probe.si_units not in UM_IN:
            msg = f"the probe's positions are in {probe.si_units!r}"
            raise refuse(row, msg, "Give them in um (si_units), column probe.")
        factor, plane = UM_IN[probe.si_units], _find_plane(probe, row)
        described = probe.to_dict(array_as_list=False) | {"si_units": "um", "ndim": N_DIMENSIONS}
        described["contact_plane_axes"] = probe.contact_plane_axes[:, :, plane]
        for name in ("contact_positions", "probe_planar_contour"):
            if described.get(name) is not None:
                described[name] = described[name][:, plane] * factor
        described["contact_shape_params"] = [
            {name: size * factor for name, size in shape.items()}
            for shape in described["contact_shape_params"]
        ]
        converted.add_probe(Probe.from_dict(described))
    return converted


def _find_plane(probe: "Probe", row: Recording) -> list[int]:
    """Return the two axes in which a probe lies."""
    axes, extents = list(range(probe.ndim)), np.ptp(probe.contact_positions, axis=0)
    if probe.ndim > N_DIMENSIONS:
        flat = np.flatnonzero(extents == 0)
        if not len(flat):
            msg = "the probe's contacts are in three dimensions, and in no plane of two axes"
            raise refuse(row, msg, "Give positions in the probe's plane (x across, y along it).")
        axes.remove(flat[-1])
    return axes


def select_channels(
    recording: "BaseRecording", row: Recording, placed: "BaseRecording | None" = None
) -> "BaseRecording":
    """Keep the row's ``channels``, and leave its ``bad_channels`` out.

    ``placed``: the recording with the row's probe, of the channels that it wires. Raises
    RecordingUnreadableError if there is no such channel, or none is left.
    """
    whole, recording = recording, placed or recording
    ids = list(recording.channel_ids)
    chosen = _find(recording, row, "channels", whole) if row.channels else ids
    bad = _find(recording, row, "bad_channels", whole) if row.bad_channels else []
    chosen = [name for name in chosen if name in ids and name not in bad]
    if not chosen:
        msg = f"no channel is left of {len(ids)}"
        raise refuse(row, msg, "Mend columns channels and bad_channels of the recordings table.")
    return recording if chosen == ids else recording.select_channels(chosen)


def _find(
    recording: "BaseRecording", row: Recording, column: str, whole: "BaseRecording"
) -> list[Any]:
    """Return the channels that a column names: ids, ranges of ids, ``property=value``.

    Ids are those of the whole recording: the probe may not wire them all.
    """
    ids = list(whole.channel_ids)
    names = [str(name) for name in ids]
    if len({*names}) < len(names):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        msg = f"column {column}: several channels have the id {shorten(twice)}"
        raise refuse(row, msg, "Give each channel an id of its own (channel_ids of the reader).")
    found: set[Any] = set()
    for part in _split(getattr(row, column)):
        chosen = _find_part(recording, ids, part)
        if not chosen:
            remedy = (
                "Write ids, ranges of ids (0-7) or property=value, separated by commas. The "
                f"channels are {shorten(names)}, the last is {names[-1]}; the properties "
                f"{', '.join(recording.get_property_keys()) or 'none'}."
            )
            raise refuse(row, f"column {column}: no channel {part!r}", remedy)
        found.update(chosen)
    return [name for name in ids if name in found]


def _split(text: str | None) -> Iterator[str]:
    """Yield the parts of a column that names channels."""
    return filter(None, map(str.strip, re.split("[,;]", text or "")))


def _find_range(names: Sequence[str], part: str) -> tuple[int, int] | None:
    """Return the places of the first and last of a range of ids, which may hold dashes."""
    for dash in (at.start() for at in re.finditer("-", part) if part not in names):
        first, last = part[:dash], part[dash + 1 :]
        if first in names and last in names:
            return names.index(first), names.index(last)
    return None


def _find_part(recording: "BaseRecording", ids: list[Any], part: str) -> Sequence[Any]:
    """Return the ids of one channel, of a range in their order, or of a property's value."""
    names = [str(name) for name in ids]
    if part in names:
        return [ids[names.index(part)]]
    if (places := _find_range(names, part)) is not None:
        return ids[places[0] : places[1] + 1]
    name, equals, value = part.partition("=")
    values = recording.get_property(name) if equals else None
    named = zip(recording.channel_ids, values if values is not None else (), strict=False)
    return [name for name, each in named if str(each) == value]


def check_ranges(recording: "BaseRecording", row: Recording) -> None:
    """Raise RecordingUnreadableError if a range of ids means others by number than by their order.

    Files need not hold channels in this order: neo sorts Neuralynx's by name (CSC1, CSC10).
    """
    names = [str(name) for name in recording.channel_ids]
    for part in itertools.chain(_split(row.channels), _split(row.bad_channels)):
        first, last = _find_range(names, part) or (0, 0)
        if others := differ_by_number(names, names[first], names[last]):
            chosen = names[first : last + 1]
            msg = (
                f"channels {part} are {len(others)} by number ({shorten(others)}), but "
                f"{len(chosen)} in the order of the file ({shorten(chosen) or 'none'})"
            )
            raise refuse(row, msg, "Write their ids one by one, separated by commas.")


def differ_by_number(names: Sequence[str], first: str, last: str) -> list[str]:
    """Return the channels from the first number to the last; none if they are so in ``names``."""

    def number(name: str) -> int:
        found = re.fullmatch(rf"{re.escape(prefix)}(\d+)", name)
        return int(found[1]) if found else -1

    prefix = re.sub(r"\d+$", "", first)
    low, high = number(first), number(last)
    by_number = [name for name in names if low <= number(name) <= high]
    in_order = names[names.index(first) : names.index(last) + 1]
    is_range = 0 <= low <= high  # else only the order of the file can be meant
    return by_number if is_range and {*by_number} != {*in_order} else []


def _check_positions(recording: "BaseRecording", row: Recording, notes: list[str]) -> None:
    """Check that positions are finite, and a plausible distance apart."""
    from scipy.spatial import cKDTree

    group = recording.get_probegroup()
    if (converted := _in_um(group, row)) is not group:
        units = "/".join(sorted({probe.si_units for probe in group.probes}))
        recording.set_probegroup(converted, check_overlap=False)
        group = recording.get_probegroup()
        what = "three dimensions; its plane is taken" if units == "um" else f"{units}; read as um"
        notes.append(f"the probe of the data is in {what}")
    remedy = f"Mend the probe{f' {row.probe}' if row.probe else ''}: column probe of the table."
    positions = recording.get_channel_locations()
    names = np.asarray(recording.channel_ids).astype(str)
    finite = np.isfinite(positions).all(axis=1)
    if not finite.all():
        msg = f"channels without a position (NaN): {shorten(names[~finite].tolist())}"
        raise refuse(row, msg, remedy)
    if len(positions) == 1:
        return
    _check_probes_apart(group.probes, row, recording.get_channel_groups()[0])
    nearest = cKDTree(positions).query(positions, k=2)[0][:, 1]
    pitch_um, (low, high) = float(np.median(nearest)), PLAUSIBLE_PITCH_UM
    if not low <= pitch_um <= high:
        msg = (
            f"the contacts are {pitch_um:.3g} um from their neighbours, which is implausible "
            f"({low:g} to {high:g} um): are the positions in um?"
        )
        raise refuse(row, msg, f"{remedy} Positions are in um, or si_units says in what.")


def count_largest_group(recording: "BaseRecording") -> int:
    """Count the contacts of the largest group in which each is near another one."""
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    if not recording.has_probe():
        return int(recording.get_num_channels())
    tree = cKDTree(recording.get_channel_locations())
    _, groups = connected_components(tree.sparse_distance_matrix(tree, APART_UM))
    return int(np.bincount(groups).max())


def _check_probes_apart(probes: Sequence["Probe"], row: Recording, of_group: Any) -> None:
    """Check that no contact of one probe lies in, or at, the rectangle of another one's.

    ``of_group``: a value of the property ``group``, as an example.
    """
    for (first, probe), (second, other) in itertools.permutations(enumerate(probes), 2):
        area, places = probe.contact_positions, other.contact_positions
        beyond_um = np.maximum(area.min(axis=0) - places, places - area.max(axis=0))
        if (beyond_um <= NEAR_UM).all(axis=1).any():
            shift_um = area[:, 0].max() - places[:, 0].min() + APART_UM
            remedy = (
                f"Move probe {second} by {shift_um:g} um in x (probeinterface: "
                f"probe.move([{shift_um:g}, 0])) in column probe, or sort one probe a row (column "
                f"channels, such as group={of_group})."
            )
            raise refuse(row, f"probes {first} and {second} overlap", remedy)
