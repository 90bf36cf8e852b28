"""Check config and table against what SpikeInterface offers, before any job runs."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikecanary import config as configuration
from spikecanary.config import BadInputError, Config, did_you_mean
from spikecanary.outputs import AnalysisSettings, switched_on
from spikecanary.recording import readers
from spikecanary.table import Recording, read_table


def read_inputs(given: Mapping[str, Any]) -> tuple[Config, list[Recording]]:
    """Read config and table without looking at what SpikeInterface offers.

    Raises
    ------
    BadInputError
        All problems of the config, or all of the table.
    """
    config = configuration.load(given)
    return config, read_table(config.recordings)


def check_inputs(given: Mapping[str, Any]) -> tuple[Config, list[Recording]]:
    """Read config and table and check every name in them.

    Names of readers, sorters, steps and extensions are checked where SpikeInterface is installed:
    the environment of snakemake need not have it. Elsewhere the plan and the canaries find them.

    Raises
    ------
    BadInputError
        All problems that were found, in the config and in the table.
    """
    config, wrong, problems = configuration.load_right(given)
    rows: list[Recording] | None = None
    table = config.recordings
    try:
        rows = None if "recordings" in wrong else read_table(table)
    except BadInputError as err:
        problems += err.problems
    if has_spikeinterface():
        problems += check_names(config, rows or [], table)
        if "sorter" not in wrong:  # its plugin may define what the table names
            problems += check_sorters(config, rows or [])
    if "sorter" not in wrong:
        problems += check_sorter_files(config)
    problems += check_models(config)
    problems += check_force(config, rows)
    if rows is None or problems:
        raise BadInputError(problems)
    return config, rows


def has_spikeinterface() -> bool:
    """Whether SpikeInterface can be imported where the rules are read."""
    try:
        import spikeinterface.extractors
    except ImportError:
        return False
    return bool(spikeinterface.extractors)


def check_names(config: Config, rows: list[Recording], table: str) -> list[str]:
    """Find names of readers, steps and extensions that SpikeInterface does not have."""
    return [
        *check_readers(rows, table),
        *check_preprocessing(config),
        *check_extensions(config),
    ]


def check_readers(rows: list[Recording], table: str) -> list[str]:
    """Find unknown readers, and options that a reader does not have or lacks."""
    known = readers()
    problems = []
    for row in rows:
        where = f"{table}, line {row.line} (recording {row.id!r})"
        if row.reader not in known:
            hint = did_you_mean(row.reader, known)
            problems.append(f"{where}: unknown reader {row.reader!r}{hint}")
            continue
        problems += [f"{where}: {problem}" for problem in _check_options(row, known[row.reader])]
    return problems


def _check_options(row: Recording, reader: Any) -> list[str]:
    """Compare a row's reader options with the reader's signature."""
    parameters = list(inspect.signature(reader).parameters.values())
    named = {p.name: p for p in parameters[1:] if p.kind is not p.VAR_KEYWORD}
    problems = []
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        problems += [
            f"reader {row.reader!r} has no option {option!r}{did_you_mean(option, named)}"
            for option in row.reader_options
            if option not in named
        ]
        if row.stream_id is not None and "stream_id" not in named:
            problems.append(f"reader {row.reader!r} has no streams, but stream_id is set")
    needed = [
        name for name, p in named.items() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL
    ]
    if row.reader == "binary":  # optional in the signature, but it cannot guess it
        needed.append("num_channels")
    missing = [name for name in needed if name not in row.reader_options]
    if missing:
        problems.append(f"reader {row.reader!r} needs reader_options with {', '.join(missing)}")
    return problems


def check_preprocessing(config: Config) -> list[str]:
    """Find unknown preprocessing steps and parameters of steps."""
    given = {"preprocessing": config.preprocessing}
    if config.analysis.preprocessing != AnalysisSettings().preprocessing:
        given["analysis.preprocessing"] = switched_on(config.analysis.preprocessing)
    if not any(given.values()):
        return []
    from spikeinterface.preprocessing import PreprocessingPipeline

    known = PreprocessingPipeline.function_names_to_functions
    problems = []
    for section, step, params in (
        (section, step, params)
        for section, steps in given.items()
        for step, params in steps.items()
    ):
        key = f"config: {section}.{step}"
        if step not in known:
            problems.append(f"{key}: unknown step{did_you_mean(step, known)}")
            continue
        accepted = inspect.signature(known[step]).parameters
        if any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
            continue
        problems += [
            f"{key}.{name}: unknown parameter{did_you_mean(name, accepted)}"
            for name in params
            if name not in accepted
        ]
    return problems


def check_extensions(config: Config) -> list[str]:
    """Find unknown extensions of the analysis."""
    extensions = config.analysis.extensions
    if extensions.keys() == AnalysisSettings().extensions.keys():
        return []
    from spikeinterface.core import get_available_analyzer_extensions

    known = get_available_analyzer_extensions()
    return [
        f"config: analysis.extensions: unknown extension {name!r}{did_you_mean(name, known)}"
        for name in extensions
        if name not in known
    ]


def check_models(config: Config) -> list[str]:
    """Find models of the curation that are not there."""
    models = config.curation.unitrefine.model_dump(exclude_none=True)
    return [
        f"config: curation.unitrefine.{name}: {path} does not exist"
        for name, path in models.items()
        if not Path(path).exists()
    ]


def check_sorter_files(config: Config) -> list[str]:
    """Find a plugin that is not there, and an image without a container."""
    problems = []
    plugin = config.sorter.plugin
    if plugin is not None and not Path(plugin).is_file():
        problems.append(f"config: sorter.plugin: {plugin} does not exist")
    if config.sorter.image is not None and config.sorter.container is None:
        problems.append("config: sorter.image is set, but sorter.container is null")
    return problems


def check_sorters(config: Config, rows: list[Recording]) -> list[str]:
    """Find unknown sorters and unknown parameters of sorters.

    A sorter that a plugin is to define is looked for in the plugin's text only: its
    code runs in the jobs, whose verdict tells if it does not define it.
    """
    from spikeinterface.sorters import sorter_dict

    plugin_text = ""
    problems = []
    if config.sorter.plugin is not None:
        plugin = Path(config.sorter.plugin)
        if plugin.is_file():
            plugin_text = plugin.read_text(encoding="utf-8", errors="replace")
    named = {"config: sorter.name": config.sorter.name}
    named |= {f"recording {row.id!r}: sorter": row.sorter for row in rows if row.sorter}
    named |= {f"config: sorter.params_of.{name}": name for name in config.sorter.params_of}
    for where, name in named.items():
        if name not in sorter_dict and not _plugin_may_define(name, plugin_text):
            problems.append(f"{where}: unknown sorter {name!r}{did_you_mean(name, sorter_dict)}")
    params_of = {**config.sorter.params_of, config.sorter.name: config.sorter.params}
    for name, params in params_of.items():
        problems += _check_params(name, params)
    return problems


def _plugin_may_define(name: str, plugin_text: str) -> bool:
    """Whether a plugin may define that sorter: it names it, or the name is like no other."""
    from spikeinterface.sorters import sorter_dict

    if not plugin_text:
        return False
    return name in plugin_text or "did you mean" not in did_you_mean(name, sorter_dict)


def _check_params(name: str, params: Mapping[str, Any]) -> list[str]:
    """Find parameters that an installed sorter does not have."""
    from spikeinterface.sorters import sorter_dict

    if not params or name not in sorter_dict:
        return []
    cls = sorter_dict[name]
    if name == "kilosort4" and not cls.is_installed():  # its parameters are in its own package
        return []
    known = cls.default_params()
    return [
        f"config: sorter.params: {name} has no parameter {param!r}{did_you_mean(param, known)}"
        for param in params
        if param not in known
    ]


def check_force(config: Config, rows: list[Recording] | None) -> list[str]:
    """Find forced recordings that the table does not have."""
    known = [row.id for row in rows or []]
    return [
        f"config: canary.force: no recording {name!r} in {config.recordings}"
        f"{did_you_mean(name, known)}"
        for name in config.canary.force
        if rows is not None and name not in known
    ]
