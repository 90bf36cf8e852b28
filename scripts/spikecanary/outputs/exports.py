"""Exports of a sorting: its units with their labels, in the formats of other tools."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spikecanary.config import ExportSettings
from spikecanary.outputs import analysis, curation
from spikecanary.supervise import folders
from spikecanary.table import Recording

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import SortingAnalyzer

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
#: Phy's own groups of clusters.
PHY_GROUPS = ("good", "mua", "noise")


def run(
    export: str,
    settings: ExportSettings,
    *,
    row: Recording | None = None,
    analyzer_path: Path,
    units_path: Path,
    path: Path,
) -> None:
    """Export the units of a sorting.

    Parameters
    ----------
    export : str
        ``phy``, ``nwb``, ``npz``, ``mat`` or ``report``.
    settings : ExportSettings
        Arguments of the formats.
    row : Recording, optional
        The recording; columns of its row name it in NWB, which needs it.
    analyzer_path, units_path : Path
        The analyzer's folder; ``units.tsv``.
    path : Path
        File or folder to write; appears whole or not at all.
    """
    from spikeinterface.core import set_global_job_kwargs

    set_global_job_kwargs(n_jobs=1, progress_bar=False)
    analyzer = analysis.load_analyzer(analyzer_path)
    units = curation.read_units(units_path)
    write: Callable[[Path], None] = {
        "phy": lambda to: write_phy(analyzer, units, settings.phy, to),
        "nwb": lambda to: write_nwb(
            analyzer, units, nwb_metadata(cast("Recording", row), settings.nwb), to
        ),
        "npz": lambda to: write_npz(analyzer, units, to),
        "mat": lambda to: write_mat(analyzer, units, to),
        "report": lambda to: write_report(analyzer, to),
    }[export]
    with appears_whole(path, f"export_{export}") as temporary:
        write(temporary)
    logger.info("%d units exported to %s", len(units), path)


@contextmanager
def appears_whole(path: Path, purpose: str) -> Iterator[Path]:
    """Yield a path beside another, for a file or a folder, that takes its place at the end."""
    temporary = folders.work_path(path.parent, purpose)
    temporary = temporary.with_name(temporary.name + path.suffix)
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if temporary.is_file():
            temporary.unlink()


def _say_empty(folder: Path, tool: str) -> None:
    folder.mkdir()
    (folder / "README.txt").write_text(
        f"The sorting has no units, so {tool} has nothing to show.\n"
    )


def write_phy(
    analyzer: "SortingAnalyzer", units: "pd.DataFrame", params: Mapping[str, Any], folder: Path
) -> None:
    """Write a folder for ``phy template-gui params.py``, with labels as Phy's groups."""
    import pandas as pd
    from spikeinterface.exporters import export_to_phy

    if not analyzer.get_num_units():
        _say_empty(folder, "Phy")
        return
    copied = params.get("copy_binary", False)
    export_to_phy(analyzer, folder, **{"verbose": False, "use_relative_path": copied, **params})
    labels = units.loc[[str(unit) for unit in analyzer.unit_ids], "label"]
    groups = labels.where(labels.isin(PHY_GROUPS), "unsorted")
    for name, values in {"group": groups, "label": labels}.items():
        table = pd.DataFrame({"cluster_id": range(len(values)), name: list(values)})
        table.to_csv(folder / f"cluster_{name}.tsv", sep="\t", index=False)


def nwb_metadata(row: Recording, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return NWB's metadata of a recording: the config's, and over them its columns'.

    ``session_start_time`` is needed; without one it is the time of the recording's file.
    """
    file: dict[str, Any] = {
        "identifier": row.id,
        "session_id": row.id,
        "session_description": f"Recording {row.id}, sorted by Spike Canary",
        **given.get("NWBFile", {}),
    }
    subject = dict(given.get("Subject", {}))
    for name, value in row.metadata.items():
        if value and name in NWBFILE_COLUMNS:
            file[name] = value
        if value and name in SUBJECT_COLUMNS:
            subject[name] = value
    if "session_start_time" not in file:
        logger.info("no session_start_time (config or table): the file's own time is taken")
        file["session_start_time"] = datetime.fromtimestamp(Path(row.paths[0]).stat().st_mtime, UTC)
    if isinstance(file["session_start_time"], str):
        started = datetime.fromisoformat(file["session_start_time"])
        file["session_start_time"] = started if started.tzinfo else started.astimezone()
    if isinstance(file.get("experimenter"), str):
        file["experimenter"] = [file["experimenter"]]
    return {"NWBFile": file, **({"Subject": {"sex": "U", **subject}} if subject else {})}


def write_nwb(
    analyzer: "SortingAnalyzer", units: "pd.DataFrame", metadata: Mapping[str, Any], path: Path
) -> None:
    """Write an NWB file: units with label, reasons and metrics, electrodes, metadata."""
    from neuroconv.tools.nwb_helpers import (
        configure_and_write_nwbfile,
        get_default_nwbfile_metadata,
        make_nwbfile_from_metadata,
    )
    from neuroconv.tools.spikeinterface import (
        add_recording_metadata_to_nwbfile,
        add_sorting_analyzer_to_nwbfile,
    )
    from neuroconv.utils import dict_deep_update

    whole = dict_deep_update(get_default_nwbfile_metadata(), dict(metadata))
    nwbfile = make_nwbfile_from_metadata(whole)
    if analyzer.get_num_units():
        rows = units.loc[[str(unit) for unit in analyzer.unit_ids]]
        for name in ("label", "reasons"):
            analyzer.sorting.set_property(
                name, rows[name].astype(object).fillna("").to_numpy(dtype=str)
            )
        add_sorting_analyzer_to_nwbfile(
            analyzer,
            nwbfile=nwbfile,
            units_description="Sorted and labelled by Spike Canary",
            property_descriptions={
                "label": "Label of the unit by the curation's settings",
                "reasons": "Thresholds that the unit misses",
            },
        )
        nwbfile.units.resolution = 1.0 / analyzer.sampling_frequency
    else:
        add_recording_metadata_to_nwbfile(analyzer.recording, nwbfile)
    for name, values in zip(("rel_x", "rel_y"), analyzer.get_channel_locations().T, strict=False):
        if name not in nwbfile.electrodes.colnames:
            nwbfile.add_electrode_column(name, f"{name[-1]} on the probe in um", data=list(values))
    configure_and_write_nwbfile(nwbfile, path, backend="hdf5")


def spikes(analyzer: "SortingAnalyzer", units: "pd.DataFrame") -> dict[str, Any]:
    """Return all spikes in the order of time, as plain arrays.

    Returns
    -------
    dict
        ``spike_times_s`` (float64, n_spikes), ``spike_samples`` (int64, n_spikes),
        ``spike_units`` (int64, n_spikes; index into the units), ``unit_ids``, ``unit_labels``
        (text, n_units), ``sampling_frequency_hz``.
    """
    import numpy as np

    vector = analyzer.sorting.to_spike_vector()
    ids = [str(unit) for unit in analyzer.unit_ids]
    rate_hz = float(analyzer.sampling_frequency)
    return {
        "spike_times_s": vector["sample_index"] / rate_hz,
        "spike_samples": vector["sample_index"].astype("int64"),
        "spike_units": vector["unit_index"].astype("int64"),
        "unit_ids": np.array(ids, dtype=str),
        "unit_labels": units.loc[ids, "label"].to_numpy(dtype=str),
        "sampling_frequency_hz": rate_hz,
    }


def write_npz(analyzer: "SortingAnalyzer", units: "pd.DataFrame", path: Path) -> None:
    """Write :func:`spikes` for NumPy."""
    import numpy as np

    np.savez_compressed(path, **spikes(analyzer, units))


def write_mat(analyzer: "SortingAnalyzer", units: "pd.DataFrame", path: Path) -> None:
    """Write :func:`spikes` for MATLAB: columns, texts as cells, units counted from 1."""
    from scipy.io import savemat

    found = spikes(analyzer, units)
    found["spike_units"] = found["spike_units"] + 1
    for name in ("unit_ids", "unit_labels"):
        found[name] = found[name].astype(object)
    savemat(path, found, do_compression=True, oned_as="column")


def write_report(analyzer: "SortingAnalyzer", folder: Path) -> None:
    """Write SpikeInterface's report: a folder of figures and tables."""
    import matplotlib as mpl
    from spikeinterface.exporters import export_report

    if not analyzer.get_num_units():
        _say_empty(folder, "SpikeInterface's report")
        return
    mpl.use("Agg")
    export_report(analyzer, folder)
