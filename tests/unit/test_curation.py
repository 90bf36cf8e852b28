"""Labels of units: thresholds with their reasons, Bombcell, UnitRefine's models on disk."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from spikeinterface.curation import bombcell_get_default_thresholds

from spikecanary.config import CurationSettings, Threshold, UnitRefineSettings
from spikecanary.outputs import OutputError, curation

METRICS = pd.DataFrame(
    {
        "firing_rate": [5.0, 0.01, 5.0, 5.0],
        "isi_violations_share": [0.001, 0.0, 0.02, np.nan],
        "snr": [8.0, 8.0, 3.2, 8.0],
        "num_spikes": [500, 12, 500, 500],
    },
    index=pd.Index(["a", "b", "c", "d"], name="unit"),
)
PLAIN = CurationSettings(bombcell=False)
#: Takes the default thresholds out.
NONE = dict.fromkeys(PLAIN.thresholds)


def test_defaults_and_their_reasons():
    labels = curation.label(METRICS, PLAIN)
    assert labels["thresholds_label"].to_list() == ["good", "mua", "mua", "mua"]
    assert labels["reasons"].to_list() == [
        "",
        "firing_rate 0.01 < 0.05; num_spikes 12 < 50",
        "isi_violations_share 0.02 > 0.01; snr 3.2 < 5",
        "isi_violations_share could not be computed",
    ]


def test_limits_are_inclusive_and_absolute_where_asked():
    metrics = pd.DataFrame({"amplitude_median": [-40.0, -20.0]}, index=["a", "b"])
    thresholds = NONE | {"amplitude_median": Threshold(greater=40.0, abs=True)}
    labels = curation.label(metrics, CurationSettings(bombcell=False, thresholds=thresholds))
    assert labels["thresholds_label"].to_list() == ["good", "mua"]
    assert labels["reasons"].to_list() == ["", "amplitude_median -20 < 40"]


def test_given_thresholds_go_over_the_defaults():
    settings = CurationSettings(thresholds={"snr": {"greater": 4}, "num_spikes": None})
    assert settings.limits().keys() == {"firing_rate", "isi_violations_share", "snr"}
    assert settings.limits()["snr"].greater == 4
    assert settings.model_dump()["thresholds"]["snr"] == {"greater": 4}


def test_no_thresholds_and_no_units():
    everything = curation.label(METRICS, CurationSettings(bombcell=False, thresholds=NONE))
    assert set(everything["thresholds_label"]) == {"good"}
    none = curation.label(METRICS.iloc[:0], CurationSettings())
    assert list(none.columns) == ["thresholds_label", "reasons", "bombcell_label"]


def test_unknown_metric_says_which_there_are():
    settings = CurationSettings(bombcell=False, thresholds=NONE | {"snrr": Threshold(greater=1)})
    with pytest.raises(OutputError, match=r"snrr is not in metrics.tsv; it has firing_"):
        curation.label(METRICS, settings)


def test_bombcell_by_its_own_and_by_given_thresholds():
    given = bombcell_get_default_thresholds()
    columns = {name for section in given.values() for name in section} | set(METRICS)
    metrics = pd.DataFrame(1.0, index=["a", "b"], columns=sorted(columns))
    metrics["snr"] = [9.0, 1.0]
    strict = {"noise": {"snr": {"greater": 5.0}}, "mua": {}, "non-somatic": {}}
    labels = curation.label(metrics, CurationSettings(bombcell=strict))
    assert labels["bombcell_label"].to_list() == ["good", "noise"]
    default = curation.label(metrics, CurationSettings())["bombcell_label"]
    assert set(default) <= {"noise", "mua", "good", "non_soma"}


def test_what_decides_has_to_be_made():
    with pytest.raises(ValidationError, match="label_by is unitrefine, but unitrefine is off"):
        CurationSettings(label_by="unitrefine")
    with pytest.raises(ValidationError, match="label_by is bombcell, but bombcell is off"):
        CurationSettings(label_by="bombcell", bombcell={})
    with pytest.raises(ValidationError, match="`greater`, `less` or both"):
        Threshold()


@pytest.fixture(scope="module")
def analyzed(made, tmp_path_factory):
    """Copy the results of eight units, as rule analyze leaves them."""
    return shutil.copytree(made[0] / "8", tmp_path_factory.mktemp("curation") / "8", symlinks=True)


@pytest.fixture(scope="module")
def model(analyzed, tmp_path_factory):
    """Train a classifier as UnitRefine's are, by SpikeInterface, on these metrics."""
    from spikeinterface.curation import train_model

    folder = tmp_path_factory.mktemp("model")
    metrics = pd.read_csv(analyzed / "metrics.tsv", sep="\t", index_col="unit")
    metrics = metrics[["snr", "num_spikes", "firing_rate"]]
    many = pd.concat([metrics.assign(snr=snr) for snr in (1.0, 2.0, 20.0, 30.0)] * 4)
    labels = ["noise" if snr < 10 else "neural" for snr in many["snr"]]
    many.to_csv(folder / "metrics.csv")
    train_model(
        mode="csv",
        metrics_paths=[folder / "metrics.csv"],
        labels=[labels],
        metric_names=list(metrics.columns),
        folder=folder / "model",
        imputation_strategies=["median"],
        scaling_techniques=["standard_scaler"],
        classifiers=["LogisticRegression"],
        test_size=0.25,
        overwrite=True,
        n_jobs=1,
    )
    return folder / "model"


def test_unitrefine_with_a_model_on_disk(analyzed, model):
    settings = CurationSettings(
        label_by="unitrefine",
        bombcell=False,
        thresholds=NONE | {"snr": Threshold(greater=5)},
        unitrefine=UnitRefineSettings(noise_neural=str(model)),
    )
    curation.run(settings, analyzed)
    units = curation.read_units(analyzed / "units.tsv")
    assert units["label"].to_list() == units["unitrefine_label"].to_list()
    assert set(units["label"]) <= {"noise", "neural"}
    assert units["unitrefine_probability"].between(0, 1).all()
    assert json.loads((model / "model_info.json").read_text())


def test_model_that_is_not_there(analyzed):
    settings = CurationSettings(
        bombcell=False,
        thresholds=NONE,
        unitrefine=UnitRefineSettings(sua_mua="/no/such/model"),
    )
    with pytest.raises(
        OutputError, match=r"curation.unitrefine.sua_mua: /no/such/model does not exist"
    ):
        curation.run(settings, analyzed)


def test_single_units_of_unitrefine_are_good(analyzed, monkeypatch):
    def classify(analyzer, settings):
        ids = [str(unit) for unit in analyzer.unit_ids]
        return pd.DataFrame({"unitrefine_label": ["sua", *["mua"] * (len(ids) - 1)]}, index=ids)

    monkeypatch.setattr(curation, "classify", classify)
    refine = UnitRefineSettings(sua_mua="x")
    settings = CurationSettings(
        label_by="unitrefine", bombcell=False, thresholds=NONE, unitrefine=refine
    )
    curation.run(settings, analyzed)
    units = curation.read_units(analyzed / "units.tsv")
    assert units["label"].to_list() == ["good", *["mua"] * (len(units) - 1)]
    assert units["unitrefine_label"].iloc[0] == "sua"
