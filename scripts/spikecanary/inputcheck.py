"""Check config and table against what SpikeInterface offers, before any job runs."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spikecanary import config as configuration
from spikecanary.config import AnalysisSettings, BadInputError, Config, did_you_mean, switched_on
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
    try:
        rows = None if "recordings" in wrong else read_table(config.recordings)
    except BadInputError as err:
        problems += err.problems
    if has_spikeinterface():
        problems += _check_readers(rows or [], config.recordings)
        problems += _check_preprocessing(config)
        problems += _check_extensions(config)
        if "sorter" not in wrong:  # its plugin may define what the table names
            problems += _check_sorters(config, rows or [])
    if "sorter" not in wrong:
        problems += _check_sorter_files(config)
    problems += [
        f"config: curation.unitrefine.{name}: {path} does not exist"
        for name, path in config.curation.unitrefine.model_dump(exclude_none=True).items()
        if not Path(path).exists()
    ]
    if rows is not None:
        where = f"config: canary.force: no recording {{}} in {config.recordings}"
        problems += _find_unknown(config.canary.force, [row.id for row in rows], where)
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


def _find_unknown(names: Iterable[str], known: Iterable[str], message: str) -> list[str]:
    """Describe the names that are not known, each with the nearest known one."""
    known = list(known)
    return [
        message.format(repr(name)) + did_you_mean(name, known)
        for name in names
        if name not in known
    ]


def _find_unknown_arguments(
    names: Iterable[str], function: Callable[..., Any], message: str
) -> list[str]:
    """Describe the names that a function does not take as arguments."""
    accepted = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        return []
    return _find_unknown(names, accepted, message)


def _check_readers(rows: Iterable[Recording], table: str) -> Iterator[str]:
    """Find unknown readers, and options that a reader does not have or lacks."""
    known = readers()
    for row in rows:
        where = f"{table}, line {row.line} (recording {row.id!r}): "
        if row.reader not in known:
            yield from _find_unknown([row.reader], known, f"{where}unknown reader {{}}")
            continue
        reader = known[row.reader]
        message = f"{where}reader {row.reader!r} has no option {{}}"
        yield from _find_unknown_arguments(row.reader_options, reader, message)
        if row.stream_id is not None and _find_unknown_arguments(["stream_id"], reader, ""):
            yield f"{where}reader {row.reader!r} has no streams, but stream_id is set"
        if missing := _missing_options(row, reader):
            needed = ", ".join(missing)
            yield f"{where}reader {row.reader!r} needs reader_options with {needed}"


def _missing_options(row: Recording, reader: Any) -> list[str]:
    """Return the options that a reader needs and a row does not give."""
    parameters = list(inspect.signature(reader).parameters.values())[1:]  # the path is the first
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    if row.reader == "binary":  # optional in the signature, but it cannot guess it
        needed.append("num_channels")
    return [name for name in needed if name not in row.reader_options]


def _check_preprocessing(config: Config) -> Iterator[str]:
    """Find unknown preprocessing steps and parameters of steps."""
    sections = {"preprocessing": config.preprocessing}
    if config.analysis.preprocessing != AnalysisSettings().preprocessing:
        sections["analysis.preprocessing"] = switched_on(config.analysis.preprocessing)
    if not any(sections.values()):
        return
    from spikeinterface.preprocessing import PreprocessingPipeline

    known = PreprocessingPipeline.function_names_to_functions
    for section, steps in sections.items():
        for step, params in steps.items():
            where = f"config: {section}.{step}"
            if step not in known:
                yield f"{where}: unknown step{did_you_mean(step, known)}"
                continue
            for name in params:
                message = f"{where}.{name}: unknown parameter"
                yield from _find_unknown_arguments([name], known[step], message)


def _check_extensions(config: Config) -> list[str]:
    """Find unknown extensions of the analysis."""
    extensions = config.analysis.extensions
    if extensions.keys() == AnalysisSettings().extensions.keys():
        return []
    from spikeinterface.core import get_available_analyzer_extensions

    known = get_available_analyzer_extensions()
    return _find_unknown(extensions, known, "config: analysis.extensions: unknown extension {}")


def _check_sorter_files(config: Config) -> Iterator[str]:
    """Find a plugin that does not exist, and an image without a container."""
    plugin = config.sorter.plugin
    if plugin is not None and not Path(plugin).is_file():
        yield f"config: sorter.plugin: {plugin} does not exist"
    if config.sorter.image is not None and config.sorter.container is None:
        yield "config: sorter.image is set, but sorter.container is null"


def _check_sorters(config: Config, rows: Iterable[Recording]) -> Iterator[str]:
    """Find unknown sorters and unknown parameters of sorters.

    A sorter that a plugin is to define is looked for in the plugin's text only: its
    code runs in the jobs, whose verdict tells if it does not define it.
    """
    from spikeinterface.sorters import sorter_dict

    plugin_text = ""
    if config.sorter.plugin is not None and Path(config.sorter.plugin).is_file():
        plugin_text = Path(config.sorter.plugin).read_text(encoding="utf-8", errors="replace")
    named = {"config: sorter.name": config.sorter.name}
    named |= {f"recording {row.id!r}: sorter": row.sorter for row in rows if row.sorter}
    named |= {f"config: sorter.params_of.{name}": name for name in config.sorter.params_of}
    for where, name in named.items():
        if name in sorter_dict:
            continue
        hint = did_you_mean(name, sorter_dict)
        # A plugin may define a sorter that its text names, or whose name is like no other.
        if not plugin_text or (name not in plugin_text and "did you mean" in hint):
            yield f"{where}: unknown sorter {name!r}{hint}"
    params_of = {**config.sorter.params_of, config.sorter.name: config.sorter.params}
    for name, params in params_of.items():
        cls = sorter_dict.get(name)
        # Kilosort 4's parameters are in its own package.
        if not params or cls is None or (name == "kilosort4" and not cls.is_installed()):
            continue
        message = f"config: sorter.params: {name} has no parameter {{}}"
        yield from _find_unknown(params, cls.default_params(), message)
