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

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from spikecanary.failures import CATEGORIES, Category
from spikecanary.outputs import AnalysisSettings, CurationSettings, ExportSettings, Output, Settings


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


class SignalSettings(Settings):
    """The signal check: what is read, and what is suspicious."""

    chunks: Annotated[int, Field(ge=1)] = Field(10, description="Sampled chunks.")
    chunk_s: Annotated[float, Field(gt=0)] = Field(0.5, description="Length of a chunk in s.")
    railed_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="A channel with this share of samples at its limits carries no signal."
    )
    noise_min_uV: float = Field(  # noqa: N815 - the unit
        0.1, description="A noise level below this many uV is implausible."
    )
    noise_max_uV: float = Field(  # noqa: N815 - the unit
        1_000, description="A noise level above this many uV is implausible."
    )


class CanarySettings(Settings):
    """The short sort and what stops a recording."""

    window_s: float = Field(
        30, description="Length of the canary's window in s; 0 or less: no canary."
    )
    min_recording_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        120, description="Recordings shorter than this many s have no canary."
    )
    force: list[str] = Field(
        [], description="Recordings that are sorted whatever their verdict says."
    )
    stop_on: list[Category] = Field(
        list(CATEGORIES), description="Categories of failures that stop a recording."
    )
    second_opinion: bool = Field(
        default=True,
        description="Check a biological verdict once more where there is most activity.",
    )
    signals: SignalSettings = SignalSettings()

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
    min_free_disk_mb: Annotated[float, Field(ge=0)] = Field(
        1_000, description="Less free disk than this many MB is a failure."
    )
    min_free_ram_mb: Annotated[float, Field(ge=0)] = Field(
        2_000, description="Less free memory than this many MB is a warning."
    )
    min_free_vram_mb: Annotated[float, Field(ge=0)] = Field(
        2_000, description="Less free memory of every GPU than this many MB is a warning."
    )


Positive = Annotated[float, Field(gt=0)] | None


class WatchdogSettings(Settings):
    """When a running canary or sort is ended; null switches a watchdog off."""

    inactivity_base_s: Positive = Field(
        600, description="A full sort that is silent and idle for this long is ended, in s."
    )
    inactivity_per_min_s: Annotated[float, Field(ge=0)] = Field(
        10, description="Added to that for each minute of the recording, in s."
    )
    inactivity_most_s: Annotated[float, Field(gt=0)] = Field(
        3_600, description="The longest that a full sort may be silent and idle, in s."
    )
    wall_time: bool = Field(
        default=True, description="End a sort that takes longer than its job may."
    )
    job_memory: bool = Field(
        default=True, description="End a sort that takes more memory than its job may."
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
    max_log_mb: Annotated[float, Field(gt=0)] = Field(
        100, description="The most of a sorter's output that its log keeps, in MB."
    )


class RetrySettings(Settings):
    """What a full sort's job tries again by itself."""

    gpu_memory_times: Annotated[int, Field(ge=0)] = Field(
        2, description="Times that a sort without enough GPU memory is tried with smaller batches."
    )
    gpu_memory_factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="Size of the batches, each time, as a share of the size before."
    )


class RateSettings(Settings):
    """What a full sort takes that had no canary to measure it."""

    sort_s: Annotated[float, Field(ge=0)] = Field(60, description="Time of any sort in s.")
    sort_s_per_min: Annotated[float, Field(ge=0)] = Field(
        60, description="Time in s for each recorded minute."
    )
    mem_mb: Annotated[float, Field(ge=0)] = Field(8_000, description="Memory of any sort in MB.")
    mem_mb_per_min: Annotated[float, Field(ge=0)] = Field(
        20, description="Memory in MB for each recorded minute."
    )
    disk_per_recording: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Size of the work folder as a share of the recording's."
    )
    canary_s: Annotated[float, Field(ge=0)] = Field(
        60, description="Time of a canary in s, for the plan."
    )


class ForecastSettings(Settings):
    """What a full sort is expected to take, and may ask for."""

    second_window: bool = Field(
        default=True,
        description="Sort a second, shorter window where only that tells growing costs.",
    )
    safety: Annotated[float, Field(ge=1)] = Field(
        1.5, description="A job asks for the high end of the forecast times this."
    )
    min_runtime_min: Annotated[int, Field(ge=1)] = Field(
        10, description="A full sort never asks for less time, in min."
    )
    max_runtime_min: Annotated[int, Field(ge=1)] = Field(
        2_880, description="Nor for more; what needs more is stopped."
    )
    min_mem_mb: Annotated[int, Field(ge=1)] = Field(
        4_000, description="A full sort never asks for less memory, in MB."
    )
    max_mem_mb: Annotated[int, Field(ge=1)] = Field(
        28_000, description="Nor for more; what needs more is stopped."
    )
    min_disk_mb: Annotated[int, Field(ge=0)] = Field(
        1_000, description="A full sort never asks for less disk space, in MB."
    )
    max_disk_mb: Annotated[int, Field(ge=1)] = Field(1_000_000, description="Nor for more.")
    rates: RateSettings = RateSettings()

    @model_validator(mode="after")
    def _least_before_most(self) -> Self:
        """No least may be above its most."""
        for resource in ("runtime", "mem_mb", "disk_mb"):
            least, most = self.limits(resource)
            if least > most:
                msg = f"the least {resource} ({least}) is more than the most ({most})"
                raise ValueError(msg)
        return self

    def limits(self, resource: str) -> tuple[int, int]:
        """Return the least and the most that a full sort may ask for of a resource."""
        name = {"runtime": "runtime_min"}.get(resource, resource)
        return getattr(self, f"min_{name}"), getattr(self, f"max_{name}")


class JobSettings(Settings):
    """What a canary and a sort job may use."""

    threads: Annotated[int, Field(ge=1)] = Field(4, description="Cores of a canary or sort job.")
    mem_mb: Annotated[int, Field(ge=1)] = Field(
        24_000,
        description="Memory in MB of a canary, and of a sort of which nothing is known.",
    )
    canary_runtime_min: Annotated[int, Field(ge=1)] = Field(
        60, description="Time in min that a canary may take."
    )
    sort_runtime_min: Annotated[int, Field(ge=1)] = Field(
        1_440, description="Time in min of a full sort of which nothing is known."
    )
    output_threads: Annotated[int, Field(ge=1)] = Field(
        2, description="Cores of the analysis of a sorting."
    )
    output_mem_mb: Annotated[int, Field(ge=1)] = Field(
        8_000, description="Memory in MB of the analysis, and of each output."
    )
    output_runtime_min: Annotated[int, Field(ge=1)] = Field(
        240, description="Time in min of the analysis, and of each output."
    )
    parallel: Annotated[int, Field(ge=1)] = Field(
        1, description="Canaries and sorts that run at the same time, for the plan's wall time."
    )
    gpu: Annotated[int, Field(ge=0)] | None = Field(
        None, description="GPUs of a job; null: 1 where the device is cuda or the sorter needs it."
    )


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
        description="What is made of each sorting; an empty list: the sorting alone.",
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
