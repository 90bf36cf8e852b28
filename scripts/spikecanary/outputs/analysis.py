"""The analysis of a sorting: a SortingAnalyzer with its extensions, and the units' metrics."""

import contextlib
import io
import json
import logging
import math
import traceback
import warnings
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary import sentinel
from spikecanary.config import AnalysisSettings, as_set
from spikecanary.failures import ClassifiedSortFailure
from spikecanary.outputs import NOTED, appears_whole, phy, switched_on
from spikecanary.recording import clock, open_recording, preprocess
from spikecanary.sorter import SortTask, prepare
from spikecanary.table import Recording
from spikecanary.table.tsv import as_cell

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from spikeinterface.core import BaseRecording, BaseSorting, SortingAnalyzer

logger = logging.getLogger(__name__)

#: Extensions that describe spikes: SpikeInterface cannot make them of none.
OF_SPIKES = ("spike_amplitudes", "amplitude_scalings", "spike_locations", "principal_components")
#: Distance of the channels of a recording without a probe in um: none shares a unit.
NO_PROBE_PITCH_UM = 1_000.0
#: How far waveforms reach around a spike, by SpikeInterface.
AROUND_MS = {"ms_before": 1.0, "ms_after": 2.0}
#: The rate of a made recording in Hz: few are higher, so no filter of a healthy one is refused.
MADE_HZ = 50_000.0
#: Steps that take a made recording as well as a real one.
TRIED_STEPS = {
    *("highpass_filter", "bandpass_filter", "notch_filter", "gaussian_filter", "common_reference"),
    *("resample", "decimate", "astype", "scale", "clip", "center", "zscore", "whiten"),
}
#: Extensions that take seconds to compile, and that no other needs: tried where they are set.
SLOW = ("correlograms", "template_metrics", "quality_metrics")


def run(
    task: SortTask, settings: AnalysisSettings, folder: Path, by_hand: Container[str] = ()
) -> None:
    """Analyze a recording's sorting; write ``analyzer`` and ``metrics.tsv`` into its folder.

    Both appear whole or not at all. No units and one unit are ordinary. ``by_hand`` is work by hand
    to follow: ``phy``, the units of the Phy folder, or ``gui``, the curations that SpikeInterface's
    GUI saved for former analyses.

    Raises
    ------
    OutputError
        A curation of the former analysis, made by hand, would be lost, or is of another sort.
    ClassifiedSortFailure
        The recording cannot be opened any more.
    """
    from spikeinterface.core import load, set_global_job_kwargs
    from spikeinterface.curation import remove_excess_spikes

    if "gui" not in by_hand:
        phy.check_sheltered(folder, "phy" if "phy" in by_hand else None)
    sorting = load(folder / "sorting")
    if "phy" in by_hand:
        phy.check_of_sort(folder / "phy", sorting)
    set_global_job_kwargs(n_jobs=task.n_readers, progress_bar=False)
    recording = open_filtered(task, settings)
    record = sentinel.read_record(folder / "sort.json")
    note_noise(recording, record.bad_periods, settings)
    if "phy" in by_hand:
        sorting = phy.read_sorting(folder / "phy", recording.sampling_frequency)
    else:
        sorting = without_duplicates(sorting, settings)
    parts = read_parts(record, recording.sampling_frequency)
    sorting = without_joins(sorting, parts, settings)
    # An analyzer has none of those beyond the end, and curations are compared with its spikes.
    sorting = remove_excess_spikes(sorting, recording)
    if "gui" in by_hand:
        sorting = phy.apply_gui(folder, sorting)
    # Beside its place: the analyzer names its recording relative to itself.
    with appears_whole(folder / "analyzer", "analyze") as made:
        analyzer = make_analyzer(sorting, recording, settings, made)
        table = describe_units(analyzer)
        sentinel.write_atomic(folder / "metrics.tsv", write_units(table))
        phy.keep_outside(made, folder)
        (made / NOTED).write_text(json.dumps(as_set(settings)))
    logger.info("%s: %d units analyzed", task.row.id, len(table))


def write_units(table: "pd.DataFrame") -> str:
    """Return the text of a table of units, whose texts are no formulas in a spreadsheet."""
    shown = table.map(as_cell).rename(index=as_cell)
    return str(shown.to_csv(sep="\t", lineterminator="\n"))


def open_filtered(task: SortTask, settings: AnalysisSettings) -> "BaseRecording":
    """Open the recording with the sort's preprocessing and the analysis' own, lazily.

    Without a probe, channels are taken to be far from each other; without a gain, a count to be
    a microvolt: SpikeInterface's metrics of templates want both.
    """
    recording = prepare(open_recording(task.row), task)
    if not recording.has_scaleable_traces():
        logger.info("no gain to uV: amplitudes are counts")
        recording = recording.clone()
        recording.set_channel_gains(1.0)
        recording.set_channel_offsets(0.0)
    if not recording.has_probe():
        logger.info("no probe: locations and depths of units mean nothing")
        recording = recording.clone()
        recording.set_dummy_probe_from_locations(
            [(0.0, NO_PROBE_PITCH_UM * number) for number in range(recording.get_num_channels())]
        )
    return preprocess(recording, switched_on(settings.preprocessing))


def without_duplicates(sorting: "BaseSorting", settings: AnalysisSettings) -> "BaseSorting":
    """Remove spikes of a unit that were found twice, and units that were found twice."""
    from spikeinterface.curation import remove_duplicated_spikes, remove_redundant_units

    if not sorting.count_total_num_spikes():
        return sorting
    found, n_spikes = list(sorting.unit_ids), sorting.count_total_num_spikes()
    if settings.duplicated_spikes_ms is not None:
        sorting = remove_duplicated_spikes(
            sorting, censored_period_ms=settings.duplicated_spikes_ms, method="keep_first_iterative"
        )
        n_twice = n_spikes - sorting.count_total_num_spikes()
        logger.info("%d of %d spikes were found twice", n_twice, n_spikes)
    if settings.redundant_units is not None and len(found) > 1:
        sorting = remove_redundant_units(
            sorting,
            align=False,
            duplicate_threshold=settings.redundant_units,
            remove_strategy="max_spikes",
        )
        twice = set(found) - set(sorting.unit_ids)
        logger.info("%d of %d units were found twice: %s", len(twice), len(found), sorted(twice))
    return sorting


def without_joins(
    sorting: "BaseSorting", parts: Sequence[sentinel.Part], settings: AnalysisSettings
) -> "BaseSorting":
    """Leave out spikes whose waveform would span a join of two parts: no neuron made it."""
    from spikeinterface.core import NumpySorting

    around_ms = AROUND_MS | (settings.extensions.get("waveforms") or {})
    before, after = (
        math.ceil(around_ms[name] * sorting.sampling_frequency / 1000) for name in AROUND_MS
    )
    vector = sorting.to_spike_vector()
    first, last = vector["sample_index"] - before, vector["sample_index"] + after - 1
    spans = clock.part_of(first, parts) != clock.part_of(last, parts)
    if not spans.any():
        return sorting
    logger.info("%d spikes at joins of parts are left out", spans.sum())
    remaining = NumpySorting(vector[~spans], sorting.sampling_frequency, sorting.unit_ids)
    sorting.copy_metadata(remaining)
    return remaining


def make_analyzer(
    sorting: "BaseSorting",
    recording: "BaseRecording",
    settings: AnalysisSettings,
    folder: Path | None,
) -> "SortingAnalyzer":
    """Make a SortingAnalyzer in a folder (None: in memory), sparse, in uV, with its extensions."""
    from spikeinterface.core import create_sorting_analyzer

    analyzer = create_sorting_analyzer(
        sorting.remove_empty_units(),
        recording,
        format="binary_folder" if folder else "memory",
        folder=folder,
        overwrite=True,
        sparse=True,
        sparsity_kwargs=settings.sparsity,
        return_in_uV=True,
        seed=0,
    )
    extensions = switched_on(settings.extensions)
    if not analyzer.get_num_units():
        extensions = {name: each for name, each in extensions.items() if name not in OF_SPIKES}
    logger.info("computing %s", ", ".join(extensions))
    analyzer.compute(extensions)
    return analyzer


def describe_units(analyzer: "SortingAnalyzer") -> "pd.DataFrame":
    """Return where the units are, and their metrics.

    Returns
    -------
    pandas.DataFrame
        A row a unit: ``peak_channel``, ``x_um`` and ``depth_um`` (y) of its location,
        SpikeInterface's metrics, and ``isi_violations_share``: spikes that follow another one
        within the refractory period (1.5 ms by default) over all
        intervals. SpikeInterface's ``isi_violations_ratio`` (Hill et al. 2011) is an estimate
        of contamination instead.
    """
    table: pd.DataFrame = analyzer.get_metrics_extension_data()
    if {"isi_violations_count", "num_spikes"} <= set(table.columns):
        intervals = (table["num_spikes"] - 1).clip(lower=1)
        table["isi_violations_share"] = table["isi_violations_count"] / intervals
    places: dict[str, Any] = dict.fromkeys(("peak_channel", "x_um", "depth_um"))
    if analyzer.get_num_units() and analyzer.has_extension("templates"):
        places["peak_channel"] = analyzer.get_main_channels(outputs="id", with_dict=False)
    if analyzer.get_num_units() and analyzer.has_extension("unit_locations"):
        where = analyzer.get_extension("unit_locations").get_data()
        places["x_um"], places["depth_um"] = where[:, 0], where[:, 1]
    for position, (name, values) in enumerate(places.items()):
        table.insert(position, name, values)
    table.index.name = "unit"
    return without_far_places(table, analyzer.get_channel_locations())


def without_far_places(table: "pd.DataFrame", contacts: "NDArray[Any]") -> "pd.DataFrame":
    """Take out places that are outside the probe's hull by more than its pitch: nothing is there.

    ``contacts``: where the channels are, (n_channels, 2), in um. The pitch is how far the next one
    is, at most.
    """
    from scipy.spatial import KDTree

    contacts = np.unique(contacts[:, :2], axis=0)
    pitch_um = NO_PROBE_PITCH_UM
    if len(contacts) > 1:
        pitch_um = KDTree(contacts).query(contacts, k=2)[0].max()
    # How far a place is outside a hull: the most that it is beyond it in any direction.
    angles = np.linspace(0.0, 2 * np.pi, 360, endpoint=False)
    ways = np.array([np.cos(angles), np.sin(angles)])
    places = table[["x_um", "depth_um"]].to_numpy(float)
    beyond_um = (places @ ways - (contacts @ ways).max(axis=0)).max(axis=1)
    table.loc[beyond_um > pitch_um, ["x_um", "depth_um"]] = np.nan
    return table


def note_noise(
    recording: "BaseRecording", bad: Sequence[sentinel.BadPeriod], settings: AnalysisSettings
) -> None:
    """Measure the noise at seeded places outside of bad periods: zeros would raise each unit's SNR.

    It is noted where SpikeInterface keeps noise levels that it has measured; the standard deviation
    is what its metric ``sd_ratio`` takes.
    """
    from spikeinterface.core import concatenate_recordings, get_noise_levels

    rate_hz, last = recording.get_sampling_frequency(), recording.get_num_samples()
    edges = [0, *(round(at * rate_hz) for p in bad for at in (p.start_s, p.end_s)), last]
    usable = [(a, min(b, last)) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
    joined = concatenate_recordings(
        [recording.frame_slice(*each) for each in usable or [(0, last)]]
    )
    options = {"method": "mad", "random_slices_kwargs": {"seed": 0}}
    options |= settings.extensions.get("noise_levels") or {}
    for method in {options["method"], "std"}:
        noise = get_noise_levels(joined, return_in_uV=True, **options | {"method": method})
        recording.set_property(f"noise_level_{method}_scaled", noise)


def find_refused(settings: AnalysisSettings) -> str:
    """Try settings on a made recording; say what SpikeInterface refuses, or nothing.

    What depends on the real recording (its channels, properties, signal) is left out: a setting
    that is refused has to be wrong for all.
    """
    default = AnalysisSettings()
    why = _try(settings)
    if not why or _try(default):  # then it is not for these settings
        return ""
    changed = {each: {each: getattr(default, each)} for each in ("preprocessing", "sparsity")}
    for name, params in settings.extensions.items():
        if params != default.extensions.get(name):
            as_default = settings.extensions | {name: default.extensions.get(name)}
            changed[f"extensions.{name}"] = {"extensions": as_default}
    without = ((f".{name}", settings.model_copy(update=each)) for name, each in changed.items())
    return next((name for name, others in without if not _try(others)), "") + f": {why}"


def _try(settings: AnalysisSettings) -> str:
    """Analyze a made recording of 2 s in memory; return the error, or nothing."""
    from spikeinterface.core import generate_ground_truth_recording, set_global_job_kwargs
    from spikeinterface.core.job_tools import job_keys

    default = AnalysisSettings()
    steps = {
        name: params
        for name, params in switched_on(settings.preprocessing).items()
        if name in TRIED_STEPS
        and not any(isinstance(value, list) or "_ids" in key for key, value in params.items())
    }
    sparsity = {name: value for name, value in settings.sparsity.items() if name not in job_keys}
    if {"by_property", "noise_levels"} & sparsity.keys():
        sparsity = default.sparsity
    elif "threshold" in sparsity:
        sparsity["threshold"] = 0.0
    extensions = {
        name: params
        for name, params in settings.extensions.items()
        if name not in SLOW or params != default.extensions.get(name)
    }
    extensions |= {"template_similarity": None}  # it takes 10 s to compile
    set_global_job_kwargs(n_jobs=1, progress_bar=False)
    silent = contextlib.redirect_stdout(io.StringIO())
    with (
        warnings.catch_warnings(action="ignore"),
        silent,
        contextlib.redirect_stderr(io.StringIO()),
    ):
        try:
            if metrics := extensions.get("quality_metrics"):  # only those that are named
                named = [*(metrics.get("metric_names") or metrics.get("metric_params") or ["snr"])]
                named_only = metrics | {"metric_names": named}
                extensions["quality_metrics"] = None if "synchrony" in named else named_only
            tried = {"sparsity": sparsity, "extensions": extensions}
            made, sorting = generate_ground_truth_recording(
                durations=[2.0], sampling_frequency=MADE_HZ, num_channels=4, num_units=3, seed=0
            )
            recording = preprocess(made, steps)
            if recording.get_sampling_frequency() == MADE_HZ:
                others = settings.model_copy(update=tried)
                note_noise(recording, [], others)
                describe_units(make_analyzer(sorting, recording, others, None))
        except (ImportError, MemoryError, OSError):  # of this machine
            return ""
        except Exception as err:  # noqa: BLE001 - whatever SpikeInterface raises
            line = traceback.extract_tb(err.__traceback__)[-1].line
            if isinstance(err, ClassifiedSortFailure):
                return str(err).removeprefix("preprocessing: ")
            return f"{type(err).__name__}: {str(err) or line}"
    return ""


def read_parts(record: sentinel.Record, rate_hz: float) -> list[sentinel.Part]:
    """Return the parts of a recording by its sort record, in samples of what was sorted.

    Their rate is ``rate_hz``: the preprocessing may have resampled. Records of earlier versions
    have none: then the recording tells, where it still is. Else times count from the first sample
    of its first file.
    """
    factor = rate_hz / (record.sampling_frequency_hz or rate_hz)
    parts = record.parts or _find_parts(record)
    return [part if factor == 1 else clock.resample(part, factor) for part in parts]


def _find_parts(record: sentinel.Record) -> list[sentinel.Part]:
    """Return the parts of a recording whose record has none."""
    row = Recording.model_validate(record.settings["task"]["row"])
    parts: list[sentinel.Part] = []
    try:
        open_recording(row, parts=parts)
    except (ClassifiedSortFailure, MemoryError) as err:
        logger.warning("%s has no parts, and their clocks are not known: %s", row.id, err)
    t_start_s = row.start_s or 0.0
    unknown = sentinel.Part(
        file=row.paths[0], start_sample=0, n_samples=record.n_samples or 0, t_start_s=t_start_s
    )
    return parts or [unknown]
