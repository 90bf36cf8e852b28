"""What can go wrong with a sort: failure classes, their categories and remedies."""

import typing
from typing import Any, ClassVar, Literal

from pydantic import TypeAdapter

Category = Literal["biological", "environment", "resource"]
CATEGORIES: tuple[Category, ...] = typing.get_args(Category)


class ClassifiedSortFailure(Exception):  # noqa: N818 - the design's name
    """A failure whose cause is known: what happened, whose fault it is, what to do.

    A subclass owns its ``category``, a one-line ``remedy`` (an instance may have a better one) and,
    as annotations, the evidence that it can carry, to which values are converted; None is left out.
    """

    category: ClassVar[Category]
    remedy: ClassVar[str]

    def __init__(self, message: str, *, remedy: str = "", **evidence: Any) -> None:
        super().__init__(message)
        if remedy:
            self.remedy = remedy  # type: ignore[misc]
        fields = self.evidence_fields()
        self.evidence: dict[str, Any] = {
            name: TypeAdapter(fields[name]).validate_python(value)
            for name, value in evidence.items()
            if value is not None
        }

    def describe(self) -> dict[str, Any]:
        """Describe this failure as plain data."""
        return {
            "class": type(self).__name__,
            "category": self.category,
            "message": str(self),
            "evidence": self.evidence,
            "remedy": self.remedy,
        }

    @classmethod
    def evidence_fields(cls) -> dict[str, type]:
        """Name and type of each evidence field of this class."""
        hints = typing.get_type_hints(cls)
        return {
            name: hint for name, hint in hints.items() if typing.get_origin(hint) is not ClassVar
        }


class BiologicalFailure(ClassifiedSortFailure):
    """The data: nothing that the sorter can use.

    Policy: the canary stops; a full sort ends as a result with zero units. Final
    until the recording, the window or the settings change.
    """

    category = "biological"


class EnvironmentFailure(ClassifiedSortFailure):
    """The machine or the set-up: the same data would sort elsewhere.

    Policy: the canary stops, a full sort's job fails. Tested again by the next
    invocation.
    """

    category = "environment"


class ResourceFailure(ClassifiedSortFailure):
    """The machine has too little of something: memory, disk, time.

    Policy: the canary stops. A full sort's job fails and Snakemake's ``retries``
    may raise its resources. Tested again by the next invocation.
    """

    category = "resource"


class InsufficientActivityError(BiologicalFailure):
    """Too few spikes for the sorter to learn from."""

    remedy = "Look at the raw traces; lower the detection threshold or drop the recording."
    n_spikes: int


class NoGoodChannelsError(BiologicalFailure):
    """Every channel was judged bad."""

    remedy = "Check the probe's connection and reference; loosen bad-channel detection."
    n_channels: int


class SaturatedSignalError(BiologicalFailure):
    """All channels are flat or at the limits of the converter."""

    remedy = "Check gain, reference and ground of the amplifier; drop the recording."
    n_channels: int


class NonFiniteSignalError(BiologicalFailure):
    """NaN or infinite samples that the sorter cannot take."""

    remedy = (
        "Repair these samples, leave the channels out (column bad_channels), or cut the time out "
        "(start_s, end_s)."
    )
    n_samples: int
    channels: list[str]
    first_s: float


class EmptyWaveformMetricsError(BiologicalFailure):
    """Units without usable waveforms."""

    remedy = "The few units found have no waveforms to measure; drop the recording."


class ConcurrentSortError(EnvironmentFailure):
    """Another process sorts the same recording."""

    remedy = "Wait for the other run, or stop it."
    holder: str


class HDF5PluginMissingError(EnvironmentFailure):
    """The file is compressed with an HDF5 filter that this machine lacks."""

    remedy = (
        "Install the maker's HDF5 compression plugin on every node and set HDF5_PLUGIN_PATH to "
        "the folder that holds it."
    )
    path: str
    plugin: str


class ContainerEnvironmentError(EnvironmentFailure):
    """The container runtime or the image is not usable."""

    remedy = "Start or install the container runtime, and pull the image by hand once."
    reason: Literal[
        "daemon_down",
        "client_missing",
        "runtime_missing",
        "image_pull_failed",
        "permission_denied",
        "other",
    ]
    image: str


class SorterUnavailableError(EnvironmentFailure):
    """The sorter is unknown here, not installed or refuses its parameters."""

    remedy = "Install the sorter on this machine, set sorter.container, or choose another one."
    sorter: str
    known: list[str]


class GPUUnavailableError(EnvironmentFailure):
    """A GPU was asked for and cannot be used."""

    remedy = "Run on a node with a working GPU and PyTorch for it, or set sorter.device: cpu."
    device: str


class MatlabRuntimeError(EnvironmentFailure):
    """MATLAB, its runtime or a compiled mex file is missing."""

    remedy = "Install MATLAB and compile the sorter's mex files, or use the compiled container."
    path: str


class ModelLoadingError(EnvironmentFailure):
    """Model weights are missing or do not load."""

    remedy = "Download the model on a machine with network and point the sorter to it."
    path: str


class DependencyError(EnvironmentFailure):
    """A Python module or shared library is missing or incompatible."""

    remedy = "Install the missing module in the environment that runs the job."
    module: str


class FolderNotWritableError(EnvironmentFailure):
    """The results or work folder cannot be written."""

    remedy = "Give this user the right to write there, or choose other folders (pathvars)."
    path: str


class RecordingUnreadableError(EnvironmentFailure):
    """The recording is missing, or its reader cannot open it."""

    remedy = "Check path, reader, stream_id and reader_options in the recordings table."
    path: str
    reader: str


class RecordingLayoutError(EnvironmentFailure):
    """The data are not what they are declared to be: samples, channels, order, scale, stream."""

    remedy = "Check reader_options (dtype, num_channels, file_offset) or stream_id in the table."
    path: str
    declared: str
    fits: str
    score_declared: float
    score_fits: float
    noise: float
    gain: float


class PreprocessingError(EnvironmentFailure):
    """A step of the preprocessing cannot be built, or makes samples that no sorter can take."""

    remedy = "Mend that step in the config's preprocessing."
    step: str
    channels: list[str]


class SorterParameterError(EnvironmentFailure):
    """The sorter cannot sort such data, or not with these parameters."""

    remedy = "Change sorter.params, or choose another sorter."
    sorter: str
    parameter: str
    n_peaks: int
    start_s: float


class SettingsError(EnvironmentFailure):
    """Settings of the steps after the sort cannot be right."""

    remedy = "Correct these settings in the config."


class GPUOutOfMemoryError(ResourceFailure):
    """The GPU's memory was not enough."""

    remedy = "Free the GPU, lower the sorter's batch size, or use a larger GPU."


class SorterTimeoutError(ResourceFailure):
    """The sort showed no life for too long, or ran into its time limit."""

    remedy = "Look at the log's end; raise the limit or give the job more time."
    limit_s: float


class DiskExhaustionError(ResourceFailure):
    """The disk is full or the quota used up."""

    remedy = "Free disk space in the results and temporary folders (job.scratch), or use others."
    path: str
    free_mb: float
    largest: list[str]


class IOStallError(ResourceFailure):
    """The storage did not answer."""

    remedy = "Check the storage (network drive, disk health), then run again."
    stalled_s: float


class HostMemoryWatchdogError(ResourceFailure):
    """The host's memory was not enough."""

    remedy = "Give the job more memory (job.mem_mb, forecast.max_mem_mb), or run fewer at once."
    peak_rss_mb: float
    limit_mb: float


class GpuMemoryWatchdogError(ResourceFailure):
    """The GPU's memory was nearly used up."""

    remedy = "Free the GPU or lower the sorter's batch size."
    used_mb: float


class GpuThermalWatchdogError(ResourceFailure):
    """The GPU is too hot."""

    remedy = "Improve the cooling, or run fewer GPU jobs."
    temperature_c: float


class CapacityForecastError(ResourceFailure):
    """The full sort cannot fit into what the job may have."""

    remedy = "Give the job more memory, disk or time, or split the recording."
    what: str
    low: float
    high: float
    room: float


def all_classes() -> dict[str, type[ClassifiedSortFailure]]:
    """Every concrete failure class by its name, in the order of this module."""
    return {
        cls.__name__: cls
        for category in (BiologicalFailure, EnvironmentFailure, ResourceFailure)
        for cls in category.__subclasses__()
    }


#: Smaller batches may help against these.
GPU_MEMORY = (GPUOutOfMemoryError, GpuMemoryWatchdogError)
