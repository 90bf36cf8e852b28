"""The table of signatures: what software prints when a known failure strikes.

One row each, tested row by row with its example. A pattern is anchored on what the
software really prints; a bare word (cuda, memory, docker) is never enough, because a
wrong *stop* costs a recording.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from spikecanary import failures as f
from spikecanary.failures import ClassifiedSortFailure

Where = Literal["error", "text"]


@dataclass(frozen=True)
class Signature:
    """One row: a text that tells a failure.

    ``where`` it may match: ``error``, the beginning of one exception's message, whose
    type is ``error_type`` (without its module; None: any); ``text``, anywhere in the
    traceback or the log. Named groups of ``pattern`` become evidence of those names.
    """

    failure: type[ClassifiedSortFailure]
    reason: str
    pattern: str
    example: str
    source: str
    where: Where = "error"
    error_type: str | None = None
    evidence: dict[str, str] = field(default_factory=dict)

    def search(self, text: str) -> re.Match[str] | None:
        """Match a message (``where`` is error) or a whole text."""
        if self.where == "error":
            return re.match(self.pattern, text)
        return re.search(self.pattern, text, flags=re.MULTILINE)


#: Environment first, then resource, then biological, so that a broken host is never
#: called a silent recording.
SIGNATURES: tuple[Signature, ...] = (
    Signature(
        f.HDF5PluginMissingError,
        "the file needs Maxwell's HDF5 compression plugin, which is not on this machine",
        r"in auto_install_maxwell_hdf5_compression_plugin\n(?:.*\n)*?urllib\.error\.URLError: ",
        '  File "maxwell.py", line 60, in auto_install_maxwell_hdf5_compression_plugin\n'
        "    response = urlopen(remote_lib)\n"
        "urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>",
        "neo/rawio/maxwellrawio.py, 0.14.6, on a node without network",
        where="text",
        evidence={"plugin": "Maxwell"},
    ),
    Signature(
        f.HDF5PluginMissingError,
        "the file is compressed with an HDF5 filter whose plugin is not on this machine",
        r"Can't (?:synchronously )?read data \(can't (?:find plugin|open directory)",
        "Can't synchronously read data (can't find plugin. Check either HDF5_VOL_CONNECTOR, "
        "HDF5_PLUGIN_PATH, default location, or path set by H5PLxxx functions)",
        "h5py 3.16, reading a dataset of ../shared/data/maxwell",
        error_type="OSError",
    ),
    Signature(
        f.SorterUnavailableError,
        "the sorter is not installed on this machine",
        r"The sorter (?P<sorter>\w+) is not installed\. Please install it with:",
        "The sorter herdingspikes is not installed. Please install it with:",
        "spikeinterface/sorters/basesorter.py, initialize_folder, 0.105.3",
        error_type="Exception",
    ),
    Signature(
        f.SorterUnavailableError,
        "this version of the sorter does not have these parameters",
        r"Invalid parameters: \[",
        "Invalid parameters: ['detect_treshold'] ",
        "spikeinterface/sorters/basesorter.py, set_params_to_folder, 0.105.3",
        error_type="ValueError",
    ),
    Signature(
        f.ContainerEnvironmentError,
        "the docker client is not installed",
        r"Docker is not installed\. Install docker on this machine|"
        r"The python `docker` package must be installed",
        "Docker is not installed. Install docker on this machine to run sorting with docker.",
        "spikeinterface/sorters/runsorter.py, run_sorter, 0.105.3",
        error_type="RuntimeError",
        evidence={"reason": "client_missing"},
    ),
    Signature(
        f.ContainerEnvironmentError,
        "the docker daemon does not answer",
        r"Error while fetching server API version: ",
        "Error while fetching server API version: ('Connection aborted.', "
        "FileNotFoundError(2, 'No such file or directory'))",
        "docker/api/client.py, _retrieve_server_version, 7.1.0",
        error_type="DockerException",
        evidence={"reason": "daemon_down"},
    ),
    Signature(
        f.ContainerEnvironmentError,
        "singularity is not installed",
        r"Singularity is not installed\. Install singularity|"
        r"The python `spython` package must be installed",
        "Singularity is not installed. Install singularity on this machine to run sorting with "
        "singularity.",
        "spikeinterface/sorters/runsorter.py, run_sorter, 0.105.3",
        error_type="RuntimeError",
        evidence={"reason": "runtime_missing"},
    ),
    Signature(
        f.GPUUnavailableError,
        "CUDA was asked for, but this PyTorch is built without it",
        r"Torch not compiled with CUDA enabled",
        "Torch not compiled with CUDA enabled",
        "torch/cuda/__init__.py, _lazy_init, 2.13.0+cpu",
        error_type="AssertionError",
        evidence={"device": "cuda"},
    ),
    Signature(
        f.GPUUnavailableError,
        "CUDA was asked for, but this machine has no GPU or no driver",
        r"Found no NVIDIA driver on your system|No CUDA GPUs are available",
        "No CUDA GPUs are available",
        "torch/csrc/cuda and c10/cuda/CUDAFunctions.cpp, 2.13",
        error_type="RuntimeError",
        evidence={"device": "cuda"},
    ),
    Signature(
        f.RecordingUnreadableError,
        "the recording has no probe, and this sorter needs the channel locations",
        r"Channel locations are required for this spike sorter|"
        r"get_channel_locations\(\.\.\) needs a probe",
        "Channel locations are required for this spike sorter. Locations can be added to the "
        "RecordingExtractor by loading a probe file (.prb or .csv) or by setting them manually.",
        "spikeinterface/sorters/basesorter.py, initialize_folder, 0.105.3",
    ),
    Signature(
        f.InsufficientActivityError,
        "the sorter found no spikes to learn from",
        r"Found array with 0 sample\(s\) \(shape=\(0, \d+\)\) while a minimum of 1 is required "
        r"by (?:TruncatedSVD|KMeans)",
        "Found array with 0 sample(s) (shape=(0, 61)) while a minimum of 1 is required by "
        "TruncatedSVD.",
        "kilosort/spikedetect.py, extract_wPCA_wTEMP, 4.1.7, on noise",
        error_type="ValueError",
    ),
    Signature(
        f.InsufficientActivityError,
        "the sorter found too few spikes to learn from",
        r"n_samples=(?P<n_spikes>\d+) should be >= n_clusters=\d+",
        "n_samples=3 should be >= n_clusters=6.",
        "kilosort/spikedetect.py, extract_wPCA_wTEMP, 4.1.7, on nearly silent data",
        error_type="ValueError",
    ),
    Signature(
        f.InsufficientActivityError,
        "the sorter detected no spikes",
        r"No spikes detected, cannot continue sorting",
        "No spikes detected, cannot continue sorting.",
        "kilosort/run_kilosort.py, detect_spikes, 4.1.7",
        error_type="ValueError",
    ),
)
