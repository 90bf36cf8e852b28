"""Exports of a sorting: its units with their labels, in the formats of other tools."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import numpy as np

from spikecanary import sentinel
from spikecanary.config import AnalysisSettings, ExportSettings, NwbSettings, Output
from spikecanary.failures import ClassifiedSortFailure
from spikecanary.outputs import (
    FILES,
    OutputError,
    analysis,
    appears_whole,
    curation,
    nwb,
    phy,
)
from spikecanary.recording import clock
from spikecanary.sentinel import Part
from spikecanary.sorter import SortTask
from spikecanary.table import Recording

if TYPE_CHECKING:
    from spikeinterface.core import BaseSorting, SortingAnalyzer

logger = logging.getLogger(__name__)


def run(
    export: Output,
    settings: ExportSettings,
    folder: Path,
    *,
    row: Recording | None = None,
    manual: str | None = None,
    task: SortTask | None = None,
    analyzed_with: AnalysisSettings | None = None,
) -> None:
    """Export the units of a recording; the file or folder appears whole or not at all.

    NWB needs the ``row``. Where ``manual`` is ``phy``, a Phy folder that was edited stays. Phy's
    traces come from ``task`` and ``analyzed_with``, where the analyzer has lost its recording.

    Raises
    ------
    OutputError
        The folder was edited by hand; the recording is needed and away.
    """
    from spikeinterface.core import load, load_sorting_analyzer, set_global_job_kwargs

    set_global_job_kwargs(n_jobs=1, progress_bar=False)
    path = folder / FILES[export]
    units = curation.read_units(folder / FILES["units"])
    analyzer: Any = None
    if export in ("phy", "report"):  # others need no raw file, which it opens
        analyzer = load_sorting_analyzer(folder / "analyzer", read_only=True)
    if export == "phy":
        if not phy.may_replace(path.parent, manual):
            phy.check_current(path.parent, analyzer.sorting)
            path.touch()
            return
        path = path.parent
        if len(units) and not analyzer.has_recording() and task is not None:
            try:
                traces = analysis.open_filtered(task, analyzed_with or AnalysisSettings())
            except ClassifiedSortFailure as err:
                msg = f"Phy needs the raw file, bring it back or leave phy out: {err}"
                raise OutputError(msg) from err
            analyzer.set_temporary_recording(traces)
    with appears_whole(path, f"export_{export}") as made:
        if export == "phy":
            phy.write(analyzer, units, settings.phy, made)
            phy.may_replace(path, None)  # somebody may have saved there since
        elif export == "report":
            write_report(analyzer, made)
        elif export == "nwb":
            one = nwb.read_sorted(cast("Recording", row), folder)
            nwb.write_nwb([one], nwb.nwb_metadata(one, settings.nwb), made)
        else:
            curated, record = load(folder / "curated"), sentinel.read_record(folder / "sort.json")
            parts = analysis.read_parts(record, curated.sampling_frequency)
            write_arrays(spikes(curated, parts), made)
    logger.info("%d units exported to %s", len(units), path)


def run_session(
    session: str,
    rows: Sequence[Recording],
    settings: NwbSettings,
    *,
    folders: Mapping[str, Path],
    path: Path,
) -> None:
    """Write a session's recordings that are sorted, at least one, into one NWB file.

    Their results folders are by recording. The file appears whole or not at all.
    """
    made = [nwb.read_sorted(row, folders[row.id]) for row in rows if row.id in folders]
    if not made:
        named = ", ".join(row.id for row in rows)
        msg = f"session {session}: none of its recordings is sorted: {named}"
        raise OutputError(msg)
    first = min(made, key=lambda one: one.began_s or math.inf)
    run = first  # those that began before it ended share its clock
    for one in sorted(made, key=lambda one: one.began_s or 0.0):
        if (one.began_s or 0.0) >= (run.began_s or math.inf) + (run.record.duration_s or math.inf):
            run = one
        # Dates are coarser than clocks: they count where clocks that begin anew hide a later run.
        later_s = (run.began_s or 0.0) - (first.began_s or 0.0)
        lag_s = later_s - (run.parts[0].t_start_s - first.parts[0].t_start_s)
        if one.began_s and min(later_s, lag_s) >= (first.record.duration_s or math.inf):
            more_s = lag_s - one.parts[0].lag_s
            one.parts[:] = [
                part.model_copy(update={"lag_s": part.lag_s + more_s}) for part in one.parts
            ]
    metadata = nwb.nwb_metadata(first, settings, session)
    if left_out := [row.id for row in rows if row.id not in folders]:
        note = f"without {', '.join(left_out)}, which are not sorted"
        logger.warning("%s: %s", session, note)
        metadata["NWBFile"]["session_description"] += f"; {note}"
    with appears_whole(path, "export_session") as temporary:
        nwb.write_nwb(made, metadata, temporary, of_session=True)


def spikes(curated: "BaseSorting", parts: Sequence[Part]) -> dict[str, Any]:
    """Return all spikes in the order of time, as plain arrays.

    Returns
    -------
    dict
        ``spike_times_s`` (float64, n_spikes), ``spike_samples`` (int64, n_spikes): both count from
        the first sample that was sorted. ``spike_units`` (int64, n_spikes; index into the units),
        ``unit_ids``, ``unit_labels`` (text, n_units), ``sampling_frequency_hz``. ``t_start_s``:
        when that first sample was, on the recording's own clock. Of each part ``part_files``
        (text), ``part_segments``, ``part_start_samples`` (in ``spike_samples``),
        ``part_first_samples`` (in its file), ``part_n_samples``, ``part_t_start_s`` (on the
        clock, as in NWB).
    """
    vector = curated.to_spike_vector()
    rate_hz = float(curated.sampling_frequency)
    starts = np.array([part.start_sample for part in parts])
    starts_s = clock.times_s(starts, parts, rate_hz)
    labels = curated.get_property("label")
    return {
        "spike_times_s": vector["sample_index"] / rate_hz,
        "spike_samples": vector["sample_index"].astype("int64"),
        "spike_units": vector["unit_index"].astype("int64"),
        "unit_ids": np.array([str(unit) for unit in curated.unit_ids], dtype=str),
        "unit_labels": np.array([] if labels is None else labels, dtype=str),
        "sampling_frequency_hz": rate_hz,
        "t_start_s": starts_s[0],
        "part_files": np.array([part.file for part in parts], dtype=str),
        "part_segments": np.array([part.segment for part in parts]),
        "part_start_samples": starts,
        "part_first_samples": np.array([part.first_sample for part in parts]),
        "part_n_samples": np.array([part.n_samples for part in parts]),
        "part_t_start_s": starts_s,
    }


def write_arrays(found: Mapping[str, Any], path: Path) -> None:
    """Write :func:`spikes` for NumPy, or for MATLAB (.mat).

    There arrays are columns, texts are cells, and units are counted from 1.
    """
    from scipy.io import savemat

    if path.suffix != ".mat":
        np.savez_compressed(path, **found)
        return
    texts = {name: found[name].astype(object) for name in ("unit_ids", "unit_labels", "part_files")}
    units = {"spike_units": found["spike_units"] + 1}
    savemat(path, {**found, **texts, **units}, do_compression=True, oned_as="column")


def write_report(analyzer: "SortingAnalyzer", folder: Path) -> None:
    """Write SpikeInterface's report: a folder of figures and tables."""
    import matplotlib as mpl
    from spikeinterface.core import ChannelSparsity
    from spikeinterface.exporters import export_report

    if not analyzer.get_num_units():
        phy.say_empty(folder, "SpikeInterface's report")
        return
    mpl.use("Agg")
    # Its figures are named after the units, whatever these are called.
    ids = [quote(str(unit), safe="") for unit in analyzer.unit_ids]
    analyzer.sorting = analyzer.sorting.rename_units(ids)
    analyzer.sparsity = ChannelSparsity(
        analyzer.sparsity.mask, analyzer.unit_ids, analyzer.channel_ids
    )
    export_report(analyzer, folder)
