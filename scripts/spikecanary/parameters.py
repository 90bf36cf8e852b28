"""A sorter's parameters: values of the wrong type, contradictions, steps that are switched off."""

import math
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from typing import Any

import yaml

from spikecanary.config import SorterSettings
from spikecanary.sorter import DEVICE_PARAMS

#: May be null whatever the default (SpikeInterface 0.105: mountainsort4 and 5 filter where neither
#: frequency is None; a seed of None is random; kilosort4's wrapper reads None as infinity). The
#: last three: tried with kilosort 4.1.7, as were its whole numbers that may be floats.
NULL_IS_OFF = (
    *("freq_min", "freq_max", "seed", "artifact_threshold"),
    *("cluster_init_seed", "cluster_downsampling", "max_channel_distance"),
)
FLOAT_FITS = (
    *("batch_size", "batch_downsampling", "template_sizes", "cluster_neighbors"),
    *("cluster_downsampling", "max_cluster_subset", "x_centers", "cluster_init_seed"),
)
FILTERS = ("bandpass_filter", "highpass_filter", "filter", "causal_filter", "gaussian_filter")
_KILOSORTS = ("kilosort2", "kilosort2_5", "kilosort3", "kilosort4")
#: Sorters, the parameter and its value that switch a step of theirs off, the step, and the steps of
#: ``preprocessing`` that replace it (from the sorters' wrappers in SpikeInterface 0.105).
SWITCHES: tuple[tuple[tuple[str, ...], str, bool, str, tuple[str, ...]], ...] = (
    (_KILOSORTS, "skip_kilosort_preprocessing", True, "whitening", ("whiten",)),
    (_KILOSORTS, "skip_kilosort_preprocessing", True, "filter", FILTERS),
    (("mountainsort4", "mountainsort5"), "whiten", False, "whitening", ("whiten",)),
    (("mountainsort4", "mountainsort5"), "filter", False, "filter", FILTERS),
    (("spykingcircus2",), "apply_whitening", False, "whitening", ("whiten",)),
    (("pykilosort",), "do_whitening", False, "whitening", ("whiten",)),
    (("tridesclous2", "lupin"), "apply_preprocessing", False, "whitening", ("whiten",)),
    (
        ("tridesclous2", "lupin", "simple", "spykingcircus2"),
        "apply_preprocessing",
        False,
        "filter",
        FILTERS,
    ),
)


def defaults_of(name: str) -> dict[str, Any]:
    """Return a sorter's default parameters; none where its package has them and is missing."""
    from spikeinterface.sorters import sorter_dict

    try:
        is_listed = name != "kilosort4" or sorter_dict[name].is_installed()
        return dict(sorter_dict[name].default_params()) if is_listed else {}
    except (ImportError, KeyError):
        return {}


def check_types(name: str, params: Mapping[str, Any]) -> Iterator[str]:
    """Find values that are not of the type of the sorter's own default.

    What the sorter's description of a parameter names (None, auto, True) is right, too, and so is
    anything where the default is None, or a parameter of SpikeInterface's jobs.
    """
    from spikeinterface.core.job_tools import job_keys
    from spikeinterface.sorters import sorter_dict

    defaults = defaults_of(name)
    described = sorter_dict[name].params_description() if defaults else {}
    types = _types_of_kilosort4() if name == "kilosort4" and defaults else {}
    for key, value in params.items():
        told = str(described.get(key, "")).replace(",", " ").replace("`", " ").split()
        is_text = isinstance(value, str) and _as_number(value) is None
        if key in job_keys or ((value is None or is_text) and str(value) in told):
            continue
        if types.get(key) is int and isinstance(value, float) and key not in FLOAT_FITS:
            yield f"{key} of {name} is {value!r}, but it takes a whole number: write {value:.0f}"
        for where, given, default in _misfits(key, value, defaults.get(key), types.get(key)):
            is_ = "null" if given is None else f"{given!r}, {_kind(given)}"
            remedy = _describe_remedy(given, default)
            yield f"{where} of {name} is {is_}, but it takes {_kind(default)}: {remedy}"


def _types_of_kilosort4() -> dict[str, type]:
    from kilosort.parameters import EXTRA_PARAMETERS, MAIN_PARAMETERS

    return {key: each["type"] for key, each in (MAIN_PARAMETERS | EXTRA_PARAMETERS).items()}


def _misfits(
    where: str, value: Any, default: Any, type_: type | None = None
) -> Iterator[tuple[str, Any, Any]]:
    """Yield what does not fit: where, the value, the default (or one of the declared type)."""
    if default is None and type_ is not None and value is not None:
        default = type_()
    if default is None or isinstance(default, tuple) or (value is None and where in NULL_IS_OFF):
        return
    if isinstance(default, Mapping) and isinstance(value, Mapping):
        for key in value.keys() & default.keys():
            if value[key] is not None:
                yield from _misfits(f"{where}.{key}", value[key], default[key])
    elif isinstance(default, list) and isinstance(value, list | tuple):
        for number, each in enumerate(value if default else ()):
            yield from _misfits(f"{where}[{number}]", each, default[0])
    elif not _fits(value, default):
        yield where, value, default


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of a default's kind; 0 and 1 are booleans, and numbers."""
    wanted, given = _kind(default), _kind(value)
    if {wanted, given} == {"a boolean", "a number"}:
        return (value if wanted == "a boolean" else default) in (0, 1)
    return wanted == given


def _kind(value: Any) -> str:
    """Return what a value is in YAML, of numpy's types too."""
    if value is None:
        return "null"
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return "a boolean"
    if isinstance(value, Real):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a dict" if isinstance(value, Mapping) else "a list"


def _as_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if math.isfinite(number) and number == int(number) else number


def _describe_remedy(value: Any, default: Any) -> str:
    """Say what to write, as YAML."""
    if value is None:
        return f"leave it out for its default, {_yaml(default)}"
    if isinstance(default, bool):
        return "write true or false, without quotes"
    if isinstance(default, str) and not isinstance(value, list | Mapping):
        return f'write "{_yaml(value)}", in quotes'
    number = _as_number(value) if isinstance(value, str) else None
    if number is not None and isinstance(default, Real):  # YAML reads 2e-1 as a text
        return f"write {_yaml(number)}, without quotes"
    return f"write {_kind(default)}, such as {_yaml(default)}"


def _yaml(value: Any) -> str:
    """Return a value as YAML 1.1 has it: 1.0e-05, .inf, true."""
    value = value.item() if hasattr(value, "item") else value
    return str(yaml.safe_dump(value, default_flow_style=True, width=math.inf)).splitlines()[0]


def check_device(settings: SorterSettings) -> Iterator[str]:
    """Find a device among the parameters that is not the one of ``sorter.device``."""
    params_of = {"sorter.params": settings.params}
    params_of |= {f"sorter.params_of.{name}": each for name, each in settings.params_of.items()}
    for where, params in params_of.items():
        for param in DEVICE_PARAMS:
            said = str(params.get(param, "auto"))
            if settings.device != "auto" and said.partition(":")[0] not in (
                "auto",
                settings.device,
            ):
                yield (
                    f"config: sorter.device is {settings.device}, but {where}.{param} is {said}: "
                    "remove one of them"
                )


def describe_switched_off(settings: SorterSettings, steps: Iterable[str]) -> Iterator[str]:
    """Name each step that is switched off in the sorter and absent in the preprocessing."""
    done = set(steps)
    for names, param, value, what, replacing in SWITCHES:
        is_off = settings.name in names and settings.params.get(param) == value
        if is_off and not done.intersection(replacing):
            yield (
                f"no {what}: {param} is {str(value).lower()} in sorter.params, and preprocessing "
                f"has no {replacing[0]}"
            )
