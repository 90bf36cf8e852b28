"""NWB of one or several sortings: units with all columns, probes, parts, metadata."""

import contextlib
import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary import sentinel
from spikecanary.config import NwbSettings
from spikecanary.outputs import analysis, curation
from spikecanary.recording import clock
from spikecanary.sentinel import Part, Record
from spikecanary.table import Recording

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spikeinterface.core import BaseRecording, BaseSorting, SortingAnalyzer

logger = logging.getLogger(__name__)

#: Fields of NWB that columns of the recordings table may fill.
NWBFILE_COLUMNS = (
    "session_start_time",
    "session_description",
    "session_id",
    "experimenter",
    "experiment_description",
    "institution",
    "lab",
)
SUBJECT_COLUMNS = ("subject_id", "species", "sex", "age", "date_of_birth", "genotype", "strain")
#: Columns that discover writes, and the fields that they fill where no column has the field's name.
TOLD = {"subject": "subject_id", "session": "session_id"}
#: What our columns of the units are; SpikeInterface describes its metrics.
COLUMNS = {
    "label": "Label of the unit: by hand where there is one, else by the curation's settings",
    "reasons": "Thresholds that the unit misses, with its values",
    "bombcell_label": "Label by Bombcell",
    "phy_label": "Label by hand in Phy",
    "gui_label": "Label by hand in SpikeInterface's GUI",
    "unitrefine_label": "Label by UnitRefine",
    "unitrefine_probability": "Probability of the label by UnitRefine",
    "peak_channel": "Channel where the unit's template is largest",
    "x_um": "Location of the unit across the probe in um",
    "depth_um": "Location of the unit along the probe (y) in um",
    "isi_violations_share": "Share of the intervals that are shorter than the refractory period",
    "KSLabel": "Label by Kilosort",
    "ContamPct": "Contamination in % by Kilosort",
}
#: NWB's own columns, whose place a property of the sorter would take.
OWN_COLUMNS = ("electrode_group", "id", "unit_name")
#: How the columns of spikes in each part begin.
PART = "num_spikes_part_"
#: Fields of the parts that epochs have.
EPOCH_COLUMNS = {
    "file": "File of the part; of several probes at once, of each",
    "segment": "Segment of the file",
    "start_sample": "First sample of the part, counted in all that was sorted",
    "first_sample": "First sample of the part, counted in its segment",
    "n_samples": "Samples of the part",
}


@dataclass(frozen=True)
class Sorted:
    """A sorted recording, as far as NWB holds it."""

    row: Recording
    record: Record
    parts: list[Part]
    analyzer: "SortingAnalyzer"
    curated: "BaseSorting"

    @property
    def began_s(self) -> float | None:
        """When it began by its header, else by its column, in s since 1970."""
        began = self.parts[0].began or self.row.metadata.get("session_start_time")
        return datetime.fromisoformat(began).timestamp() if began else None


def read_sorted(row: Recording, folder: Path) -> Sorted:
    """Read what was made of a recording in its results folder."""
    from spikeinterface.core import load, load_sorting_analyzer

    record, curated = sentinel.read_record(folder / "sort.json"), load(folder / "curated")
    parts = analysis.read_parts(record, curated.sampling_frequency)
    analyzer = load_sorting_analyzer(folder / "analyzer", read_only=True)
    return Sorted(row, record, parts, analyzer, curated)


def nwb_metadata(one: Sorted, settings: NwbSettings, session: str | None = None) -> dict[str, Any]:
    """Return NWB's metadata of a recording: the config's, and over them its columns'.

    ``session_start_time`` is needed. Where nobody tells it, it is a guess, and a warning says so.
    Of a ``session`` its first recording is described.
    """
    row, name, began = one.row, session or one.row.id, one.parts[0].began
    file: dict[str, Any] = {
        "identifier": name,
        "session_id": name,
        "session_description": (
            f"{'Session' if session else 'Recording'} {name}, sorted by Spike Canary"
        ),
        **settings.NWBFile,
    }
    renamed = {TOLD[name]: value for name, value in row.filled.items() if name in TOLD}
    columns = renamed | row.filled
    file |= {name: columns[name] for name in NWBFILE_COLUMNS if name in columns}
    subject = read_subject(Path(row.paths[0])) if row.reader == "nwb" else {}
    for name in [name for name, value in subject.items() if not _is_of_subject(name, value)]:
        logger.warning("%s: %s %r of the file is not NWB's", row.id, name, subject.pop(name))
    subject |= settings.Subject | {
        name: columns[name] for name in SUBJECT_COLUMNS if name in columns
    }
    for line in near_misses(row.metadata):
        logger.warning("%s: %s", row.id, line)
    if began:
        file.setdefault("session_start_time", began)
    if "session_start_time" not in file:
        path = Path(row.paths[0])
        made = path.stat().st_mtime if path.exists() else None
        began = datetime.fromtimestamp(made, UTC).isoformat() if made else one.record.started_at
        file["session_start_time"] = began
        of = "file" if made else "sort"
        guess = f"session_start_time is not known; the time of the {of} is taken as a guess"
        file.setdefault("notes", guess)
        text = "%s: %s. Add column session_start_time (ISO 8601) to the table"
        logger.warning(text, row.id, guess)
    return complete(file, subject)


def complete(file: Mapping[str, Any], subject: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of NWBFile and Subject as neuroconv takes them, with what it wants of both."""
    started = datetime.fromisoformat(str(file["session_start_time"]))
    made = {**file, "session_start_time": started if started.tzinfo else started.astimezone()}
    if isinstance(file.get("experimenter"), str):
        made["experimenter"] = [file["experimenter"]]
    return {"NWBFile": made, **({"Subject": {"sex": "U", **subject}} if subject else {})}


def read_subject(path: Path) -> dict[str, str]:
    """Return what an NWB file says of its subject; empty where the file is away."""
    import h5py

    with contextlib.suppress(OSError), h5py.File(path) as file:
        fields = file.get("general/subject", {})
        return {
            name: fields[name].asstr()[()]
            for name in SUBJECT_COLUMNS
            if isinstance(fields.get(name), h5py.Dataset)
        }
    return {}


def _is_of_subject(name: str, value: str) -> bool:
    """Whether a field of a subject has a value that neuroconv takes."""
    from neuroconv.tools.nwb_helpers import make_nwbfile_from_metadata

    file = {"session_start_time": "2000-01-01", "session_description": "x", "identifier": "x"}
    try:
        make_nwbfile_from_metadata(complete(file, {name: value}))
    except Exception:  # noqa: BLE001 - of jsonschema, hdmf, datetime
        return False
    return True


def near_misses(columns: Iterable[str]) -> Iterator[str]:
    """Name columns of the table that look like NWB's and are not."""
    wanted = {name.replace("_", ""): name for name in (*NWBFILE_COLUMNS, *SUBJECT_COLUMNS)}
    for column in columns:
        if column not in wanted.values() and column not in TOLD:
            plain = re.sub(r"[^a-z]", "", column.lower())
            if found := get_close_matches(plain, wanted, n=1, cutoff=0.8):
                yield f"column {column!r} is not in NWB: did you mean {wanted[found[0]]!r}?"


def write_nwb(
    several: Sequence[Sorted], metadata: Mapping[str, Any], path: Path, *, of_session: bool = False
) -> None:
    """Write an NWB file: units with all their columns, probes, electrodes, parts, metadata.

    Spike times, and the epochs of several parts, are on the recording's own clock. Units of a
    session are named after their recordings, and have waveforms where all have one rate and equally
    many channels.
    """
    from neuroconv.tools.nwb_helpers import configure_and_write_nwbfile, make_nwbfile_from_metadata
    from neuroconv.tools.spikeinterface import add_sorting_to_nwbfile

    nwbfile = make_nwbfile_from_metadata(dict(metadata))
    for name, description in EPOCH_COLUMNS.items():
        nwbfile.add_epoch_column(name, description)
    shapes = {(one.analyzer.get_num_channels(), one.analyzer.sampling_frequency) for one in several}
    channels = [stand_in(one.analyzer) for one in several]
    curation.make_columns_fit(channels)
    for one, name in itertools.product(several, OWN_COLUMNS):
        if name in one.curated.get_property_keys():
            one.curated.set_property(f"sorter_{name}", one.curated.get_property(name))
            one.curated.delete_property(name)
    curation.make_columns_fit([one.curated for one in several if len(one.curated.unit_ids)])
    for one, recording in zip(several, channels, strict=True):
        ids, n_before = one.curated.unit_ids, len(nwbfile.electrodes or ())
        add_electrodes(one.analyzer, recording, nwbfile)
        if not len(ids):
            continue
        _put_on_clock(one.curated, one.parts)
        if of_session:
            names = [f"{one.row.id}/{unit}" for unit in ids]
            one.curated.set_property("unit_name", np.array(names))
        add_sorting_to_nwbfile(
            one.curated,
            nwbfile,
            property_descriptions=describe_columns(one.analyzer, one.curated),
            units_description="Sorted and labelled by Spike Canary",
            waveform_data_dict=_waveforms(one.analyzer, one.curated) if len(shapes) == 1 else None,
            unit_electrode_indices=[[*range(n_before, len(nwbfile.electrodes))]] * len(ids),
        )
        numbers = [int(each) if str(each).isdecimal() else None for each in ids]
        if not of_session and [*map(str, numbers)] == [*map(str, ids)]:
            nwbfile.units.id.data[:] = numbers
    for epoch in join_simultaneous(list_epochs(several)):
        nwbfile.add_epoch(**epoch)
    configure_and_write_nwbfile(nwbfile, path, backend="hdf5")


def _put_on_clock(sorting: "BaseSorting", parts: Sequence[Part]) -> None:
    """Make a sorting give its spike times on the recording's own clock."""
    rate_hz, segment = sorting.sampling_frequency, sorting.segments[0]

    def seconds_on_clock(unit_id: Any, **_: Any) -> "NDArray[Any]":
        return clock.times_s(segment.get_unit_spike_train(unit_id, None, None), parts, rate_hz)

    segment.get_unit_spike_train_in_seconds = seconds_on_clock  # SpikeInterface asks for it


def _waveforms(analyzer: "SortingAnalyzer", curated: "BaseSorting") -> dict[str, Any] | None:
    """Return the units' templates in volts; None where there are none."""
    templates = analyzer.get_extension("templates")
    if templates is None or not set(curated.unit_ids) <= set(analyzer.unit_ids):
        return None
    means, sds = (templates.get_templates(curated.unit_ids, name) for name in ("average", "std"))
    return {
        "means": means * 1e-6,
        "sds": sds * 1e-6,
        "sampling_rate": analyzer.sampling_frequency,
    }


def stand_in(analyzer: "SortingAnalyzer") -> "BaseRecording":
    """Return a recording of the analyzer's channels: the raw file may be archived by now."""
    from spikeinterface.core import NumpyRecording

    ids = analyzer.channel_ids
    silent = np.zeros((1, len(ids)), "int16")
    recording = NumpyRecording(silent, analyzer.sampling_frequency, channel_ids=ids)
    for name in analyzer.get_recording_property_keys():
        recording.set_property(name, analyzer.get_recording_property(name))
    return recording


def add_electrodes(analyzer: "SortingAnalyzer", recording: "BaseRecording", nwbfile: Any) -> None:
    """Add all probes, their groups of electrodes (a group is a probe, or a shank), and electrodes.

    Where these are on the probe is in ``rel_x`` and ``rel_y``, in um.
    """
    from neuroconv.tools.spikeinterface import add_recording_metadata_to_nwbfile

    groups = np.zeros(len(analyzer.channel_ids), dtype="U200")
    for probe in analyzer.get_probegroup().probes:
        name = re.sub("[/:]", "_", str(probe.name or probe.model_name or "probe"))
        name = f"{name} {len(nwbfile.devices) + 1}" if name in nwbfile.devices else name
        made = " ".join(filter(None, (probe.manufacturer, probe.model_name)))
        device = nwbfile.create_device(name=name, description=made or "A probe")
        shanks = np.zeros(probe.get_contact_count()) if probe.shank_ids is None else probe.shank_ids
        for shank in np.unique(shanks):
            group = f"{name} shank {shank}" if len(np.unique(shanks)) > 1 else name
            groups[probe.device_channel_indices[shanks == shank]] = group
            about = {"description": f"Contacts of {group}", "location": "unknown"}
            nwbfile.create_electrode_group(name=group, device=device, **about)
    recording.set_property("group_name", groups)
    recording.set_property("group", np.unique(groups, return_inverse=True)[1])
    columns = [{"name": f"rel_{x}", "description": f"{x} on the probe in um"} for x in "xy"]
    for column, values in zip(columns, analyzer.get_channel_locations().T, strict=False):
        recording.set_property(column["name"], values)
    ecephys = {"ElectrodeGroups": {}, "Electrodes": columns}
    add_recording_metadata_to_nwbfile(recording, nwbfile, {"Ecephys": ecephys})


def describe_columns(analyzer: "SortingAnalyzer", curated: "BaseSorting") -> dict[str, str]:
    """Say what each column of the units is: the curation's, a metric, or the sorter's own."""
    found = dict.fromkeys(curated.get_property_keys(), "A column of the sorter")
    for name in ("quality_metrics", "template_metrics"):
        if analyzer.has_extension(name):
            found |= analyzer.get_extension(name).get_metric_column_descriptions()
    parts = {name: "Spikes in a part (see epochs)" for name in found if name.startswith(PART)}
    tools = ("gui", "phy")
    by_hand = {n: COLUMNS[f"{x}_label"] for n in found for x in tools if n.startswith(f"{x}_")}
    return found | by_hand | COLUMNS | parts


def list_epochs(several: Sequence[Sorted]) -> Iterator[dict[str, Any]]:
    """Yield the parts of recordings as epochs."""
    for one in several:
        rate_hz = one.curated.sampling_frequency
        for part in one.parts:
            ends = np.array([0, part.n_samples - 1]) + part.start_sample
            start_s, stop_s = clock.times_s(ends, one.parts, rate_hz)
            values = {name: getattr(part, name) for name in EPOCH_COLUMNS}
            yield {"start_time": start_s, "stop_time": stop_s + 1 / rate_hz, **values}


def join_simultaneous(epochs: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Make one epoch of the parts that several probes recorded at once, in the order of time."""
    joined: dict[tuple[int, int], dict[str, Any]] = {}
    for epoch in sorted(epochs, key=itemgetter("start_time")):
        key = round(epoch["start_time"] * 1000), epoch["start_sample"]
        if (held := joined.setdefault(key, epoch)) is not epoch:
            held["file"] += f"; {epoch['file']}"
            # Rates of probes differ a little.
            held |= {name: max(held[name], epoch[name]) for name in ("stop_time", "n_samples")}
    return joined.values()
