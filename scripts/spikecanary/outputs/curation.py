"""The curation of a sorting: a label for each unit, and why it has it."""

import json
import logging
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spikecanary import sentinel
from spikecanary.config import CurationSettings, Threshold, UnitRefineSettings, as_set
from spikecanary.outputs import NOTED, OutputError, analysis, appears_whole, phy
from spikecanary.recording import clock
from spikecanary.table.tsv import from_cell

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import BaseSorting, SortingAnalyzer
    from spikeinterface.core.base import BaseExtractor

logger = logging.getLogger(__name__)

GOOD, REST = "good", "mua"


def read_units(path: Path) -> "pd.DataFrame":
    """Read ``metrics.tsv`` or ``units.tsv``: a row a unit, its id as text in the index."""
    import pandas as pd

    text = {"unit": str, "peak_channel": str}  # even NA and 007
    table = pd.read_csv(path, sep="\t", dtype=text, keep_default_na=False, na_values=[""])
    return table.map(from_cell).set_index("unit")


def run(settings: CurationSettings, folder: Path, by_hand: Container[str] = ()) -> None:
    """Label a recording's units; write ``units.tsv`` and the sorting that is left, ``curated``.

    That is SpikeInterface's folder of the sorting without what was found twice, with the table's
    columns and the sorter's own as properties. ``by_hand`` as of
    :func:`spikecanary.outputs.analysis.run`: labels of the Phy folder go before all others.

    Raises
    ------
    OutputError
        A threshold is of a metric that was not computed; the Phy folder is of another sort.
    """
    from spikeinterface.core import load, load_sorting_analyzer

    sorting = load(folder / "sorting")
    analyzer = load_sorting_analyzer(folder / "analyzer", read_only=True)  # another job's output
    metrics = read_units(folder / "metrics.tsv")
    labels = label(metrics, settings)
    if settings.unitrefine != UnitRefineSettings():
        labels = labels.join(classify(analyzer, settings))
    # UnitRefine's single units are sua.
    labels.insert(0, "label", labels[f"{settings.label_by}_label"].replace("sua", GOOD))
    if "phy" in by_hand:
        phy.check_of_sort(folder / "phy", sorting)
        for name, of_units in phy.read_labels(folder / "phy").items():
            labels[name] = labels.index.map(of_units)
        labels["label"] = labels["phy_label"].fillna(labels["label"])
    for name in analyzer.sorting.get_property_keys():
        if name.startswith("gui_"):
            labels[name] = analyzer.sorting.get_property(name)
    if "gui_label" in labels:
        labels["label"] = labels["gui_label"].where(labels["gui_label"] != "", labels["label"])
    table = labels.drop(columns=["thresholds_label"]).join(metrics)
    rate_hz = sorting.sampling_frequency
    parts = analysis.read_parts(sentinel.read_record(folder / "sort.json"), rate_hz)
    if len(parts) > 1:
        table = table.join(count_by_part(analyzer.sorting, parts))
    with appears_whole(folder / "curated", "curate") as made:
        with_properties(analyzer.sorting, sorting, table).save(folder=made)
        (made / NOTED).write_text(json.dumps(as_set(settings)))
    sentinel.write_atomic(folder / "units.tsv", analysis.write_units(table))
    counts = "%d units were sorted; %d are left, without those found twice and those without spikes"
    logger.info(counts, len(sorting.unit_ids), len(table))
    logger.info("%d of %d units are good", (table["label"] == GOOD).sum(), len(table))


def count_by_part(sorting: "BaseSorting", parts: Sequence[sentinel.Part]) -> "pd.DataFrame":
    """Count the spikes of each unit in each part of a recording that has several."""
    import pandas as pd

    vector = sorting.to_spike_vector()
    counts = np.zeros((len(sorting.unit_ids), len(parts)), dtype=int)
    np.add.at(counts, (vector["unit_index"], clock.part_of(vector["sample_index"], parts)), 1)
    columns = [f"num_spikes_part_{number}" for number in range(1, len(parts) + 1)]
    return pd.DataFrame(counts, index=[str(unit) for unit in sorting.unit_ids], columns=columns)


def with_properties(
    sorting: "BaseSorting", as_sorted: "BaseSorting", table: "pd.DataFrame"
) -> "BaseSorting":
    """Return a sorting whose properties are the sorter's columns and those of ``units.tsv``."""
    import pandas as pd
    from spikeinterface.core import NumpySorting

    curated = NumpySorting.from_sorting(sorting)
    ids = [str(unit) for unit in curated.unit_ids]
    if not ids:
        return curated
    for name in as_sorted.get_property_keys():
        values = as_sorted.get_property(name)
        of_unit = dict(zip(map(str, as_sorted.unit_ids), values, strict=True))
        # Of units that were merged by hand.
        none = np.full(values.shape[1:], np.nan if values.dtype.kind in "fiu" else "")
        curated.set_property(name, np.array([of_unit.get(unit, none) for unit in ids]))
    for name in table.columns:
        values = table.loc[ids, name]
        if not pd.api.types.is_numeric_dtype(values):
            values = values.astype(object).fillna("").astype(str)
        curated.set_property(name, np.array(values.to_list()))
    return curated


def make_columns_fit(several: Sequence["BaseExtractor"]) -> None:
    """Make properties that not all have such that they can be empty in one table of all.

    Whole numbers become floating-point numbers, flags become texts.
    """
    names = [{*one.get_property_keys()} for one in several]
    partial = set().union(*names) - set.intersection(*names) if names else set()
    for one in several:
        for name in partial & {*one.get_property_keys()}:
            values = one.get_property(name)
            if values.dtype.kind in "biu":
                one.set_property(name, values.astype(str if values.dtype.kind == "b" else float))


def label(metrics: "pd.DataFrame", settings: CurationSettings) -> "pd.DataFrame":
    """Label units, a row of metrics each, by thresholds and Bombcell; raises as :func:`run`.

    Columns are ``thresholds_label`` (good or mua), ``reasons`` (each threshold that a unit misses),
    and ``bombcell_label`` unless it is off.
    """
    import pandas as pd
    from spikeinterface.curation import bombcell_label_units

    limits = settings.limits()
    if not metrics.empty and (missing := sorted(set(limits) - set(metrics.columns))):
        msg = (
            f"curation.thresholds: {', '.join(missing)} is not in metrics.tsv; it has "
            f"{', '.join(metrics.columns)}. Add the extension that computes it to "
            "analysis.extensions, or take the threshold out"
        )
        raise OutputError(msg)
    reasons = [
        "; ".join(filter(None, (_miss(name, row[name], limits[name]) for name in limits)))
        for _, row in metrics.iterrows()
    ]
    found = {"thresholds_label": [REST if each else GOOD for each in reasons], "reasons": reasons}
    labels = pd.DataFrame(found, index=metrics.index, dtype=object)
    if settings.bombcell:
        thresholds = None if settings.bombcell is True else settings.bombcell
        labels["bombcell_label"] = (
            ""
            if metrics.empty
            else bombcell_label_units(thresholds=thresholds, external_metrics=metrics).iloc[:, 0]
        )
    return labels


def _miss(name: str, value: float, limit: Threshold) -> str:
    """Say how a unit misses a threshold, with its value; nothing where it does not."""
    compared = abs(value) if limit.abs else value
    if np.isnan(value):
        return f"{name} could not be computed"
    if limit.greater is not None and compared < limit.greater:
        return f"{name} {value:.3g} < {limit.greater:g}"
    if limit.less is not None and compared > limit.less:
        return f"{name} {value:.3g} > {limit.less:g}"
    return ""


def classify(analyzer: "SortingAnalyzer", settings: CurationSettings) -> "pd.DataFrame":
    """Return columns ``unitrefine_label`` and ``unitrefine_probability``, by classifiers on disk.

    Raises OutputError if one is not where the settings say.
    """
    import pandas as pd
    from spikeinterface.curation import unitrefine_label_units

    models = settings.unitrefine.model_dump(exclude_none=True)
    for name, path in models.items():
        if not Path(path).exists():  # SpikeInterface would look for it on a hub
            msg = f"curation.unitrefine.{name}: {path} does not exist"
            raise OutputError(msg)
    columns = ["unitrefine_label", "unitrefine_probability"]
    if not analyzer.get_num_units():
        return pd.DataFrame(columns=columns)
    found = unitrefine_label_units(
        analyzer,
        noise_neural_classifier=models.get("noise_neural"),
        sua_mua_classifier=models.get("sua_mua"),
    )
    found.index = found.index.astype(str)
    return pd.DataFrame(found[columns])
