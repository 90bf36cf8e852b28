"""The configuration: typed, frozen models, the problems of a bad one, JSON schema.

``python -m spikecanary.config`` prints the JSON schema that is kept in
``config/schemas/config.schema.json``.
"""

import difflib
import json
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from spikecanary.failures import CATEGORIES, Category

Output = Literal["units", "figures", "phy", "nwb", "npz", "mat", "report"]
#: Keys of 0.1, and what there is instead.
REMOVED = {
    "canary.second_opinion": "a biological verdict is always checked once more",
    "canary.signals": "its thresholds are fixed",
    "forecast.rates": "finished sorts are learned from",
    "forecast.second_window": "one window tells enough",
    "gate.waves": "use gate.wave_size",
    "job.parallel": "the plan gives device time",
}


class BadInputError(ValueError):
    """Problems of the user's config or table, all of them, found before any job runs."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        count = len(self.problems)
        heading = f"{count} problem{'s' * (count != 1)} in the configuration or the table:"
        super().__init__("\n  - ".join([heading, *self.problems]))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest known name, else a list of all."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f" (did you mean '{near[0]}'?)"
    return f" (known: {', '.join(known)})" if known else ""


class Settings(BaseModel):
    """A section of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _merged(model: type[BaseModel], name: str | None, given: Any) -> Any:
    """Merge given entries into the default's, as Snakemake merges config files."""
    default = model.model_fields[name or ""].default
    given = as_steps(given)
    return {**default, **given} if isinstance(given, dict) else given


def as_pairs(steps: Mapping[str, Any]) -> list[list[Any]]:
    """Return steps as pairs, which keep their order where the keys of a dict are sorted."""
    return [[name, params] for name, params in steps.items()]


def as_steps(given: Any) -> Any:
    """Return steps that :func:`as_pairs` made pairs of as a dict; anything else as it is."""
    return dict(given) if isinstance(given, list | tuple) else given


def _differing(
    model: type[BaseModel], info: FieldSerializationInfo, value: dict[str, Any]
) -> dict[str, Any]:
    """Return the entries of a merged field, without the default's where defaults are left out."""
    if not info.exclude_defaults:
        return value
    default = model.model_fields[info.field_name].default
    return {k: v for k, v in value.items() if k not in default or v != default[k]}


class SorterSettings(Settings):
    """The sorter and where it runs."""

    name: str = Field("kilosort4", description="Sorter, by its SpikeInterface name.")
    params: dict[str, Any] = Field({}, description="Parameters that differ from its defaults.")
    params_of: dict[str, dict[str, Any]] = Field(
        {},
        description="Parameters of other sorters that the table's column `sorter` names.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Compute device, for sorters that have a choice."
    )
    container: Literal["docker", "singularity"] | None = Field(
        None, description="Run the sorter in a container; null: on this machine."
    )
    image: str | None = Field(None, description="Container image; null: SpikeInterface's own.")
    plugin: str | None = Field(
        None, description="Python file that defines a sorter class of your own."
    )
    keep_output: bool = Field(
        default=True,
        description="Keep the sorter's own files in `sorter_output/`, but no copies of the data.",
    )


class CanarySettings(Settings):
    """The short sort and what stops a recording."""

    window_s: float = Field(
        30, description="Length of the canary's window in s; 0 or less: no canary."
    )
    min_recording_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        120, description="Recordings shorter than this many s have no canary."
    )
    force: list[str] = Field([], description="Recordings to sort whatever their verdict says.")
    stop_on: list[Category] = Field(
        list(CATEGORIES), description="Categories of failures that stop a recording."
    )

    @field_validator("window_s")
    @classmethod
    def _no_window(cls, value: float) -> float:
        """Negative and not finite windows mean what 0 means: no canary."""
        return value if math.isfinite(value) and value > 0 else 0.0


class GateSettings(Settings):
    """How recordings are grouped for the checkpoint."""

    wave_size: Annotated[int, Field(ge=1)] = Field(
        50, description="Rows of the table whose verdicts are read together."
    )


class PreflightSettings(Settings):
    """Checks of the node before a canary or sort."""

    strict: bool = Field(default=False, description="Turn the preflight's warnings into failures.")


Positive = Annotated[float, Field(gt=0)] | None


class WatchdogSettings(Settings):
    """When a running canary or sort is ended; null switches a watchdog off."""

    inactivity_base_s: Positive = Field(
        600,
        description="End a full sort that is silent and idle for this long, in s, plus 10 s for "
        "each minute of the recording.",
    )
    min_free_ram_mb: Positive = Field(
        500,
        description="End a sort that holds most of the node's memory when less than this is free, "
        "in MB.",
    )
    min_free_disk_mb: Positive = Field(
        500, description="End a sort when less disk space than this is free, in MB."
    )
    gpu_memory_abort_percent: Positive = Field(
        None, description="End a sort whose GPU has more than this share of its memory in use."
    )
    gpu_abort_c: Positive = Field(
        None, description="End a sort whose GPU is hotter than this, in degrees Celsius."
    )
    io_stall_s: Positive = Field(
        300, description="End a sort that waits for storage for this long, in s."
    )


class RetrySettings(Settings):
    """What a full sort's job tries again by itself."""

    gpu_memory_times: Annotated[int, Field(ge=0)] = Field(
        2,
        description="How often a sort without enough GPU memory is tried again, each time with "
        "batches of half the size.",
    )


class ForecastSettings(Settings):
    """What a full sort may request."""

    safety: Annotated[float, Field(ge=1)] = Field(
        1.5, description="A sort requests the high end of its forecast times this."
    )
    max_runtime_min: Annotated[int, Field(ge=1)] = Field(
        2_880,
        description="The longest time a sort may request, in min. A recording that needs more is "
        "stopped.",
    )
    max_mem_mb: Annotated[int, Field(ge=1)] = Field(
        28_000,
        description="The most memory a sort may request, in MB. A recording that needs more is "
        "stopped.",
    )
    max_disk_mb: Annotated[int, Field(ge=1)] = Field(
        1_000_000, description="The most disk space a sort may request, in MB."
    )


class JobSettings(Settings):
    """What a canary and a sort job may use."""

    threads: Annotated[int, Field(ge=1)] = Field(4, description="Cores of a canary or sort job.")
    mem_mb: Annotated[int, Field(ge=1)] = Field(
        24_000,
        description="Memory of a canary, and of a sort without a forecast, in MB.",
    )
    canary_runtime_min: Annotated[int, Field(ge=1)] = Field(
        60, description="Time that a canary may take, in min."
    )
    sort_runtime_min: Annotated[int, Field(ge=1)] = Field(
        1_440, description="Time of a sort without a forecast, in min."
    )
    output_mem_mb: Annotated[int, Field(ge=1)] = Field(
        8_000, description="Memory of the analysis, and of each output, in MB."
    )
    gpu: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="GPUs of a job; null: 1 if sorter.device is cuda, or auto where nvidia-smi is.",
    )


class AnalysisSettings(Settings):
    """The SortingAnalyzer: on what, and which extensions."""

    preprocessing: dict[str, dict[str, Any] | None] = Field(
        {"highpass_filter": {"freq_min": 300.0, "dtype": "float32"}},
        description="Steps after the sort's own `preprocessing`, for waveforms and traces. A "
        "step that is null is left out.",
    )
    sparsity: dict[str, Any] = Field(
        {"method": "radius", "radius_um": 100.0},
        description="Arguments of SpikeInterface's estimate_sparsity: channels of each unit.",
    )
    duplicated_spikes_ms: Annotated[float, Field(gt=0)] | None = Field(
        0.3,
        description="Spikes of one unit closer than this (ms) are duplicates; one is kept. null: "
        "keep all.",
    )
    redundant_units: Annotated[float, Field(gt=0, le=1)] | None = Field(
        0.8,
        description="If two units share this share of their spikes, the larger is kept. null: keep "
        "both.",
    )
    extensions: dict[str, dict[str, Any] | None] = Field(
        {
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
        },
        description="Extensions, each with its parameters. One that is null is left out.",
    )

    @field_validator("preprocessing", "extensions", mode="before")
    @classmethod
    def _over_defaults(cls, given: Any, info: ValidationInfo) -> Any:
        """Keep the entries of the default that are not given."""
        return _merged(cls, info.field_name, given)

    @field_serializer("preprocessing", "extensions")
    def _as_set(self, value: dict[str, Any], info: FieldSerializationInfo) -> Any:
        """Leave out entries of the default where defaults are left out."""
        differing = _differing(type(self), info, value)
        ordered = info.field_name == "preprocessing" and info.exclude_defaults
        return as_pairs(differing) if ordered else differing


class Threshold(Settings):
    """Limits of a metric, inclusive."""

    greater: float | None = Field(None, description="At least this.")
    less: float | None = Field(None, description="At most this.")
    abs: bool = Field(default=False, description="Compare the absolute value.")

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        """Refuse a threshold without a limit."""
        if self.greater is None and self.less is None:
            msg = "a threshold needs `greater`, `less` or both"
            raise ValueError(msg)
        return self


class UnitRefineSettings(Settings):
    """UnitRefine's classifiers, on disk."""

    noise_neural: str | None = Field(None, description="Folder or .skops file, noise or neural.")
    sua_mua: str | None = Field(None, description="Folder or .skops file, single or multi unit.")


class CurationSettings(Settings):
    """The label of each unit."""

    label_by: Literal["thresholds", "bombcell", "unitrefine"] = Field(
        "thresholds", description="Which of the labels is the unit's `label`."
    )
    thresholds: dict[str, Threshold | None] = Field(
        {
            "firing_rate": Threshold(greater=0.05),
            "isi_violations_share": Threshold(less=0.01),
            "snr": Threshold(greater=5.0),
            "num_spikes": Threshold(greater=50),
        },
        description="A unit within all of these is `good`, else `mua`: limits of columns of "
        "metrics.tsv. One that is null is left out.",
    )
    bombcell: bool | dict[str, dict[str, dict[str, Any]]] = Field(
        default=True, description="Bombcell's labels: its thresholds, or others; false: none."
    )
    unitrefine: UnitRefineSettings = UnitRefineSettings()

    @field_validator("thresholds", mode="before")
    @classmethod
    def _over_defaults(cls, given: Any, info: ValidationInfo) -> Any:
        """Keep the entries of the default that are not given."""
        return _merged(cls, info.field_name, given)

    def limits(self) -> dict[str, Threshold]:
        """Return the thresholds, without those that are switched off."""
        return {name: limit for name, limit in self.thresholds.items() if limit is not None}

    @field_serializer("thresholds")
    def _short(
        self, value: dict[str, Threshold | None], info: FieldSerializationInfo
    ) -> dict[str, dict[str, Any] | None]:
        """Write thresholds as people do."""
        return {
            name: None if limit is None else limit.model_dump(exclude_defaults=True)
            for name, limit in _differing(type(self), info, value).items()
        }

    @model_validator(mode="after")
    def _label_is_made(self) -> Self:
        """Refuse to decide by labels that are not made."""
        models = self.unitrefine
        off = {
            "bombcell": self.bombcell is False,
            "unitrefine": models.noise_neural is None and models.sua_mua is None,
        }
        if off.get(self.label_by):
            msg = f"label_by is {self.label_by}, but {self.label_by} is off"
            raise ValueError(msg)
        return self


class ExportSettings(Settings):
    """Arguments of the exports."""

    phy: dict[str, Any] = Field(
        {"copy_binary": False}, description="Arguments of SpikeInterface's export_to_phy."
    )
    nwb: dict[str, dict[str, Any]] = Field(
        {},
        description="NWB metadata of all recordings: sections NWBFile and Subject.",
    )


def switched_on(steps: Mapping[str, dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
    """Return steps with their parameters, without those that are null."""
    return {name: params for name, params in steps.items() if params is not None}


class Config(Settings):
    """The whole configuration."""

    recordings: str = Field(
        "config/recordings.tsv", description="The recordings table, a TSV file."
    )
    preprocessing: dict[str, dict[str, Any]] = Field(
        {}, description="Steps of SpikeInterface's PreprocessingPipeline, in their order."
    )
    sorter: SorterSettings = SorterSettings()
    canary: CanarySettings = CanarySettings()
    preflight: PreflightSettings = PreflightSettings()
    watchdogs: WatchdogSettings = WatchdogSettings()
    retry: RetrySettings = RetrySettings()
    forecast: ForecastSettings = ForecastSettings()
    gate: GateSettings = GateSettings()
    outputs: list[Output] = Field(
        ["units", "figures", "phy", "nwb"],
        description="What is made of each sorting. An empty list: the sorting alone.",
    )
    analysis: AnalysisSettings = AnalysisSettings()
    curation: CurationSettings = CurationSettings()
    exports: ExportSettings = ExportSettings()
    job: JobSettings = JobSettings()
    pathvars: dict[str, str] = Field(
        {}, description="Snakemake's path variables: results, logs, benchmarks."
    )


def load(config: Mapping[str, Any]) -> Config:
    """Turn a plain configuration into the typed one.

    Sections that are left empty in the YAML file (``canary:``) get their defaults.

    Raises
    ------
    BadInputError
        Unknown keys or values of a wrong type; all problems together.
    """
    right, _, problems = load_right(config)
    if problems:
        raise BadInputError(problems)
    return right


def load_right(config: Mapping[str, Any]) -> tuple[Config, set[str], list[str]]:
    """Read what is right of a plain configuration.

    Returns
    -------
    Config
        With defaults for each section that has a problem.
    set of str
        Those sections.
    list of str
        All problems.
    """
    given = {key: value for key, value in config.items() if value is not None}
    try:
        return Config.model_validate(given), set(), []
    except ValidationError as err:
        errors = err.errors()
        wrong = {str(error["loc"][0]) for error in errors}
        right = {key: value for key, value in given.items() if key not in wrong}
        return Config.model_validate(right), wrong, [_describe(error) for error in errors]


def as_set(settings: BaseModel, **include_or_exclude: Any) -> dict[str, Any]:
    """Return what a user set in a section, as plain data: values that are not the default.

    So a key that is new in this version, with its default, changes no job's parameters. Keys are
    sorted: their order in a file means nothing.
    """
    dumped = settings.model_dump(mode="json", exclude_defaults=True, **include_or_exclude)
    return cast("dict[str, Any]", json.loads(json.dumps(dumped, sort_keys=True)))


def _describe(error: Mapping[str, Any]) -> str:
    """One line for one of pydantic's errors: where, what, what to do."""
    where = [str(part) for part in error["loc"]]
    key = "config: " + ".".join(where)
    if error["type"] == "extra_forbidden":
        if instead := REMOVED.get(".".join(where)):
            return f"{key}: this key is gone: {instead}"
        return f"{key}: unknown key{did_you_mean(where[-1], _keys_beside(where))}"
    return f"{key}: {error['msg']}, got {error['input']!r}"


def _keys_beside(where: list[str]) -> Iterable[str]:
    """Return the keys that the section of an unknown key has."""
    model: Any = Config
    for part in where[:-1]:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def json_schema() -> str:
    """Return the JSON schema of the configuration, as the text of its file."""
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(json_schema())
