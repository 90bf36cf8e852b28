"""A sorter's parameters: values of the wrong type, contradictions, steps that are switched off."""

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from numbers import Real
from typing import Any

import yaml

from spikecanary.config import SorterSettings
from spikecanary.sorter.registry import DEVICE_PARAMS, defaults_of
from spikecanary.texts import quote

#: May be null whatever the default (SpikeInterface 0.105: mountainsort4 and 5 filter where neither
#: frequency is None; a seed of None is random; kilosort4's wrapper reads None as infinity; its
#: own sorters leave out a clean-up without a limit). The last three: tried with kilosort 4.1.7.
NULL_IS_OFF = (
    *("freq_min", "freq_max", "seed", "artifact_threshold", "min_firing_rate"),
    *("template_min_snr_ptp", "template_max_jitter_ms"),
    *("cluster_init_seed", "cluster_downsampling", "max_channel_distance"),
)
#: Steps that sorters have of their own, and those of ``preprocessing`` that replace them.
REPLACED_BY = {
    "whiten": ("whiten",),
    "filter": ("bandpass_filter", "highpass_filter", "filter", "causal_filter", "gaussian_filter"),
}
#: Sorters, the parameter and its value that switch steps of theirs off, and the steps (from the
#: sorters' wrappers in SpikeInterface 0.105).
SWITCHES = (
    (
        ("kilosort2", "kilosort2_5", "kilosort3", "kilosort4"),
        *("skip_kilosort_preprocessing", True, ("whiten", "filter")),
    ),
    (("mountainsort4", "mountainsort5"), "whiten", False, ("whiten",)),
    (("mountainsort4", "mountainsort5"), "filter", False, ("filter",)),
    (("spykingcircus2",), "apply_whitening", False, ("whiten",)),
    (("pykilosort",), "do_whitening", False, ("whiten",)),
    (("tridesclous2", "lupin"), "apply_preprocessing", False, ("whiten", "filter")),
    (("simple", "spykingcircus2"), "apply_preprocessing", False, ("filter",)),
)


def check_types(name: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Find values that are not of the type of the sorter's own default.

    What the sorter's description of a parameter names (None, auto) is right, too, and so are
    anything where the default is None, and the parameters of SpikeInterface's jobs.
    """
    from spikeinterface.core.job_tools import job_keys
    from spikeinterface.sorters import sorter_dict

    types: dict[str, type] = {}
    if not params or not (defaults := defaults_of(name)):
        return
    if name == "kilosort4":
        from kilosort.parameters import EXTRA_PARAMETERS, MAIN_PARAMETERS

        types = {key: each["type"] for key, each in (MAIN_PARAMETERS | EXTRA_PARAMETERS).items()}
        types["bad_channels"] = list  # SpikeInterface's own
    described = sorter_dict[name].params_description()
    described = described if isinstance(described, Mapping) else {}  # of a plugin: anything
    for key, value in params.items():
        default = defaults.get(key)
        if default is None and value is not None and key in types:
            default = types[key]()
        type_words = str(described.get(key, "")).replace(",", " ").replace("`", " ").split()
        is_word = value is None or (isinstance(value, str) and _as_number(value) is None)
        if (
            key in job_keys
            or (is_word and str(value) in type_words)
            or (value is None and key in NULL_IS_OFF)
        ):
            continue
        for where, found, wanted in _misfits(key, value, default):
            what = "null" if found is None else f"{quote(found)}, {_kind(found)}"
            remedy = f"write {_kind(wanted)}, such as {_as_yaml(wanted)}"
            if found is None:
                remedy = f"leave it out for its default, {_as_yaml(wanted)}"
            elif _kind(wanted) == "a number" and _as_number(found) is not None:
                remedy = f"write {_as_yaml(_as_number(found))}"  # YAML reads 2e-1 as a text
            yield f"{where} of {name} is {what}, but it takes {_kind(wanted)}: {remedy}"


def _misfits(where: str, value: Any, default: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield what does not fit: where, the value, the default."""
    wanted, found = _kind(default), _kind(value)
    if wanted == found == "a dict":
        for key in value.keys() & default.keys():
            if value[key] is not None:
                yield from _misfits(f"{where}.{key}", value[key], default[key])
    elif wanted == found == "a list":
        for number, each in enumerate(value if default else ()):
            yield from _misfits(f"{where}[{number}]", each, default[0])
    elif {wanted, found} == {"a boolean", "a number"}:  # 0 and 1 are both
        if (value if wanted == "a boolean" else default) not in (0, 1):
            yield where, value, default
    elif wanted != found and default is not None and not isinstance(default, tuple):
        yield where, value, default


def _kind(value: Any) -> str:
    """Return what a value is in YAML, of numpy's types too."""
    if type(value).__name__ in ("bool", "bool_"):
        return "a boolean"
    if isinstance(value, float) and math.isnan(value):
        return "no number"
    kinds: dict[Any, str] = {str: "a text", Real: "a number", Mapping: "a dict", type(None): "null"}
    kinds[date] = "a date"
    return next((kind for type_, kind in kinds.items() if isinstance(value, type_)), "a list")


def _as_number(text: Any) -> float | None:
    try:
        number = float(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return int(number) if number is not None and number.is_integer() else number


def _as_yaml(value: Any) -> str:
    """Return a value as YAML 1.1 has it: 1.0e-05, .inf, true, '2'."""
    return str(yaml.safe_dump(value, default_flow_style=True)).splitlines()[0]


def check_device(
    settings: SorterSettings, presets: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Find a device among the parameters and the presets that is not ``sorter.device``."""
    params_of = {f"params_of.{name}": each for name, each in presets.items()}
    params_of["sorter.params"] = settings.params
    params_of |= {f"sorter.params_of.{name}": each for name, each in settings.params_of.items()}
    others = {"cpu", "cuda", "mps"} - {settings.device}
    for where, params in params_of.items():
        for param in DEVICE_PARAMS if settings.device != "auto" else ():
            if (named := str(params.get(param))).partition(":")[0] in others:
                yield (
                    f"config: sorter.device is {settings.device}, but {where}.{param} is {named}: "
                    "remove one of them"
                )


def describe_switched_off(settings: SorterSettings, steps: Iterable[str]) -> Iterator[str]:
    """Name the steps that are switched off in the sorter and absent in the preprocessing."""
    done = set(steps)
    for names, param, value, off in SWITCHES:
        missing = [step for step in off if not done.intersection(REPLACED_BY[step])]
        if missing and settings.name in names and settings.params.get(param) == value:
            yield (
                f"sorter.params.{param} is {str(value).lower()}, and preprocessing has no step "
                f"{' or '.join(missing)}"
            )
