"""Check config and table against what SpikeInterface offers, before any job runs."""

import contextlib
import importlib.util
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from spikecanary import config as configuration
from spikecanary import outputs
from spikecanary.config import AnalysisSettings, BadInputError, Config, CurationSettings
from spikecanary.config.pathtypes import not_readable
from spikecanary.config.presets import PREPROCESSING
from spikecanary.failures.signatures import load_signatures
from spikecanary.recording import RATES_DIFFER, preprocessing_steps, readers
from spikecanary.sorter import parameters
from spikecanary.sorter.registry import defaults_of
from spikecanary.table import ID_PATTERN, Recording, read_table, read_valid
from spikecanary.texts import did_you_mean, quote


def read_inputs(settings: Mapping[str, Any]) -> tuple[Config, list[Recording]]:
    """Read config and table without asking SpikeInterface; raise BadInputError if one is bad."""
    config = configuration.load(settings)
    return config, read_table(config.recordings)


def check_inputs(
    settings: Mapping[str, Any], files: Iterable[str | Path] = (), *, own: bool = False
) -> tuple[Config, list[Recording]]:
    """Read config and table, check every name in them, and raise BadInputError with all problems.

    Names of readers, sorters, steps and extensions are checked only where SpikeInterface is
    installed, which Snakemake's own environment need not have. Elsewhere the canaries find them.
    ``files`` are those that the config was read from; ``own``: jobs have environments of their own.
    """
    config, invalid, problems = configuration.load_valid(settings)
    problems += [each for path in files for each in configuration.find_slips(path)]
    rows: list[Recording] = []
    wrong: Iterable[str] = ()
    try:
        if "recordings" not in invalid:
            rows, wrong = read_valid(config.recordings)
    except BadInputError as err:
        wrong = err.problems
    problems += wrong
    problems += check_names(config, rows)
    if has_spikeinterface():
        problems += check_readers(rows, config.recordings)
        problems += check_late(config, rows)
        if "nwb" in config.outputs and not own and not is_installed("neuroconv"):
            hint = "pip install neuroconv, or take nwb out"
            problems.append(f"config: outputs: nwb needs the package neuroconv: {hint}")
        if "sorter" not in invalid:  # its plugin may define the table's sorters
            problems += check_sorters(config, rows)
    problems += [*parameters.check_device(config.sorter, config.params_of), *check_files(config)]
    if not wrong and "recordings" not in invalid:
        where = "config: canary.force: the table has no recording"
        problems += unknown(where, config.canary.force, [row.id for row in rows])
        if config.exports.nwb.by == "session":
            problems += outputs.check_sessions(rows)
            if not any(row.session for row in rows):
                where = "config: exports.nwb.by is session"
                problems.append(f"{where}: the table needs a column session")
    if problems:
        raise BadInputError(problems)
    return config, rows


def has_spikeinterface() -> bool:
    """Return whether SpikeInterface can be imported here: it may be installed and broken."""
    with contextlib.suppress(ImportError):
        import spikeinterface.extractors

        return bool(spikeinterface.extractors)
    return False


def is_installed(package: str) -> bool:
    """Return whether a package is there, without importing it."""
    with contextlib.suppress(ImportError):
        return importlib.util.find_spec(package) is not None
    return False


def left_to_jobs(config: Config) -> dict[str, Any]:
    """Return the settings for :func:`check_late` that are set, where SpikeInterface is not."""
    late = {"analysis", "curation", "exports"}
    return {} if is_installed("spikeinterface") else configuration.as_set(config, include=late)


def check_late(config: Config, rows: list[Recording]) -> list[str]:
    """Check the steps of the preprocessing and of all that follows the sort, by SpikeInterface.

    An analysis other than the default is tried on a made recording.
    """
    problems = [*check_steps(config), *check_analysis(config.analysis)]
    if not problems and config.outputs and config.analysis != AnalysisSettings():
        from spikecanary.outputs import analysis

        refused = analysis.find_refused(config.analysis)
        problems += [f"config: analysis{refused}"] if refused else []
    return [*problems, *check_curation(config), *check_exports(config, rows)]


def unknown(what: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    """Describe each name that is not known, with the nearest one that is."""
    known = list(known)
    return (f"{what} {quote(n)}{did_you_mean(n, known)}" for n in names if n not in known)


@cache
def _parameters(function: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], str]:
    """Return a function's named parameters but the first, and what it calls any others."""
    _, *further = inspect.signature(function).parameters.values()
    named = {p.name: p for p in further if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    return named, "".join(p.name for p in further if p.kind is p.VAR_KEYWORD)


def _in_table(table: str, row: Recording) -> str:
    return f"{table}, line {row.line} (recording {row.id!r})"


def check_readers(rows: list[Recording], table: str) -> Iterator[str]:
    """Find unknown readers, and options that a reader lacks or requires."""
    known = readers()
    for row in rows:
        where = _in_table(table, row)
        if row.reader not in known:
            yield from unknown(f"{where}: unknown reader", [row.reader], known)
            continue
        named, any_others = _parameters(known[row.reader])
        where = f"{where}: reader {row.reader!r}"
        if not any_others:
            yield from unknown(f"{where} has no option", row.reader_options, [*named, RATES_DIFFER])
            if row.stream_id is not None and "stream_id" not in named:
                yield f"{where} has no streams, but stream_id is set"
        required = {name for name, p in named.items() if p.default is p.empty}
        if row.reader == "binary":  # optional in the signature, but it cannot be guessed
            required.add("num_channels")
        if not is_dtype(dtype := row.reader_options.get("dtype")):
            yield f"{where}: no type of numbers: dtype {quote(dtype)}"
        if missing := sorted(required - row.reader_options.keys()):
            yield f"{where} needs reader_options with {', '.join(missing)}"


def check_names(config: Config, rows: list[Recording]) -> Iterator[str]:
    """Find rows that name entries which the config does not have, and sorters that name no file."""
    named_by = {row.sorter: _in_table(config.recordings, row) for row in rows if row.sorter}
    for sorter, where in {config.sorter.name: "config: sorter.name", **named_by}.items():
        if not re.fullmatch(ID_PATTERN, sorter):
            yield f"{where}: a sorter has letters, digits and '.', '_', '-', not {quote(sorter)}"
    for row in rows:
        where = _in_table(config.recordings, row)
        for column in ("preprocessing", "params"):
            named, known = filter(None, [getattr(row, column)]), getattr(config, f"{column}_of")
            what = f"{where}, column {column}: not in the config's {column}_of:"
            yield from unknown(what, named, known)


def check_steps(config: Config) -> Iterator[str]:
    """Find unknown preprocessing steps, and parameters of steps."""
    sections: dict[str, Mapping[str, Any]] = {"preprocessing": config.preprocessing}
    if config.analysis.preprocessing != AnalysisSettings().preprocessing:
        sections["analysis.preprocessing"] = config.analysis.preprocessing
    for name, named in config.preprocessing_of.items():
        sections[f"preprocessing_of.{name}"] = {} if named == PREPROCESSING.get(name) else named
    if any(sections.values()):
        known = preprocessing_steps()
        for section, steps in sections.items():
            yield from unknown(f"config: {section}: unknown step", steps, known)
            for step in filter(known.__contains__, steps):
                further = _handed_on(_parameters(known[step])[1])
                yield from _check_call(f"{section}.{step}", known[step], steps[step], further)


def is_dtype(value: Any) -> bool:
    """Whether NumPy knows a type of numbers by this name; null is another's."""
    try:
        return value is None or np.dtype(value).kind in "iuf"
    except (TypeError, ValueError, SyntaxError):
        return False


def _handed_on(others: str) -> set[str]:
    """Return the parameters of what a preprocessing step hands its others to, where it is known."""
    from spikeinterface.core import get_random_data_chunks
    from spikeinterface.core.recording_tools import get_noise_levels
    from spikeinterface.core.time_series_tools import get_random_sample_slices
    from spikeinterface.preprocessing import detect_bad_channels
    from spikeinterface.preprocessing.filter import FilterRecording

    random = [get_random_data_chunks, get_random_sample_slices]
    behind: dict[str, list[Any]] = {
        "filter_kwargs": [FilterRecording],
        "random_chunk_kwargs": random,
        "noise_levels_kwargs": [get_noise_levels, *random],
        "detect_bad_channels_kwargs": [detect_bad_channels],
    }
    return {name for each in behind.get(others, ()) for name in _parameters(each)[0]}


def _check_call(
    where: str, function: Callable[..., Any], params: Any, further: Iterable[str] = ()
) -> Iterator[str]:
    """Find parameters that a function does not take, nor hands on."""
    named, takes_any = _parameters(function)
    if not isinstance(params or {}, Mapping):
        yield f"config: {where}: takes keys and values (name: value), got {quote(params)}"
    elif further or not takes_any:
        yield from unknown(f"config: {where}: unknown parameter", params or (), [*named, *further])


def check_analysis(settings: AnalysisSettings) -> Iterator[str]:
    """Find unknown extensions, and parameters that they, or the sparsity, do not take."""
    default = AnalysisSettings()
    if settings.sparsity != default.sparsity:
        from spikeinterface.core import estimate_sparsity
        from spikeinterface.core.job_tools import job_keys

        yield from _check_call("analysis.sparsity", estimate_sparsity, settings.sparsity, job_keys)
    if settings.extensions == default.extensions:
        return
    from spikeinterface.core import get_available_analyzer_extensions
    from spikeinterface.core.recording_tools import get_noise_levels
    from spikeinterface.core.sortinganalyzer import get_extension_class
    from spikeinterface.postprocessing import localization_tools

    known = get_available_analyzer_extensions()
    yield from unknown("config: analysis.extensions: unknown extension", settings.extensions, known)
    for name in filter(known.__contains__, settings.extensions):
        params, where = settings.extensions[name] or {}, f"analysis.extensions.{name}"
        extension = get_extension_class(name)
        behind = {
            "noise_levels": get_noise_levels,
            "unit_locations": getattr(localization_tools, f"compute_{params.get('method')}", None),
        }.get(name)
        further = _parameters(behind)[0] if behind else ()
        takes = extension._set_params  # noqa: SLF001 - there is no other signature
        yield from _check_call(where, takes, params, further)
        for key, known_as in _parameters(takes)[0].items():
            numbers = [known_as.default, params.get(key)]
            if all(isinstance(x, int | float) for x in numbers) and numbers[0] >= 0 > numbers[1]:
                yield f"config: {where}.{key} is {numbers[1]}, less than 0"
        metrics = {each.metric_name: each for each in getattr(extension, "metric_list", ())}
        where, of_metrics = f"{where}.metric_params", params.get("metric_params") or {}
        if not isinstance(of_metrics, Mapping):
            yield f"config: {where}: takes keys and values (name: value), got {quote(of_metrics)}"
            continue
        yield from unknown(f"config: {where}: unknown metric", of_metrics, metrics)
        for each in metrics.keys() & of_metrics.keys():
            function, own = metrics[each].metric_function, metrics[each].metric_params
            yield from _check_call(f"{where}.{each}", function, of_metrics[each], own)


def check_curation(config: Config) -> Iterator[str]:
    """Find thresholds of columns that metrics.tsv will not have, and misspelt ones of Bombcell."""
    settings, default = config.curation, CurationSettings()
    extensions = config.analysis.extensions
    if (settings, extensions) == (default, AnalysisSettings().extensions):
        return
    from spikeinterface.core.sortinganalyzer import get_extension_class
    from spikeinterface.curation import bombcell_get_default_thresholds

    made = {name for name, params in extensions.items() if params is not None}
    columns = {"isi_violations_share"}
    columns |= {"x_um", "depth_um"} if "unit_locations" in made else set()
    for name in ("quality_metrics", "template_metrics", "spiketrain_metrics"):
        if (params := extensions.get(name)) is not None:
            chosen = params.get("metric_names")
            for metric in get_extension_class(name).metric_list:
                can_be = all(made.intersection(each.split("|")) for each in metric.depend_on)
                if can_be and (not isinstance(chosen, list) or metric.metric_name in chosen):
                    columns |= {*metric.metric_columns}
    where = "config: curation.thresholds: no column of metrics.tsv"
    yield from unknown(where, settings.limits() if config.outputs else (), columns)
    if isinstance(settings.bombcell, dict):
        labels = bombcell_get_default_thresholds()
        yield from unknown("config: curation.bombcell: unknown label", settings.bombcell, labels)
        known = columns.union(*labels.values())
        for label, limits in settings.bombcell.items():
            where = f"config: curation.bombcell.{label}"
            yield from unknown(f"{where}: unknown metric", limits, known)
            for metric, limit in limits.items():
                what = f"{where}.{metric}: unknown parameter"
                yield from unknown(what, limit, ("greater", "less", "abs"))


def check_exports(config: Config, rows: list[Recording]) -> Iterator[str]:
    """Find arguments that the export to Phy does not take, and what NWB does not take."""
    if config.exports.phy:
        from spikeinterface.core.job_tools import job_keys
        from spikeinterface.exporters import export_to_phy

        to_phy = partial(export_to_phy, None)  # its folder is not to be chosen either
        yield from _check_call("exports.phy", to_phy, config.exports.phy, job_keys)
    by_place = {"config: exports.nwb": config.exports.nwb.model_dump(mode="json", exclude={"by"})}
    seen: list[dict[str, str]] = [{}]
    for row in rows if "nwb" in config.outputs else ():  # of texts, what may not be any
        where = _in_table(config.recordings, row)
        try:
            datetime.fromisoformat(row.metadata.get("session_start_time") or "2000-01-01")
        except ValueError as err:
            yield f"{where}: NWB: {err}"
        columns = {
            name: row.metadata.get(name) for name in ("species", "sex", "age", "date_of_birth")
        }
        subject = {name: value for name, value in columns.items() if value}
        if subject not in seen:
            seen.append(subject)
            by_place[where] = {"NWBFile": {}, "Subject": subject}
    by_place = {where: sections for where, sections in by_place.items() if any(sections.values())}
    if by_place and is_installed("neuroconv"):
        yield from _check_nwb(by_place)


def _check_nwb(by_place: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    """Find fields that NWB does not have, and values that it does not take."""
    from hdmf.utils import get_docval
    from neuroconv.tools.nwb_helpers import make_nwbfile_from_metadata
    from pynwb import NWBFile
    from pynwb.file import Subject

    from spikecanary.outputs import nwb

    needed = {"session_start_time": datetime.now(UTC).isoformat(), "session_description": "x"}
    for where, sections in by_place.items():
        valid = {}
        for section in (NWBFile, Subject):
            name, fields = section.__name__, sections[section.__name__]
            known = [each["name"] for each in get_docval(section.__init__)]
            yield from unknown(f"{where}.{name}: unknown field", fields, known)
            valid[name] = {field: fields[field] for field in known if field in fields}
        file = {"identifier": "x", **needed, **valid["NWBFile"]}
        try:
            with warnings.catch_warnings(action="ignore"):  # dates without a time zone
                make_nwbfile_from_metadata(nwb.complete(file, valid["Subject"]))
        except Exception as err:  # noqa: BLE001 - of jsonschema, hdmf, datetime
            field = "".join(f"{each}: " for each in getattr(err, "path", ()))
            about = getattr(err, "schema", {}).get("description")
            wrong = f"{field}{getattr(err, 'message', err)}"
            yield f"{where}: NWB: {wrong}" + (f" ({about.rstrip('.')})" if about else "")


def check_files(config: Config) -> Iterator[str]:
    """Find files that do not exist or cannot be read, and an image without a container."""
    models = {f"curation.unitrefine.{name}": path for name, path in config.curation.unitrefine}
    files = {"sorter.plugin": config.sorter.plugin, "signatures": config.signatures}
    for key, path in (files | models).items():
        if path is None:
            continue
        if why := not_readable(path):
            yield f"config: {key}: {why}"
        elif key in files and Path(path).is_dir():
            yield f"config: {key}: {path} is a folder, not a file"
        elif key in models and not (path.endswith(".skops") or [*Path(path).glob("*.skops")]):
            yield f"config: {key}: {path} holds no .skops file"
        elif key == "signatures":
            try:
                load_signatures(Path(path))
            except (OSError, ValueError, RecursionError) as err:
                yield f"config: signatures: {err}"
    if config.sorter.image is not None and config.sorter.container is None:
        yield "config: sorter.image is set, but sorter.container is null"


def check_sorters(config: Config, rows: list[Recording]) -> Iterator[str]:
    """Find unknown sorters and unknown parameters of sorters.

    A plugin's code runs in the jobs only, so with one an unknown sorter is no error here.
    """
    from spikeinterface.sorters import sorter_dict

    default, params_of = config.sorter.name, config.sorter.params_of
    named = {"config: sorter.name": default}
    named |= {f"recording {row.id!r}: sorter": row.sorter for row in rows if row.sorter}
    named |= {f"config: sorter.params_of.{name}": name for name in params_of}
    for where, name in named.items() if config.sorter.plugin is None else ():
        yield from unknown(f"{where}: unknown sorter", [name], sorter_dict)
    chosen = {("sorter.params", default): config.sorter.params}
    chosen |= {(f"sorter.params_of.{name}", name): params for name, params in params_of.items()}
    presets = {(row.params, row.sorter or default): row.id for row in rows if row.params}
    for (key, name), row in presets.items():
        place = f"params_of.{key} (recording {row!r})"
        chosen[place, name] = config.params_of.get(key, {})
    for (place, name), params in chosen.items():
        if params and name in sorter_dict and (known := defaults_of(name)):
            yield from unknown(f"config: {place}: {name} has no parameter", params, known)
            yield from (f"config: {place}: {x}" for x in parameters.check_types(name, params))
