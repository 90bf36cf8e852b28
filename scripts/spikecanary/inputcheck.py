"""Check config and table against what SpikeInterface offers, before any job runs."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spikecanary import config as configuration
from spikecanary import parameters
from spikecanary.config import AnalysisSettings, BadInputError, Config, did_you_mean
from spikecanary.failures.signatures import load_signatures
from spikecanary.recording import RATES_DIFFER, readers
from spikecanary.sorter import defaults_of
from spikecanary.table import Recording, read_table


def read_inputs(given: Mapping[str, Any]) -> tuple[Config, list[Recording]]:
    """Read config and table without asking SpikeInterface; raise BadInputError if one is bad."""
    config = configuration.load(given)
    return config, read_table(config.recordings)


def check_inputs(given: Mapping[str, Any]) -> tuple[Config, list[Recording]]:
    """Read config and table and check every name in them.

    Names of readers, sorters, steps and extensions are checked only where SpikeInterface is
    installed, which Snakemake's own environment need not have. Elsewhere the canaries find them.

    Raises
    ------
    BadInputError
        All problems of the config and of the table.
    """
    config, invalid, problems = configuration.load_valid(given)
    rows: list[Recording] | None = None
    try:
        rows = None if "recordings" in invalid else read_table(config.recordings)
    except BadInputError as err:
        problems += err.problems
    problems += check_names(config, rows or [])
    if has_spikeinterface():
        problems += check_readers(rows or [], config.recordings)
        problems += check_steps(config, rows or [])
        if "sorter" not in invalid:  # its plugin may define the table's sorters
            problems += check_sorters(config, rows or [])
    problems += [*parameters.check_device(config.sorter), *check_files(config)]
    if rows is not None:
        where = "config: canary.force: the table has no recording"
        problems += unknown(where, config.canary.force, [row.id for row in rows])
        if config.exports.nwb.by == "session" and not any(row.session for row in rows):
            problems.append("config: exports.nwb.by is session: the table needs a column session")
    if rows is None or problems:
        raise BadInputError(problems)
    return config, rows


def has_spikeinterface() -> bool:
    """Return whether SpikeInterface can be imported here."""
    try:
        import spikeinterface.extractors
    except ImportError:
        return False
    return bool(spikeinterface.extractors)


def unknown(what: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """Describe each name that is not known, with the nearest one that is."""
    known = list(known)
    return (f"{what} {n!r}{did_you_mean(n, known)}" for n in names if n not in known)


def _parameters(function: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], str]:
    """Return a function's named parameters but the first, and what it calls any others."""
    _, *further = inspect.signature(function).parameters.values()
    named = {p.name: p for p in further if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return named, "".join(p.name for p in further if p.kind is p.VAR_KEYWORD)


def check_readers(rows: list[Recording], table: str) -> list[str]:
    """Find unknown readers, and options that a reader lacks or requires."""
    known = readers()
    problems: list[str] = []
    for row in rows:
        where = f"{table}, line {row.line} (recording {row.id!r})"
        if row.reader not in known:
            problems += unknown(f"{where}: unknown reader", [row.reader], known)
            continue
        named, any_others = _parameters(known[row.reader])
        where = f"{where}: reader {row.reader!r}"
        if not any_others:
            known_options = [*named, RATES_DIFFER]
            problems += unknown(f"{where} has no option", row.reader_options, known_options)
            if row.stream_id is not None and "stream_id" not in named:
                problems.append(f"{where} has no streams, but stream_id is set")
        required = {name for name, p in named.items() if p.default is p.empty}
        if row.reader == "binary":  # optional in the signature, but it cannot be guessed
            required.add("num_channels")
        if missing := sorted(required - row.reader_options.keys()):
            problems.append(f"{where} needs reader_options with {', '.join(missing)}")
    return problems


def check_names(config: Config, rows: list[Recording]) -> Iterator[str]:
    """Find rows that name entries which the config does not have."""
    for row in rows:
        where = f"{config.recordings}, line {row.line} (recording {row.id!r})"
        for column in ("preprocessing", "params"):
            named, known = filter(None, [getattr(row, column)]), getattr(config, f"{column}_of")
            what = f"{where}, column {column}: not in the config's {column}_of:"
            yield from unknown(what, named, known)


def check_steps(config: Config, rows: list[Recording]) -> Iterator[str]:
    """Find unknown preprocessing steps, parameters of steps, and extensions."""
    default = AnalysisSettings()
    given: dict[str, Mapping[str, Any]] = {"preprocessing": config.preprocessing}
    for name in dict.fromkeys(filter(None, (row.preprocessing for row in rows))):
        given[f"preprocessing_of.{name}"] = config.preprocessing_of.get(name, {})
    if config.analysis.preprocessing != default.preprocessing:
        given["analysis.preprocessing"] = config.analysis.preprocessing
    if any(given.values()):
        from spikeinterface.preprocessing import PreprocessingPipeline

        known = PreprocessingPipeline.function_names_to_functions
        for section, steps in given.items():
            yield from unknown(f"config: {section}: unknown step", steps, known)
            for step in filter(known.__contains__, steps):
                if accepted := _step_parameters(known[step]):
                    where = f"config: {section}.{step}: unknown parameter"
                    yield from unknown(where, steps[step] or (), accepted)
    if config.analysis.extensions.keys() != default.extensions.keys():
        from spikeinterface.core import get_available_analyzer_extensions

        where = "config: analysis.extensions: unknown extension"
        yield from unknown(where, config.analysis.extensions, get_available_analyzer_extensions())


def _step_parameters(step: Callable[..., Any]) -> set[str]:
    """Return what a step takes, with what it hands on; nothing where that is not known."""
    from spikeinterface.core import get_random_data_chunks
    from spikeinterface.core.recording_tools import get_noise_levels
    from spikeinterface.core.time_series_tools import get_random_sample_slices
    from spikeinterface.preprocessing import detect_bad_channels
    from spikeinterface.preprocessing.filter import FilterRecording

    random = (get_random_data_chunks, get_random_sample_slices)
    behind: dict[str, tuple[Callable[..., Any], ...]] = {
        "": (),
        "filter_kwargs": (FilterRecording,),
        "random_chunk_kwargs": random,
        "noise_levels_kwargs": (get_noise_levels, *random),
        "detect_bad_channels_kwargs": (detect_bad_channels,),
    }
    named, others = _parameters(step)
    if others not in behind:
        return set()
    return {*named, *(name for each in behind[others] for name in _parameters(each)[0])}


def check_files(config: Config) -> Iterator[str]:
    """Find files that do not exist or cannot be read, and an image without a container."""
    models = {f"curation.unitrefine.{name}": path for name, path in config.curation.unitrefine}
    for key, path in ({"sorter.plugin": config.sorter.plugin} | models).items():
        if path is not None and not Path(path).exists():
            yield f"config: {key}: {path} does not exist"
    if config.signatures is not None:
        try:
            load_signatures(Path(config.signatures))
        except (OSError, ValueError) as err:
            yield f"config: signatures: {err}"
    if config.sorter.image is not None and config.sorter.container is None:
        yield "config: sorter.image is set, but sorter.container is null"


def check_sorters(config: Config, rows: list[Recording]) -> Iterator[str]:
    """Find unknown sorters and unknown parameters of sorters.

    A plugin's code runs in the jobs only, so a sorter that it may define is not an error here: one
    that its text names, or whose name is like no other.
    """
    from spikeinterface.sorters import sorter_dict

    plugin = Path(config.sorter.plugin or "")
    text = plugin.read_text(encoding="utf-8", errors="replace") if plugin.is_file() else ""
    named = {"config: sorter.name": config.sorter.name}
    named |= {f"recording {row.id!r}: sorter": row.sorter for row in rows if row.sorter}
    named |= {f"config: sorter.params_of.{name}": name for name in config.sorter.params_of}
    for where, name in named.items():
        for problem in unknown(f"{where}: unknown sorter", [name], sorter_dict):
            if not text or (name not in text and "did you mean" in problem):
                yield problem
    given = [("sorter.params", config.sorter.name, config.sorter.params)]
    given += [(f"sorter.params_of.{name}", name, p) for name, p in config.sorter.params_of.items()]
    presets = {(row.params, row.sorter or config.sorter.name): None for row in rows if row.params}
    given += [(f"params_of.{key}", name, config.params_of.get(key, {})) for key, name in presets]
    for key, name, params in given:
        if params and name in sorter_dict and (known := defaults_of(name)):
            yield from unknown(f"config: {key}: {name} has no parameter", params, known)
            yield from (f"config: {key}: {each}" for each in parameters.check_types(name, params))
