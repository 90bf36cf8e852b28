"""Figures of a recording: of its sorting, or of the window for which it was stopped."""

import itertools
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from spikecanary import sentinel, signals
from spikecanary.config import AnalysisSettings, CurationSettings
from spikecanary.outputs import FILES, analysis, appears_whole, curation
from spikecanary.recording import cut_window, open_recording
from spikecanary.sorter import SortTask

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from matplotlib.figure import Figure
    from spikeinterface.core import BaseRecording, SortingAnalyzer

logger = logging.getLogger(__name__)

#: Length of the traces that are shown, in s, and of those of a stopped window.
SNIPPET_S, WINDOW_S = 0.1, 2.0
#: Length of the raster, in s.
RASTER_S = 10.0
#: Most channels in a picture of traces; most units in one of templates, and of pairs of units.
MAX_TRACES, MAX_UNITS, MAX_PAIRED = 32, 24, 8
#: The folder of pages of units, in that of the figures.
PAGES = "units"
#: Most spikes a unit in a picture of amplitudes.
MAX_SPIKES = 2_000
DPI = 90
#: Matplotlib's style whose colours are told apart without seeing red and green; room for labels.
STYLE, ROOM = "tableau-colorblind10", {"figure.subplot.hspace": 0.5, "figure.subplot.wspace": 0.4}
#: Panels of a unit's page, by the extensions that they need: units of their axes.
PANELS = {
    "unit_locations": ("", "depth (um)"),
    "templates": ("um", "um"),
    "waveforms": ("time (ms)", "Amplitude"),
    "correlograms": ("lag (ms)", "pairs of spikes"),
}
#: SpikeInterface's labels of axes, and ours.
AXES = {"Times [s]": "time (s)", "Unit id": "unit", "CCG (ms)": "lag (ms)"}


def run(
    task: SortTask,
    analysis_settings: AnalysisSettings,
    curation_settings: CurationSettings,
    folder: Path,
    n_pages: int = 0,
) -> None:
    """Draw a recording and its units; a folder of PNG files, and of pages of units in it.

    It appears whole or not at all. ``n_pages`` units, those with the most spikes, have a page of
    their own.
    """
    from spikeinterface.core import load_sorting_analyzer

    _set_up()
    analyzer = load_sorting_analyzer(folder / "analyzer", read_only=True)
    raw = open_recording(task.row)
    filtered = analysis.open_filtered(task, analysis_settings)
    unit = "uV" if raw.has_scaleable_traces() else "counts"
    middle_s = raw.get_num_samples() / raw.get_sampling_frequency() / 2
    drawings: dict[str, Callable[[], Figure]] = {
        "traces_raw": lambda: draw_traces(raw, middle_s, SNIPPET_S, unit),
        "traces_filtered": lambda: draw_traces(filtered, middle_s, SNIPPET_S, unit),
        "signal_map": lambda: draw_signal_map(
            signals.check(raw, whole=False, remote=task.row.is_remote)
        ),
    }
    if analyzer.get_num_units():
        units = curation.read_units(folder / FILES["units"])
        drawings |= draw_units(analyzer, units, curation_settings, n_pages)
    else:
        drawings["probe"] = partial(_plot, "probe_map", filtered)
    with appears_whole(folder / FILES["figures"], "figures") as temporary:
        (temporary / PAGES).mkdir(parents=True)
        for name, draw in drawings.items():
            save(draw, name, temporary / f"{name}.png", unit)


def _set_up() -> None:
    """Draw into files, in one style."""
    import matplotlib.pyplot as plt
    from spikeinterface.core import set_global_job_kwargs

    plt.switch_backend("Agg")
    plt.style.use([STYLE, ROOM])
    set_global_job_kwargs(n_jobs=1, progress_bar=False)


def save(draw: "Callable[[], Figure]", name: str, path: Path, unit: str) -> None:
    """Draw and save a figure; one that cannot be drawn costs no other."""
    import matplotlib.pyplot as plt

    labels = {**AXES, "Amplitude": f"amplitude ({unit})"}
    try:
        figure = draw()
        if not figure.get_suptitle():
            title = name.replace("_", " ") + ", lag in ms" * name.endswith("correlograms")
            figure.suptitle(title, y=1, va="bottom")
        for axis in figure.axes:
            axis.set_xlabel(labels.get(axis.get_xlabel(), axis.get_xlabel()))
            axis.set_ylabel(labels.get(axis.get_ylabel(), axis.get_ylabel()))
        figure.savefig(path, dpi=DPI, bbox_inches="tight")
    except Exception:
        logger.exception("figure %s could not be drawn", name)
    finally:
        plt.close("all")


def draw_units(
    analyzer: "SortingAnalyzer", units: "pd.DataFrame", settings: CurationSettings, n_pages: int
) -> dict[str, "Callable[[], Figure]"]:
    """Return what draws the units: SpikeInterface's widgets."""
    import matplotlib.pyplot as plt

    n_spikes = analyzer.sorting.count_num_spikes_per_unit()
    by_size = sorted(analyzer.unit_ids, key=lambda unit: -n_spikes[unit])
    largest = by_size[:MAX_UNITS]
    depths = units["depth_um"].fillna(np.inf)
    by_depth = sorted(analyzer.unit_ids, key=lambda unit: depths[str(unit)])
    first_s = max(0.0, (analyzer.get_total_duration() - RASTER_S) / 2)
    limits = settings.limits()
    shown = [name for name in limits if name in units]

    def histograms() -> "Figure":
        figure, axes = plt.subplots(1, len(shown), figsize=(3 * len(shown), 2.6), squeeze=False)
        for axis, name in zip(axes[0], shown, strict=True):
            axis.hist(units[name].dropna(), bins=20)
            for limit in (limits[name].greater, limits[name].less):
                if limit is not None:
                    axis.axvline(limit, color="C1")
            axis.set_xlabel(name)
        axes[0][0].set_ylabel("units")
        return figure

    drawings: dict[str, Callable[[], Any]] = {"metrics": histograms} if shown else {}

    def add(name: str, widget: str, need: str, of: Any = analyzer, **how: Any) -> None:
        if analyzer.has_extension(need):
            drawings[name] = partial(_plot, widget, of, **how)

    palette = itertools.cycle(plt.rcParams["axes.prop_cycle"].by_key()["color"])
    colors: dict[str, Any] = {"unit_colors": dict(zip(analyzer.unit_ids, palette, strict=False))}
    wide = {**colors, "figsize": (8, 4), "max_spikes_per_unit": MAX_SPIKES, "plot_legend": False}
    in_rows = {**colors, "unit_ids": largest, "ncols": 6}
    in_rows["figsize"] = (12, 2.8 * -(-len(largest) // 6))
    paired = {**colors, "unit_ids": largest[:MAX_PAIRED], "figsize": (12, 10)}
    when: dict[str, Any] = {"time_range": (first_s, first_s + RASTER_S)}
    when |= {"unit_ids": by_depth, "figsize": (8, min(2 + 0.15 * len(by_depth), 20))}
    drift = {"sorting_analyzer": analyzer, "figsize": (8, 4)}
    add("probe", "unit_locations", "unit_locations", **colors)
    add("raster", "rasters", "random_spikes", analyzer.sorting, **when)
    add("drift", "drift_raster_map", "spike_locations", None, **drift)
    if analyzer.get_num_channels() > 1:
        add("templates", "unit_templates", "templates", scalebar=True, **in_rows)
    else:  # SpikeInterface scales templates by the distances of channels
        one = in_rows | {"figsize": (8, 2.8 * len(largest))}
        add("templates", "unit_waveforms_density_map", "waveforms", **one)
    add("amplitudes", "amplitudes", "spike_amplitudes", **wide)
    add("autocorrelograms", "autocorrelograms", "correlograms", **in_rows)
    add("crosscorrelograms", "crosscorrelograms", "correlograms", **paired)
    reasons = units["reasons"].astype(object).fillna("")
    if analyzer.has_extension("unit_locations"):
        for unit in by_size[:n_pages]:
            label = f"{units['label'][str(unit)]}  {reasons[str(unit)]}"
            name = f"{PAGES}/{quote(str(unit), safe='')}"
            drawings[name] = partial(draw_page, analyzer, unit, label)
    return drawings


def _plot(widget: str, *args: Any, **how: Any) -> Any:
    """Draw one of SpikeInterface's widgets."""
    import spikeinterface.widgets as sw

    return getattr(sw, f"plot_{widget}")(*args, backend="matplotlib", **how).figure


def draw_page(analyzer: "SortingAnalyzer", unit: Any, label: str) -> Any:
    """Draw a page of one unit: location, waveforms, correlogram, intervals, amplitudes."""
    figure = _plot(
        "unit_summary",
        analyzer,
        unit,
        unit_colors=dict.fromkeys(analyzer.unit_ids, "C0"),
        subwidget_kwargs={"amplitudes": {"max_spikes_per_unit": MAX_SPIKES}},
        figsize=(18, 7),
    )
    drawn = [name for name in PANELS if analyzer.has_extension(name)]
    for axis, name in zip(figure.axes, drawn, strict=False):
        axis.set(**dict(zip(("xlabel", "ylabel"), PANELS[name], strict=True)))
    isi = figure.add_axes((0.94, 0.4, 0.15, 0.48))
    _plot("isi_distribution", analyzer.sorting, [unit], window_ms=50.0, axes=np.array([isi]))
    isi.set(title="", xlabel="interval (ms)", ylabel="density")
    figure.suptitle(f"unit {unit}: {label}")
    return figure


def draw_signal_map(report: signals.SignalReport) -> "Figure":
    """Draw the signal map: noise, and channels of each kind, over the whole recording."""
    import matplotlib.pyplot as plt

    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(8, 4))
    _plot_map(upper, lower, report.rows, report.bad_periods)
    return figure


def _plot_map(
    upper: Any, lower: Any, rows: list[sentinel.MapRow], bad_periods: list[sentinel.BadPeriod]
) -> None:
    """Plot the noise into one pair of axes, the numbers of channels into another."""
    if not rows:  # the signal was not looked at
        upper.remove()
        lower.remove()
        return
    edges = [*(row.start_s for row in rows), rows[-1].end_s]
    if rows[0].noise_uV is not None:
        upper.stairs([row.noise_uV for row in rows], edges, color="0.3")
    upper.set_ylabel("noise, uV")
    upper.tick_params(labelbottom=False)  # the times of both are below
    for name in ("active", "flat", "railed", "non_finite"):
        lower.stairs([getattr(row, name) for row in rows], edges, label=name.replace("_", "-"))
    lower.legend(loc="upper right", fontsize="small")
    lower.set(xlabel="s", ylabel="channels")
    for period in bad_periods:
        for axes in (upper, lower):
            axes.axvspan(period.start_s, period.end_s, color="C1", alpha=0.2)


def draw_traces(
    recording: "BaseRecording", middle_s: float, length_s: float, unit: str
) -> "Figure":
    """Draw some channels of a recording around a moment; ``unit``: uV, or counts without gains.

    The moment is in s from the first sample; gaps of the recording's clock do not count.
    """
    import spikeinterface.widgets as sw

    every = -(-recording.get_num_channels() // MAX_TRACES)
    rate_hz = recording.get_sampling_frequency()
    first = max(0, round((middle_s - length_s / 2) * rate_hz))
    last = min(first + round(length_s * rate_hz), recording.get_num_samples() - 1)
    widget = sw.plot_traces(
        recording,
        channel_ids=recording.channel_ids[::every],
        order_channel_by_depth=recording.has_probe(),
        time_range=tuple(recording.sample_index_to_time(at) for at in (first, last)),
        mode="line",
        return_in_uV=recording.has_scaleable_traces(),
        show_channel_ids=True,
        add_legend=False,
        backend="matplotlib",
        figsize=(8, 6),
    )
    axis, spacing = widget.ax, float(f"{widget.data_plot['vspacing']:.1g}")
    beside: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "clip_on": False}
    axis.plot([1.01, 1.01], [0, spacing], color="black", linewidth=2, **beside)
    axis.text(1.02, spacing / 2, f"{spacing:g} {unit}", rotation=90, va="center", **beside)
    axis.set_ylabel("channel")
    figure: Figure = widget.figure
    return figure


def draw_canary(
    task: SortTask, settings: AnalysisSettings, sentinel_path: Path, path: Path
) -> None:
    """Draw the window for which a recording was stopped: its traces, each channel's noise.

    So "too little activity" can be seen. Where the recording cannot be drawn, the picture
    says why: it must not cost the batch anything.
    """
    import matplotlib.pyplot as plt

    _set_up()
    record = sentinel.read_record(sentinel_path)
    try:
        figure = _draw_window(task, settings, record)
    except Exception as err:
        logger.exception("the window cannot be drawn")
        figure = plt.figure(figsize=(8, 2))
        figure.text(0.02, 0.5, f"{task.row.id} cannot be drawn:\n{type(err).__name__}: {err}")
    with appears_whole(path, "canary_figure") as temporary:
        figure.savefig(temporary, dpi=DPI, bbox_inches="tight", format="png")
    plt.close("all")


def _finite(recording: "BaseRecording") -> "BaseRecording":
    """Return a short recording in memory, with zeros for samples that are not finite."""
    from spikeinterface.core import NumpyRecording

    traces = np.nan_to_num(recording.get_traces(), posinf=0.0, neginf=0.0)
    rate_hz, ids = recording.get_sampling_frequency(), recording.channel_ids
    made = NumpyRecording([traces], rate_hz, channel_ids=ids)
    recording.copy_metadata(made)
    return made


def _draw_window(task: SortTask, settings: AnalysisSettings, record: sentinel.Record) -> "Figure":
    from spikeinterface.core import get_noise_levels

    filtered, raw = analysis.open_filtered(task, settings), open_recording(task.row)
    unit, how = "uV" if raw.has_scaleable_traces() else "counts", "filtered"
    duration_s = filtered.get_num_samples() / filtered.get_sampling_frequency()
    start_s, end_s = 0.0, min(30.0, duration_s)
    failed_s = record.failure.evidence.get("first_s") if record.failure else None
    if failed_s is not None:  # where the first sample is that is not finite
        start_s, end_s = max(0.0, failed_s - WINDOW_S / 2), min(failed_s + WINDOW_S / 2, duration_s)
    elif record.windows:
        start_s, end_s = record.windows[-1].start_s, record.windows[-1].end_s
    place = f"{start_s:g} to {end_s:g} s"
    if failed_s is not None:  # a filter would spread what is not finite over all
        filtered, how = _finite(cut_window(raw, start_s, end_s)), "NaN as 0"
        start_s, end_s = 0.0, end_s - start_s
    window = cut_window(filtered, start_s, end_s)
    noise = np.nan_to_num(get_noise_levels(window, return_in_uV=True))
    length_s = min(WINDOW_S, end_s - start_s)
    figure = draw_traces(filtered, (start_s + end_s) / 2, length_s, unit)
    figure.set_size_inches(11, 9)
    figure.subplots_adjust(right=0.62, bottom=0.4)
    upper, lower = (figure.add_axes((0.125, bottom, 0.855, 0.13)) for bottom in (0.2, 0.05))
    _plot_map(upper, lower, record.signal_map, record.bad_periods)
    axis = figure.add_axes((0.7, 0.4, 0.28, 0.48))
    axis.barh(range(len(noise)), noise, color="0.5")
    axis.set_xlabel(f"noise (MAD), {unit}")
    axis.set_ylabel("channel")
    figure.suptitle(
        f"{record.reason}\n{length_s:g} s of the window {place}, {how}; "
        "noise of each channel; the whole recording below"
    )
    return figure
