"""What is made of a sorting: the outputs by name, their files, the settings of their steps."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

Output = Literal["units", "figures", "phy", "nwb", "npz", "mat", "report"]
#: The file or folder of each output, below the recording's results folder.
FILES: dict[Output, str] = {
    "units": "units.tsv",
    "figures": "figures",
    "phy": "phy",
    "nwb": "units.nwb",
    "npz": "spikes.npz",
    "mat": "spikes.mat",
    "report": "report",
}
#: Of a recording that is stopped for a biological reason, where figures are wanted.
CANARY_FIGURE = "canary.png"


class Settings(BaseModel):
    """A section of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _merged(model: type[BaseModel], name: str | None, given: Any) -> Any:
    """Put entries that are given over those of the default, as Snakemake merges config files."""
    default = model.model_fields[name or ""].default
    given = as_steps(given)
    return {**default, **given} if isinstance(given, dict) else given


def as_pairs(steps: Mapping[str, Any]) -> list[list[Any]]:
    """Return steps as pairs, which keep their order where the keys of a dict are sorted."""
    return [[name, params] for name, params in steps.items()]


def as_steps(given: Any) -> Any:
    """Return what :func:`as_pairs` returned as steps again; anything else as it is."""
    return dict(given) if isinstance(given, list | tuple) else given


def _differing(
    model: type[BaseModel], info: FieldSerializationInfo, value: dict[str, Any]
) -> dict[str, Any]:
    """Return the entries of a merged field, without the default's where defaults are left out."""
    if not info.exclude_defaults:
        return value
    default = model.model_fields[info.field_name].default
    return {k: v for k, v in value.items() if k not in default or v != default[k]}


class AnalysisSettings(Settings):
    """The SortingAnalyzer: on what, and which extensions."""

    preprocessing: dict[str, dict[str, Any] | None] = Field(
        {"highpass_filter": {"freq_min": 300.0, "dtype": "float32"}},
        description="Steps after the sort's own `preprocessing`, for waveforms and traces; "
        "null: not this one.",
    )
    sparsity: dict[str, Any] = Field(
        {"method": "radius", "radius_um": 100.0},
        description="Arguments of SpikeInterface's estimate_sparsity: channels of each unit.",
    )
    duplicated_spikes_ms: Annotated[float, Field(gt=0)] | None = Field(
        0.3, description="Of spikes of a unit nearer than so many ms one stays; null: all stay."
    )
    redundant_units: Annotated[float, Field(gt=0, le=1)] | None = Field(
        0.8,
        description="Of two units that share this share of their spikes the larger stays; null: "
        "both stay.",
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
        description="Extensions, each with its parameters; null: not this one.",
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
        description="A unit within all of these is `good`, else `mua`; columns of "
        "metrics.tsv; null: not this one.",
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
    """What the exports are told."""

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


def wanted(outputs: Iterable[Output]) -> list[Output]:
    """Return the outputs to make, units first, since all others show their labels."""
    chosen = set(outputs)
    return [name for name in FILES if name in chosen or (name == "units" and chosen)]


def last(outputs: Iterable[Output]) -> list[str]:
    """Return the files of a sorted recording that are made last, below its results folder."""
    return [FILES[name] for name in wanted(outputs)] or ["sort.json"]


def all_files(outputs: Iterable[Output]) -> list[str]:
    """Return all files that there are to be of a sorted recording, below its results folder."""
    named = [FILES[name] for name in wanted(outputs)]
    return ["sorting", "sort.json", *(["analyzer", "metrics.tsv"] if named else []), *named]
