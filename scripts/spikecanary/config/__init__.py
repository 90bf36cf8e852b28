"""The configuration: typed, frozen models, and the problems of a bad one."""

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    NonNegativeInt,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    SerializationInfo,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from spikecanary.config.pathtypes import Folder, UserPath
from spikecanary.config.presets import PREPROCESSING
from spikecanary.failures import CATEGORIES, Category
from spikecanary.texts import count, did_you_mean, one_line, quote

#: Less than this, in s, holds nothing to sort.
SHORTEST_S = 0.1
#: Less memory than this holds no sorter: it was meant in GB.
LEAST_MEM_MB = 100
#: A problem lists all names that are known.
LONGEST_PROBLEM = 1_000

Output = Literal["units", "figures", "phy", "nwb", "npz", "mat", "report"]
#: What to say instead of pydantic's own message, by the error's type or the first word of it.
MESSAGES = {
    "model": "takes keys and values (name: value)",
    "dict": "takes keys and values (name: value)",
    "list": "takes a list ([a, b])",
    "bool": "takes true or false",
    "int": "takes a whole number",
    "float": "takes a number",
    "string_type": "takes a text; put it in quotes",
    "string_too_short": "is empty",
    "string_pattern_mismatch": "takes a folder, without ~, $, {, }, <, > and control characters",
}


class BadInputError(ValueError):
    """All problems of the user's config and table, found before any job runs."""

    def __init__(self, problems: Iterable[str]) -> None:
        lines = (one_line(problem, LONGEST_PROBLEM) for problem in problems)
        self.problems = list(dict.fromkeys(lines))
        heading = f"{count(len(self.problems), 'problem')} in the configuration or the table:"
        pages = "\nEvery key: docs/settings.md. Every column: docs/own-data.md."
        super().__init__("\n  - ".join([heading, *self.problems]) + pages)


def as_steps(value: Any) -> Any:
    """Return pairs as a dict."""
    try:
        return dict(value) if isinstance(value, list | tuple) else value
    except (TypeError, ValueError):  # no pairs
        return value


def _keep_order(steps: dict[str, Any], info: SerializationInfo) -> Any:
    """Return steps as pairs where keys are sorted, so that they keep their order."""
    return list(steps.items()) if info.exclude_defaults else steps


#: Steps of SpikeInterface with their parameters, in their order.
Steps = Annotated[
    dict[str, dict[str, Any]], BeforeValidator(as_steps), PlainSerializer(_keep_order)
]


def merge(default: Any, override: Any) -> Any:
    """Merge a dict over the default's, at every level, as Snakemake merges config files.

    Pairs are a dict, too, which keeps the order of steps where keys are sorted.
    """
    if isinstance(default, BaseModel):
        default = default.model_dump(exclude_defaults=True)
    override = as_steps(override) if isinstance(default, dict) else override
    if not (isinstance(default, dict) and isinstance(override, dict)):
        return override
    return default | {name: merge(default.get(name), value) for name, value in override.items()}


class Settings(BaseModel):
    """A section of the configuration. Unknown keys are errors; a dict is merged over its default.

    The string below a field is its description in the JSON schema and in docs/settings.md.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _over_default(cls, value: Any, info: ValidationInfo) -> Any:
        """Keep the default's entries that the user did not set; `yes` is no number."""
        default = cls.model_fields[info.field_name or ""].default
        if isinstance(value, bool) and not isinstance(default, bool):
            msg = "takes no true or false (YAML's yes, no, on, off)"
            raise ValueError(msg)  # noqa: TRY004 - pydantic tells no TypeError
        return merge(default, value)


class MergedSettings(Settings):
    """A section with dicts of which, where defaults are left out, only what differs is told."""

    @field_serializer("preprocessing", "extensions", "thresholds", check_fields=False)
    def _changed(self, value: dict[str, Any], info: FieldSerializationInfo) -> Any:
        default = type(self).model_fields[info.field_name].default if info.exclude_defaults else {}
        changed = {
            k: v.model_dump(exclude_defaults=True) if isinstance(v, BaseModel) else v
            for k, v in value.items()
            if k not in default or v != default[k]
        }
        return _keep_order(changed, info) if info.field_name == "preprocessing" else changed


class SorterSettings(Settings):
    """The sorter and where it runs."""

    name: str = "kilosort4"
    """The sorter, by its SpikeInterface name."""
    params: dict[str, Any] = {}
    """Parameters that differ from the sorter's defaults."""
    params_of: dict[str, dict[str, Any]] = {}
    """Parameters of other sorters, by sorter, for rows that name one in the column `sorter`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The compute device, for sorters that can use a CPU or a GPU."""
    container: Literal["docker", "singularity"] | None = None
    """Run the sorter in this kind of container; null: directly on this machine."""
    image: str | None = None
    """Container image; null: SpikeInterface's image of the sorter."""
    plugin: UserPath | None = None
    """A Python file that defines your own sorter class."""
    keep_output: bool = True
    """Keep the sorter's own files in `sorter_output/`, without its copies of the data."""


class CanarySettings(Settings):
    """The canary, and which failures stop a recording."""

    window_s: Annotated[float, Field(allow_inf_nan=True)] = 30
    """How much of each recording the canary sorts, in s; 0 or less: no canary."""
    min_recording_s: Annotated[float, Field(ge=0)] = 120
    """Recordings shorter than this, in s, get no canary."""
    check_finite: bool = True
    """Read recordings of floating-point numbers whole, to find samples that are NaN or infinite."""
    bad_periods: Literal["warn", "stop", "silence"] = "warn"
    """Stretches without a signal: `warn` of them, `stop`, or `silence` them (zeros are sorted)."""
    force: list[str] = []
    """Recordings to sort whatever their verdict."""
    stop_on: list[Category] = list(CATEGORIES)
    """Categories of failures that stop a recording."""

    @field_validator("window_s")
    @classmethod
    def _no_window(cls, value: float) -> float:
        """Read a window that is negative or not finite as 0: no canary."""
        if 0 < value < SHORTEST_S:
            msg = f"a window is at least {SHORTEST_S:g} s long (0: no canary)"
            raise ValueError(msg)
        return value if math.isfinite(value) and value > 0 else 0.0


class GateSettings(Settings):
    """How recordings are grouped for the checkpoint."""

    wave_size: PositiveInt = 50
    """Number of table rows whose verdicts are read together."""


class PreflightSettings(Settings):
    """Checks of the node before each canary and sort."""

    strict: bool = False
    """Treat the preflight's warnings as failures."""


class WatchdogSettings(Settings):
    """When a running canary or sort is ended; null turns a watchdog off."""

    inactivity_base_s: PositiveFloat | None = 600
    """End a full sort that is silent and idle for this long, in s. Long recordings get more."""
    silence_times: PositiveFloat | None = 3
    """End one that uses CPU but does nothing else, after so many times as long as an idle one."""
    min_free_ram_mb: PositiveFloat | None = 500
    """End a sort that holds most of the node's memory when less than this is free, in MB."""
    min_free_disk_mb: PositiveFloat | None = 500
    """End a sort when less disk space than this is free, in MB."""
    gpu_memory_abort_percent: Annotated[float, Field(gt=0, le=100)] | None = None
    """End a sort when more than this share of its GPU's memory is used, in percent."""
    gpu_abort_c: PositiveFloat | None = None
    """End a sort when its GPU is hotter than this, in degrees Celsius."""
    io_stall_s: PositiveFloat | None = 300
    """End a sort that waits for storage for this long, in s."""


class RetrySettings(Settings):
    """What a canary or full sort retries within its job."""

    gpu_memory_times: NonNegativeInt = 2
    """How often a sort that runs out of GPU memory is retried with smaller batches."""


class ForecastSettings(Settings):
    """What a full sort may request; a recording that needs more is stopped."""

    safety: Annotated[float, Field(ge=1, le=100)] = 1.5
    """A job requests the high end of its forecast times this factor."""
    max_runtime_min: PositiveInt = 2_880
    """The most time a canary or sort may request, in min."""
    max_mem_mb: Annotated[int, Field(ge=LEAST_MEM_MB)] = 28_000
    """The most memory a canary or sort may request, in MB."""
    max_disk_mb: PositiveInt = 1_000_000
    """The most disk a sort may request, in MB."""


class JobSettings(Settings):
    """What jobs request."""

    threads: PositiveInt = 4
    """Cores of a canary or sort."""
    mem_mb: Annotated[int, Field(ge=LEAST_MEM_MB)] = 24_000
    """Memory of a canary, and of a sort without a forecast, in MB."""
    canary_runtime_min: PositiveInt = 60
    """Time limit of a canary, in min."""
    sort_runtime_min: PositiveInt = 1_440
    """Time limit of a sort without a forecast, in min."""
    output_mem_mb: PositiveInt = 8_000
    """Memory of the analysis and of each output, in MB."""
    gpu: NonNegativeInt | None = None
    """GPUs of a canary or sort, leased from those of the machine; null: 1 where it may use one."""
    scratch: Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f]+$")] | None = None
    """A folder of the node, such as `$TMPDIR`, where canaries and sorts work; null: the results."""


class AnalysisSettings(MergedSettings):
    """The SortingAnalyzer: its traces, its channels, its extensions."""

    preprocessing: dict[str, dict[str, Any] | None] = {
        "highpass_filter": {"freq_min": 300.0, "dtype": "float32"}
    }
    """Steps for waveforms and traces, after the sort's own `preprocessing`; null removes one."""
    sparsity: dict[str, Any] = {"method": "radius", "radius_um": 100.0}
    """Which channels belong to a unit: arguments of SpikeInterface's estimate_sparsity."""
    duplicated_spikes_ms: PositiveFloat | None = 0.3
    """Spikes of one unit closer than this, in ms, are duplicates; one is kept. Null: keep all."""
    redundant_units: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    """Of two units that share this fraction of their spikes, keep the larger; null: keep both."""
    extensions: dict[str, dict[str, Any] | None] = {
        "random_spikes": {"max_spikes_per_unit": 500, "seed": 0},
        "waveforms": {"ms_before": 1.0, "ms_after": 2.0},
        "templates": {"operators": ["average", "std"]},
        "noise_levels": {},
        "spike_amplitudes": {},
        "unit_locations": {"method": "monopolar_triangulation"},
        "spike_locations": {"method": "center_of_mass"},
        "correlograms": {"window_ms": 50.0, "bin_ms": 1.0},
        "template_similarity": {},
        "template_metrics": {},
        "quality_metrics": {},
    }
    """Extensions to compute, with their parameters; null removes one."""


class Threshold(Settings):
    """Limits of a metric, inclusive."""

    greater: float | None = None
    """At least this."""
    less: float | None = None
    """At most this."""
    abs: bool = False
    """Compare the absolute value."""

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        """Refuse a threshold without a limit."""
        if self.greater is None and self.less is None:
            msg = "a threshold needs `greater`, `less` or both"
            raise ValueError(msg)
        if self.greater is not None and self.less is not None and self.greater > self.less:
            msg = "nothing is at least `greater` and at most `less`"
            raise ValueError(msg)
        return self


class UnitRefineSettings(Settings):
    """UnitRefine's classifiers, on disk."""

    noise_neural: UserPath | None = None
    """Folder or .skops file of the noise or neural classifier."""
    sua_mua: UserPath | None = None
    """Folder or .skops file of the single-unit or multi-unit classifier."""


class CurationSettings(MergedSettings):
    """The label of each unit."""

    label_by: Literal["thresholds", "bombcell", "unitrefine"] = "thresholds"
    """Which method decides the unit's `label`."""
    thresholds: dict[str, Threshold | None] = {
        "firing_rate": Threshold(greater=0.05),
        "isi_violations_share": Threshold(less=0.01),
        "snr": Threshold(greater=5.0),
        "num_spikes": Threshold(greater=50),
    }
    """Limits of columns of metrics.tsv: a unit within all is `good`, else `mua`; null: no limit."""
    bombcell: bool | dict[str, dict[str, dict[str, Any]]] = True
    """Bombcell's labels: true for its own thresholds, a dict for others, false for none."""
    unitrefine: UnitRefineSettings = UnitRefineSettings()
    manual: Literal["phy", "gui"] | None = None
    """Work by hand that all outputs follow: in the Phy folder, or in SpikeInterface's GUI."""

    def limits(self) -> dict[str, Threshold]:
        """Return the thresholds that are not null."""
        return {name: limit for name, limit in self.thresholds.items() if limit is not None}

    @model_validator(mode="after")
    def _label_is_made(self) -> Self:
        """Refuse to label by a method that is off."""
        off = {
            "bombcell": not self.bombcell and "set bombcell to true",
            "unitrefine": not any(dict(self.unitrefine).values()) and "name a model in unitrefine",
        }
        if remedy := off.get(self.label_by):
            msg = f"label_by is {self.label_by}, but {self.label_by} is off: {remedy}"
            raise ValueError(msg)
        return self


class NwbSettings(Settings):
    """NWB files: metadata of all recordings, and one more file for each session."""

    by: Literal["recording", "session"] = "recording"
    """`session`: one more file for all recordings of a session (columns `subject`, `session`)."""
    NWBFile: dict[str, Any] = {}
    """Fields of the file, such as lab and institution."""
    Subject: dict[str, Any] = {}
    """Fields of the subject, such as species."""


class ExportSettings(Settings):
    """Options of the exports."""

    phy: dict[str, Any] = {}
    """Arguments of SpikeInterface's export_to_phy; data are copied if Phy cannot read the file."""
    nwb: NwbSettings = NwbSettings()
    unit_pages: NonNegativeInt = 50
    """Units that have a page in `figures/units/`: those with the most spikes."""


class Config(Settings):
    """The whole configuration."""

    recordings: UserPath = "config/recordings.tsv"
    """The recordings table, a TSV file."""
    preprocessing: Steps = {}
    """Steps of SpikeInterface's PreprocessingPipeline, in order."""
    preprocessing_of: dict[str, Steps] = PREPROCESSING
    """Steps by name, for rows that name one in the column `preprocessing`; `none`: no step."""
    params_of: dict[str, dict[str, Any]] = {"kilosort4_tetrodes": {"nblocks": 0}}
    """Parameters of the sorter by name, for rows that name one in the column `params`."""
    sorter: SorterSettings = SorterSettings()
    canary: CanarySettings = CanarySettings()
    preflight: PreflightSettings = PreflightSettings()
    watchdogs: WatchdogSettings = WatchdogSettings()
    retry: RetrySettings = RetrySettings()
    forecast: ForecastSettings = ForecastSettings()
    gate: GateSettings = GateSettings()
    outputs: list[Output] = ["units", "figures", "phy", "nwb"]
    """What to make of each sorting; an empty list: nothing more."""
    analysis: AnalysisSettings = AnalysisSettings()
    curation: CurationSettings = CurationSettings()
    exports: ExportSettings = ExportSettings()
    signatures: UserPath | None = None
    """A YAML file of messages and stack frames that tell failures, the laboratory's own."""
    job: JobSettings = JobSettings()
    pathvars: dict[Literal["results", "logs", "benchmarks", "resources"], Folder] = {}
    """Snakemake's path variables: results, logs, benchmarks."""


def load(config: Mapping[str, Any]) -> Config:
    """Return the typed config, with defaults for empty sections; raise all its problems."""
    loaded, _, problems = load_valid(config)
    if problems:
        raise BadInputError(problems)
    return loaded


def load_valid(config: Any) -> tuple[Config, set[str], list[str]]:
    """Return the config with defaults for invalid sections, their names, and all problems."""
    if not isinstance(config, Mapping):  # of a module
        problem = f"config: takes keys and values (key: value), got {config}"
        return Config(), {"recordings"}, [problem]
    settings = {key: value for key, value in config.items() if value is not None}
    try:  # records hold settings as JSON
        json.dumps(settings, ensure_ascii=False, default=str, skipkeys=True).encode()
    except (ValueError, RecursionError) as err:
        return Config(), {"recordings"}, [f"config: cannot be kept in records: {err}"]
    try:
        return Config.model_validate(settings), set(), []
    except ValidationError as err:
        # Of what is a boolean or a dict, what is wrong with the dict.
        errors = [e for e in err.errors() if (e["loc"][-1], e["type"][:5]) != ("bool", "bool_")]
    problems = [_describe(error) for error in errors]
    invalid = {str(error["loc"][0]) for error in errors if len(error["loc"]) == 1}
    # What else is wrong in a section is told, too.
    valid = {key: value for key, value in settings.items() if isinstance(key, str)}
    try:
        for error in errors:
            valid = _without(valid, error["loc"])
        return Config.model_validate(valid), invalid, problems
    except ValidationError:
        return Config(), {*settings}, problems


def _without(settings: Any, loc: Sequence[Any]) -> Any:
    """Return a config without the key that pydantic names, as far as it is one of the config's."""
    first, *further = loc
    if not isinstance(settings, Mapping) or first not in settings:
        return settings
    remainder = _without(settings[first], further) if further else None
    others = {key: value for key, value in settings.items() if key != first}
    return (
        others
        if remainder is None or remainder == settings[first]
        else {**others, first: remainder}
    )


def find_slips(path: str | Path) -> Iterator[str]:
    """Find keys of a YAML file that stand twice, and numbers that YAML 1.1 takes for others."""
    import yaml  # not in the environment of tables and report

    def walk(node: Any) -> Iterator[str]:
        lines: dict[str, int] = {}
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            line = key.start_mark.line + 1
            if (first := lines.setdefault(str(key.value), line)) != line:
                yield f"{path}, line {line}: {quote(key.value)} is in line {first} already"
            if value.tag.endswith(("int", "float")) and re.search("^[-+]?0[0-7_]+$|:", value.value):
                what = f"{value.value} is read as {(read := yaml.safe_load(value.value))}"
                yield f"{path}, line {line}: {what}; write {read} or the number that is meant"
            yield from walk(value)

    with contextlib.suppress(OSError, ValueError, yaml.YAMLError, RecursionError):
        yield from walk(yaml.compose(Path(path).read_text()) if Path(path).is_file() else None)


def as_set(settings: BaseModel, **include_or_exclude: Any) -> dict[str, Any]:
    """Return the values that are not the default, as plain data with sorted keys.

    So neither a new key nor the order of keys in a file changes the parameters of jobs.
    """
    dumped = settings.model_dump(mode="json", exclude_defaults=True, **include_or_exclude)
    return cast("dict[str, Any]", json.loads(json.dumps(dumped, sort_keys=True)))


def _describe(error: Mapping[str, Any]) -> str:
    """Describe one of pydantic's errors in one line: where, what, what to do."""
    hidden = re.compile(r"\[key\]|dict\[")  # pydantic's words for a key, and for a kind of value
    *parents, name = (str(each) for each in error["loc"] if not hidden.match(str(each)))
    where = "config: " + ".".join([*parents, name])
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        hint = did_you_mean(error["input"], re.findall("'([^']+)'", error["msg"]))
        return f"{where}: unknown value {quote(error['input'])}{hint}"
    if error["type"] != "extra_forbidden":
        known = MESSAGES.get(error["type"]) or MESSAGES.get(error["type"].partition("_")[0])
        message = known or error["msg"].removeprefix("Value error, ")
        value = error["input"]  # true, false and null as YAML has them
        if error["type"] == "value_error" and isinstance(value, Mapping):
            return f"{where}: {message}"  # a section that contradicts itself says how
        got = json.dumps(value) if value is None or isinstance(value, bool) else quote(value)
        return f"{where}: {message}, got {got}"
    section: Any = Config
    for parent in parents:
        field = getattr(section, "model_fields", {}).get(parent)
        section = field and field.annotation
    return f"{where}: unknown key{did_you_mean(name, getattr(section, 'model_fields', ()))}"
