"""The configuration: shipped file, schema, problems."""

import math
import os
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from spikecanary import config, inputcheck
from spikecanary.config import BadInputError, Config
from workbench import ROOT

SCHEMA = ROOT / "config/schemas/config.schema.json"


def test_shipped_config_shows_defaults():
    shipped = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    assert config.as_set(config.load(shipped)) == config.as_set(Config())


@pytest.mark.parametrize("path", ["config/config.yaml", "config/demo/config.yaml"])
def test_shipped_configs_fit_the_schema(path):
    given = yaml.safe_load((ROOT / path).read_text())
    schema = yaml.safe_load(SCHEMA.read_text())
    assert list(Draft202012Validator(schema).iter_errors(given)) == []
    config.load(given)


def test_every_key_is_described():
    schema = Config.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    missing = [
        f"{section['title']}.{name}"
        for section in sections
        for name, key in section["properties"].items()
        if "description" not in key and "$ref" not in key
    ]
    assert missing == []


@pytest.mark.parametrize("window_s", [0, -1, math.nan, math.inf])
def test_windows_that_mean_no_canary(window_s):
    assert config.load({"canary": {"window_s": window_s}}).canary.window_s == 0.0


def test_empty_section_has_its_defaults():
    assert config.load({"canary": None}) == Config()


def test_problems_come_together_and_say_where():
    with pytest.raises(BadInputError) as caught:
        config.load({"sorters": {}, "sorter": {"nam": "x"}, "canary": {"min_recording_s": -1}})
    assert caught.value.problems == [
        "config: sorter.nam: unknown key (did you mean 'name'?)",
        "config: canary.min_recording_s: Input should be greater than or equal to 0, got -1",
        "config: sorters: unknown key (did you mean 'sorter'?)",
    ]
    assert str(caught.value).startswith("3 problems")


def test_unknown_key_of_an_entry_is_named():
    with pytest.raises(BadInputError) as caught:
        config.load({"curation": {"thresholds": {"snr": {"grater": 1}}}})
    (unknown,) = caught.value.problems
    assert unknown == "config: curation.thresholds.snr.grater: unknown key"


def test_dicts_are_merged_over_the_default_at_every_level():
    """As Snakemake merges a user's file over one that shows the defaults."""
    given = {"extensions": {"waveforms": {"ms_before": 2}, "correlograms": None, "isi": {}}}
    settings = config.load({"analysis": given}).analysis
    assert settings.extensions["waveforms"] == {"ms_before": 2, "ms_after": 2.0}
    assert settings.extensions["random_spikes"] == {"max_spikes_per_unit": 500, "seed": 0}
    changed = given["extensions"] | {"waveforms": {"ms_after": 2.0, "ms_before": 2}}
    assert config.as_set(settings)["extensions"] == changed
    limit = config.load({"curation": {"thresholds": {"snr": {"less": 9}}}}).curation.limits()["snr"]
    assert (limit.greater, limit.less) == (5.0, 9.0)


def test_order_of_steps_survives_sorted_keys():
    steps = {"highpass_filter": None, "common_reference": {}, "bandpass_filter": {"freq_min": 300}}
    settings = config.load({"analysis": {"preprocessing": steps}}).analysis
    assert config.as_set(settings)["preprocessing"] == [list(step) for step in steps.items()]
    assert type(settings).model_validate(config.as_set(settings)) == settings
    steps = {"highpass_filter": {"freq_min": 300.0}, "common_reference": {}}
    whole = config.load({"preprocessing": steps, "preprocessing_of": {"mine": steps}})
    again = Config.model_validate(config.as_set(whole))  # as rules plan and report get it
    assert [*again.preprocessing] == [*again.preprocessing_of["mine"]] == [*steps]


def test_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().canary.window_s = 3


def test_keys_that_stand_twice_and_numbers_that_are_others(held):
    text = "canary: &a\n  window_s: 3\n  window_s: 4\njob: {}\ncanary: *a\n"
    fine = '{a: "010", b: 0, c: 1.0e-3, d: 0x10, e: 2024-01-01 12:30:00, f: -0.5, g: 10}'
    Path("c.yaml").write_text(f"{text}x: 010\ny: 12:30\nz: {fine}\n")
    Path("t.tsv").write_text("recording\tpath\treader\na\tx\tspikeglx\n")
    with pytest.raises(BadInputError) as caught:
        inputcheck.check_inputs({"recordings": "t.tsv"}, ["c.yaml", "none.yaml", os.devnull])
    assert caught.value.problems == [
        "c.yaml, line 3: 'window_s' is in line 2 already",
        "c.yaml, line 5: 'canary' is in line 1 already",
        "c.yaml, line 6: 010 is read as 8; write 8 or the number that is meant",
        "c.yaml, line 7: 12:30 is read as 750; write 750 or the number that is meant",
    ]
    held()
