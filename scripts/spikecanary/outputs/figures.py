"""Figures of a recording: of its sorting, or of the window for which it was stopped."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary import sentinel, signals
from spikecanary.config import AnalysisSettings, CurationSettings
from spikecanary.outputs import CANARY_FIGURE, analysis, curation, exports
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
#: Most channels in a picture of traces, most units in one of templates.
MAX_TRACES, MAX_TEMPLATES = 32, 24
#: Most spikes a unit in a picture of amplitudes.
MAX_SPIKES = 2_000
DPI = 90


def run(
    task: SortTask,
    analysis_settings: AnalysisSettings,
    curation_settings: CurationSettings,
    *,
    analyzer_path: Path,
    units_path: Path,
    folder: Path,
) -> None:
    """Draw a recording and its units; a folder of PNG files.

    Parameters
    ----------
    task : SortTask
        The full sort.
    analysis_settings : AnalysisSettings
        How the recording is filtered.
    curation_settings : CurationSettings
        With the thresholds, drawn into the histograms.
    analyzer_path, units_path : Path
        The analyzer's folder; ``units.tsv``.
    folder : Path
        Where to write; appears whole or not at all.
    """
    import matplotlib as mpl
    from spikeinterface.core import set_global_job_kwargs

    mpl.use("Agg")
    set_global_job_kwargs(n_jobs=1, progress_bar=False)
    analyzer = analysis.load_analyzer(analyzer_path)
    raw = open_recording(task.row)
    filtered = analysis.open_filtered(task, analysis_settings)
    middle_s = raw.get_num_samples() / raw.get_sampling_frequency() / 2
    drawings: dict[str, Callable[[], Figure]] = {
        "traces_raw": lambda: draw_traces(raw, middle_s, SNIPPET_S),
        "traces_filtered": lambda: draw_traces(filtered, middle_s, SNIPPET_S),
        "signal_map": lambda: draw_signal_map(signals.check(raw, whole=False)),
    }
    if analyzer.get_num_units():
        units = curation.read_units(units_path)
        drawings |= draw_units(analyzer, units, curation_settings)
    else:
        drawings["probe"] = lambda: draw_probe(filtered)
    with exports.appears_whole(folder, "figures") as temporary:
        temporary.mkdir()
        for name, draw in drawings.items():
            save(draw, name, temporary / f"{name}.png")


def save(draw: "Callable[[], Figure]", name: str, path: Path) -> None:
    """Draw and save a figure; one that cannot be drawn costs no other."""
    import matplotlib.pyplot as plt

    try:
        figure = draw()
        figure.suptitle(name.replace("_", " "))
        figure.savefig(path, dpi=DPI, bbox_inches="tight")
    except Exception:
        logger.exception("figure %s could not be drawn", name)
    finally:
        plt.close("all")


def draw_units(
    analyzer: "SortingAnalyzer", units: "pd.DataFrame", settings: CurationSettings
) -> dict[str, "Callable[[], Figure]"]:
    """Return what draws the units: SpikeInterface's widgets."""
    import matplotlib.pyplot as plt
    import spikeinterface.widgets as sw

    by_size = units.sort_values("num_spikes", ascending=False) if "num_spikes" in units else units
    rank = {unit: place for place, unit in enumerate(by_size.index)}
    largest = sorted(analyzer.unit_ids, key=lambda unit: rank[str(unit)])[:MAX_TEMPLATES]
    limits = {
        name: limit.model_dump(exclude_none=True) for name, limit in settings.limits().items()
    }
    shown = [name for name in limits if name in units]

    def histograms() -> "Figure":
        figure, axes = plt.subplots(1, len(shown), figsize=(3 * len(shown), 2.6), squeeze=False)
        for axis, name in zip(axes[0], shown, strict=True):
            axis.hist(units[name].dropna(), bins=20, color="0.5")
            for side in ("greater", "less"):
                if side in limits[name]:
                    axis.axvline(limits[name][side], color="C3")
            axis.set_xlabel(name)
        axes[0][0].set_ylabel("units")
        return figure

    drawings: dict[str, Callable[[], Any]] = {
        "probe": lambda: sw.plot_unit_locations(analyzer, backend="matplotlib").figure,
        "drift": lambda: (
            sw.plot_drift_raster_map(
                sorting_analyzer=analyzer, backend="matplotlib", figsize=(8, 4)
            ).figure
        ),
        "templates": lambda: (
            sw.plot_unit_templates(
                analyzer,
                unit_ids=largest,
                backend="matplotlib",
                ncols=6,
                figsize=(12, 2.8 * -(-len(largest) // 6)),
            ).figure
        ),
        "amplitudes": lambda: (
            sw.plot_amplitudes(
                analyzer,
                max_spikes_per_unit=MAX_SPIKES,
                plot_legend=False,
                backend="matplotlib",
                figsize=(8, 4),
            ).figure
        ),
    }
    needs = {
        "probe": "unit_locations",
        "drift": "spike_locations",
        "amplitudes": "spike_amplitudes",
    }
    drawings = {
        name: draw
        for name, draw in drawings.items()
        if name not in needs or analyzer.has_extension(needs[name])
    }
    return drawings | ({"metrics": histograms} if shown else {})


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
    for name in ("active", "flat", "railed", "non_finite"):
        lower.stairs([getattr(row, name) for row in rows], edges, label=name.replace("_", "-"))
    lower.legend(loc="upper right", fontsize="small")
    lower.set(xlabel="s", ylabel="channels")
    for period in bad_periods:
        for axes in (upper, lower):
            axes.axvspan(period.start_s, period.end_s, color="C3", alpha=0.2)


def draw_probe(recording: "BaseRecording") -> "Figure":
    """Draw the probe alone."""
    import spikeinterface.widgets as sw

    figure: Figure = sw.plot_probe_map(recording, backend="matplotlib").figure
    return figure


def draw_traces(recording: "BaseRecording", middle_s: float, length_s: float) -> "Figure":
    """Draw some channels of a recording around a moment, in uV where it has gains.

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
    figure: Figure = widget.figure
    return figure


def draw_canary(
    task: SortTask, settings: AnalysisSettings, sentinel_path: Path, path: Path
) -> None:
    """Draw the window for which a recording was stopped: its traces, each channel's noise.

    So "too little activity" can be seen. Where the recording cannot be drawn, the picture
    says why: it must not cost the batch anything.
    """
    import matplotlib as mpl
    from spikeinterface.core import set_global_job_kwargs

    mpl.use("Agg")
    set_global_job_kwargs(n_jobs=1, progress_bar=False)
    import matplotlib.pyplot as plt

    record = sentinel.read_record(sentinel_path)
    try:
        figure = _draw_window(task, settings, record)
    except Exception as err:
        logger.exception("the window cannot be drawn")
        figure = plt.figure(figsize=(8, 2))
        figure.text(0.02, 0.5, f"{task.row.id} cannot be drawn:\n{type(err).__name__}: {err}")
    with exports.appears_whole(path, "canary_figure") as temporary:
        figure.savefig(temporary, dpi=DPI, bbox_inches="tight", format="png")
    plt.close("all")


def _draw_window(task: SortTask, settings: AnalysisSettings, record: sentinel.Record) -> "Figure":
    from spikeinterface.core import get_noise_levels

    filtered = analysis.open_filtered(task, settings)
    in_uv = open_recording(task.row).has_scaleable_traces()
    duration_s = filtered.get_num_samples() / filtered.get_sampling_frequency()
    start_s, end_s = 0.0, min(30.0, duration_s)
    failed_s = record.failure.evidence.get("first_s") if record.failure else None
    if failed_s is not None:  # where the first sample is that is not finite
        start_s, end_s = max(0.0, failed_s - WINDOW_S / 2), min(failed_s + WINDOW_S / 2, duration_s)
    elif record.windows:
        start_s, end_s = record.windows[-1].start_s, record.windows[-1].end_s
    window = cut_window(filtered, start_s, end_s)
    noise = np.nan_to_num(get_noise_levels(window, return_in_uV=True))
    length_s = min(WINDOW_S, end_s - start_s)
    figure = draw_traces(filtered, (start_s + end_s) / 2, length_s)
    figure.set_size_inches(11, 9)
    figure.subplots_adjust(right=0.62, bottom=0.4)
    upper, lower = (figure.add_axes((0.125, bottom, 0.855, 0.13)) for bottom in (0.2, 0.05))
    _plot_map(upper, lower, record.signal_map, record.bad_periods)
    axis = figure.add_axes((0.7, 0.4, 0.28, 0.48))
    axis.barh(range(len(noise)), noise, color="0.5")
    axis.set_xlabel("noise (MAD), uV" if in_uv else "noise (MAD), counts")
    axis.set_ylabel("channel")
    figure.suptitle(
        f"{record.reason}\n{length_s:g} s of the window {start_s:g} to {end_s:g} s, filtered; "
        "noise of each channel; the whole recording below"
    )
    return figure


def list_figures(folder: Path) -> dict[str, Path]:
    """Return the figures in a recording's results folder, by name."""
    drawn = sorted((folder / "figures").glob("*.png"))
    stopped = folder / CANARY_FIGURE
    found = {path.stem.replace("_", " "): path for path in drawn}
    return found | ({"canary window": stopped} if stopped.exists() else {})
