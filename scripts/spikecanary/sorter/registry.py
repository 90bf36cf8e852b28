"""Which sorters there are, plugins included, and what each is like: device, batches, parameters."""

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikecanary.config import SorterSettings
from spikecanary.failures import DependencyError, SorterUnavailableError
from spikecanary.texts import did_you_mean

#: SpikeInterface's sorters (0.105), which no plugin defines; known without SpikeInterface, since
#: rules are read where it may not be installed.
BUILT_IN = frozenset(
    (
        *("combinato", "dartsort", "hdsort", "herdingspikes", "ironclust", "kilosort"),
        *("kilosort2", "kilosort2_5", "kilosort3", "kilosort4", "lupin", "mountainsort4"),
        *("mountainsort5", "pykilosort", "rtsort", "simple", "spykingcircus", "spykingcircus2"),
        *("tridesclous", "tridesclous2", "waveclus", "waveclus_snippets", "yass"),
    )
)

#: Parameters by which sorters choose their device; the values are torch's names.
DEVICE_PARAMS = ("torch_device", "device")
#: Sorters that are told by yes or no whether to use a GPU.
GPU_CHOICES = {"ironclust": "fGpu", "kilosort": "useGPU"}
#: Sorters whose parameters SpikeInterface does not list where they are not installed.
DEVICE_PARAM_OF = {"kilosort4": "torch_device"}
#: Sorters that work batch by batch and learn their templates from every 25th batch (kilosort 4.1.7,
#: extract_wPCA_wTEMP: 0, 25, 50, ...; so of a window under 50 s from its first 2 s): the parameters
#: of a batch's length in samples, and of which share of the batches is read at all; their defaults.
BATCHES = {"kilosort4": (("batch_size", 60_000), ("batch_downsampling", 1))}
#: Kilosort in MATLAB, which is handed 16-bit integers.
MATLAB_KILOSORTS = ("kilosort", "kilosort2", "kilosort2_5", "kilosort3")
#: What decides how much GPU memory a sorter takes: the parameter, its default, what its values
#: are multiples of, and the smallest that still works. A batch of kilosort4 must be longer
#: than its spikes (nt 61 samples) by far; NT of the others is a multiple of 32, with a buffer
#: of 64 (ntbuff), and "try decreasing if out of memory" (their config files).
MEMORY_KNOBS = {
    "kilosort4": ("batch_size", 60_000, 1, 5_000),
    **dict.fromkeys(MATLAB_KILOSORTS, ("NT", 65_536, 64, 4_096)),
}
#: Sorters that use no GPU (``gpu_capability`` in SpikeInterface 0.105).
CPU_SORTERS = (
    *("combinato", "hdsort", "herdingspikes", "lupin", "mountainsort4", "mountainsort5", "simple"),
    *("spykingcircus", "spykingcircus2", "tridesclous", "tridesclous2"),
    *("waveclus", "waveclus_snippets"),
)
#: Parameters of kilosort4 (4.1.7) that may be 0 beyond their stated range: no failure is of these.
MAY_BE_ZERO = ("acg_threshold", "ccg_threshold", "cluster_downsampling", "cluster_init_seed")


def load_plugin(path: str | Path) -> list[str]:
    """Run a Python file and register the subclasses of ``BaseSorter`` that it defines, by name.

    Raises DependencyError where the file is missing, or a module that it imports, and
    SorterUnavailableError where it raises something else.
    """
    from spikeinterface.sorters import BaseSorter, sorter_dict

    path = Path(path).absolute()
    spec = importlib.util.spec_from_file_location(f"spikecanary_plugin_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        msg = f"the sorter plugin {path} does not exist, or is no Python file"
        remedy = "Correct sorter.plugin; on a cluster every node has to see that file."
        raise DependencyError(msg, module=str(path), remedy=remedy)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as err:
        msg = f"the sorter plugin {path} cannot be imported: {err}"
        raise DependencyError(msg, module=err.name or str(path)) from err
    except (MemoryError, OSError):
        raise
    except (Exception, SystemExit) as err:
        msg = f"the sorter plugin {path} fails when it is imported: {type(err).__name__}: {err}"
        raise SorterUnavailableError(msg, remedy="Mend the file (sorter.plugin).") from err
    # In the order of their definition: of one name the last counts.
    classes: list[Any] = [value for value in vars(module).values() if inspect.isclass(value)]
    found = {
        cls.sorter_name: cls
        for cls in classes
        if issubclass(cls, BaseSorter) and cls.__module__ == module.__name__
    }
    sorter_dict.update(found)
    return list(found)


def sorter_class(name: str, *, container: bool = False) -> Any:
    """Return SpikeInterface's class of a sorter.

    Raises SorterUnavailableError where there is none, or it is not installed and runs in no
    container.
    """
    from spikeinterface.sorters import sorter_dict

    if name not in sorter_dict:
        known = sorted(sorter_dict)
        msg = f"unknown sorter {name!r}{did_you_mean(name, known)}"
        raise SorterUnavailableError(msg, sorter=name, known=known)
    cls = sorter_dict[name]
    if not container and not cls.is_installed():
        msg = f"the sorter {name} is not installed on this machine"
        raise SorterUnavailableError(msg, sorter=name)
    return cls


def find_sorter(settings: SorterSettings) -> Any:
    """Return the class of a sorter, from its plugin if it has one; raises as the two above do."""
    if settings.plugin:
        load_plugin(settings.plugin)
    return sorter_class(settings.name, container=settings.container is not None)


def defaults_of(name: str) -> dict[str, Any]:
    """Return a sorter's default parameters; none where its package has them and is missing."""
    from spikeinterface.sorters import sorter_dict

    try:
        is_listed = name != "kilosort4" or sorter_dict[name].is_installed()
        return dict(sorter_dict[name].default_params()) if is_listed else {}
    except (ImportError, KeyError):
        return {}


def with_device(defaults: Mapping[str, Any], settings: SorterSettings) -> dict[str, Any]:
    """Return the sorter's parameters with the device set, for sorters that have a choice."""
    params = dict(settings.params)
    if settings.device == "auto":
        return params
    known = [param for param in DEVICE_PARAMS if param in defaults]
    param = DEVICE_PARAM_OF.get(settings.name) or (known[0] if known else None)
    if param is not None:
        params.setdefault(param, settings.device)
    if choice := GPU_CHOICES.get(settings.name):
        params.setdefault(choice, settings.device == "cuda")
    return params


def asked_device(settings: SorterSettings) -> str:
    """Return the device that the sorter is told to use: auto, cpu, cuda, cuda:1, mps."""
    in_params = [str(settings.params[param]) for param in DEVICE_PARAMS if param in settings.params]
    return in_params[0] if in_params else "cpu" if settings.name in CPU_SORTERS else settings.device


def find_out_of_range(settings: SorterSettings) -> dict[str, str]:
    """Return parameters beyond the range that their sorter states, and that range.

    Kilosort (4.1.7) holds them to it in its window alone: what is beyond may work all the same.
    """
    if settings.name != "kilosort4" or settings.container is not None:
        return {}
    from kilosort.parameters import EXTRA_PARAMETERS, MAIN_PARAMETERS

    found, stated = {}, MAIN_PARAMETERS | EXTRA_PARAMETERS
    for name, value in settings.params.items():
        if not isinstance(value, int | float) or stated.get(name, {}).get("min") is None:
            continue
        if not value and name in MAY_BE_ZERO:
            continue
        least, most, never = (stated[name][key] for key in ("min", "max", "exclude"))
        if not least <= value <= most or value in never:
            found[name] = f"{'more than ' * (least in never)}{least} to {most}"
    return found
