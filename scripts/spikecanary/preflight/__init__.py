"""What is inspected before a sort: the header, this node, and for a canary the signal."""

import importlib.resources
import importlib.util
import os
import resource
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary import signals
from spikecanary.config import CanarySettings
from spikecanary.failures import (
    ClassifiedSortFailure,
    ContainerEnvironmentError,
    DiskExhaustionError,
    FolderNotWritableError,
    GPUUnavailableError,
    HDF5PluginMissingError,
    HostMemoryWatchdogError,
    ModelLoadingError,
    SorterParameterError,
)
from spikecanary.recording import check_preprocessed, describe_header, open_recording, preprocess
from spikecanary.recording.layout import check as check_layout
from spikecanary.sorter import LEAST_BATCHES, SortTask, parameters, registry
from spikecanary.sorter.registry import MATLAB_KILOSORTS
from spikecanary.supervise import gpus, memory
from spikecanary.texts import sentences

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording

MB = 1e6
#: Sorters that take one probe (recording.get_probe() in SpikeInterface 0.105).
ONE_PROBE = ("tridesclous2", "lupin", "spykingcircus2")
#: Sorters that call get_channel_locations(), though requires_locations is False (0.105).
NEED_PROBE = (*ONE_PROBE, "simple")
#: The parameter, on by default, that subtracts the median of all channels.
COMMON_REFERENCE = {"kilosort4": "do_CAR", **dict.fromkeys(MATLAB_KILOSORTS, "car")}
#: Kilosort 4's built-in templates: what names their folder, and their length in samples.
KILOSORT_FOLDER, KILOSORT_NT = "KILOSORT_LOCAL_DOWNLOADS_PATH", 61
#: What is not looked at where that would read all of a recording over the network.
NOT_READ = (
    "it is at a URL, so the canary did not read it whole: gaps of its clock, and NaN outside of "
    "the pieces of the signal map, are not looked for"
)
#: Less free disk is a failure; less free memory is a warning.
MIN_FREE_DISK_MB, MIN_FREE_RAM_MB = 1000.0, 2000.0


def inspect_recording_and_node(
    task: SortTask,
    folder: Path,
    canary: CanarySettings | None,
    tell: Callable[..., None],
    *,
    strict: bool = False,
    layout: bool = True,
) -> dict[str, Any]:
    """Open a recording, check the node, and for a canary the signal too; in a child process.

    Without ``canary``, for a full sort, the signal is not read, and no recording is too short.
    ``folder`` is where results go, and ``tell`` takes facts that are wanted even if this fails.
    ``strict`` turns warnings of the node's checks into failures; ``layout``: check whether raw
    files are what they are declared to be.

    Returns
    -------
    dict
        ``header``; ``notes``: what people should know of the recording and the node; ``skip``: why
        there is no canary, or an empty text; ``window_s``: length of the window; ``signals``: a
        :class:`spikecanary.signals.SignalReport`. What was not reached is missing. A classified
        failure is raised where the recording, its preprocessing or the node is certain to fail.
    """
    notes = list[str]()
    recording = open_recording(task.row, notes, thorough=True)
    header = describe_header(recording)
    tell(header=header)
    if too_short := task.check_length(header["n_samples"], header["sampling_frequency_hz"]):
        raise too_short
    found: dict[str, Any] = {"header": header, "skip": "", "notes": notes}
    remote = task.row.is_remote
    if canary is not None:
        notes += [NOT_READ] * remote
        found |= _choose_window(task, canary, header)
        if found["skip"]:
            return found
    if layout:
        notes += check_layout(task.row, header["sampling_frequency_hz"])
    doubts = check_node(task, folder, header)
    if strict and doubts:
        raise doubts[0]
    notes += [f"preflight: {sentences(doubt, doubt.remedy)}" for doubt in doubts]
    if canary is not None:
        check_preprocessed(recording, task.preprocessing)
        check_whole_numbers(recording, task)
        whole = canary.check_finite and not remote
        report = signals.check(recording, whole=whole, remote=remote)
        report = report.model_copy(update={"cut": task.row.pieces()})
        if report.non_finite_samples and task.preprocessing:
            preprocessed = preprocess(recording, task.preprocessing)
            report, note = report.after(
                signals.check(preprocessed, whole=whole), preprocessed.get_dtype()
            )
            notes += note
        found["signals"] = report
    return found


def _choose_window(
    task: SortTask, settings: CanarySettings, header: Mapping[str, Any]
) -> dict[str, Any]:
    """Choose the window's length, or say why there is no canary.

    A window of one batch of the sorter fails as NaN data do, so it is made longer.
    """
    window_s, name = settings.window_s, "the canary's window"
    batch_s = task.batch_s(header["sampling_frequency_hz"])
    if batch_s is not None and window_s < LEAST_BATCHES * batch_s:
        window_s, name = LEAST_BATCHES * batch_s, f"{LEAST_BATCHES:g} batches of {task.sorter.name}"
    for needed_s, what in ((window_s, name), (settings.min_recording_s, "canary.min_recording_s")):
        if (duration_s := header["duration_s"]) < needed_s:
            return {"skip": f"no canary: {duration_s:.2f} s are less than {what}, {needed_s:g} s"}
    return {"window_s": window_s, "skip": ""}


def check_node(
    task: SortTask, folder: Path, header: Mapping[str, Any]
) -> list[ClassifiedSortFailure]:
    """Raise what is certain to keep a sort from this node, and return what may; so does each check.

    ``header`` is the recording's, as of :func:`spikecanary.recording.describe_header`.
    """
    settings = task.sorter
    registry.find_sorter(settings)
    for certain in check_channels(task, header):
        raise certain
    _check_templates(task)
    _check_device(task)
    _check_folder(folder)
    doubts = [
        *parameters.describe_switched_off(settings, task.preprocessing),
        # Of a plugin's sorter, which is not known when the table is read, and may take other types.
        *parameters.check_types(settings.name, settings.params),
    ]
    return [
        *(SorterParameterError(each, sorter=settings.name) for each in doubts),
        *_check_torch(task),
        *_check_container(task),
        *_check_hdf5(task),
        *_check_disk(folder, header),
        *_check_limits(),
    ]


def check_whole_numbers(recording: "BaseRecording", task: SortTask) -> None:
    """Check on some pieces that a sorter that is handed 16-bit integers gets no larger numbers.

    SpikeInterface 0.105 casts them (kilosortbase), so that larger ones turn into their opposite.
    """
    from spikeinterface.core import get_random_data_chunks

    if task.sorter.name not in MATLAB_KILOSORTS:
        return
    pieces = get_random_data_chunks(preprocess(recording, task.preprocessing), seed=0)
    lowest, highest = float(pieces.min()), float(pieces.max())
    limits = np.iinfo("int16")
    if lowest < limits.min or highest > limits.max:
        span = f"samples are {lowest:g} to {highest:g}"
        msg = f"{task.sorter.name} is handed 16-bit integers, and {span}"
        remedy = (
            "Put unsigned_to_signed into the config's preprocessing, or scale, so that they are "
            f"{limits.min} to {limits.max}."
        )
        raise SorterParameterError(msg, remedy=remedy, sorter=task.sorter.name)


def check_channels(task: SortTask, header: Mapping[str, Any]) -> Iterator[ClassifiedSortFailure]:
    """Yield why the sorter cannot sort so many channels and probes."""
    from spikeinterface.sorters import sorter_dict

    name, cls = task.sorter.name, sorter_dict.get(task.sorter.name)
    needs_probe = name in NEED_PROBE or (cls is not None and cls.requires_locations)
    if needs_probe and not header["n_probes"]:
        msg = f"{name} needs the positions of the channels, and the recording has no probe"
        remedy = "Give a probe in column probe of the recordings table."
        yield SorterParameterError(msg, remedy=remedy, sorter=name)
    if header["n_probes"] > 1 and name in ONE_PROBE:
        msg = f"{name} sorts one probe, and the recording has {header['n_probes']}"
        remedy = "Sort one probe a row (column channels, such as group=0), or use another sorter."
        yield SorterParameterError(msg, remedy=remedy, sorter=name)
    reference = COMMON_REFERENCE.get(name)
    if header["n_channels"] == 1 and reference and task.sorter.params.get(reference, True):
        msg = f"{name} subtracts the common reference of all channels: of one, nothing is left"
        # Its drift correction finds no templates on one channel.
        values = "false, nblocks: 0" if name == "kilosort4" else "false"
        remedy = f"Set {task.alone(reference, values)}."
        yield SorterParameterError(msg, remedy=remedy, sorter=name, parameter=reference)


def _check_templates(task: SortTask) -> None:
    """Check that kilosort4 finds its built-in templates where it shall not learn any.

    It downloads a file that is missing, into a folder that it does not make (utils.py, 4.1.7).
    """
    settings = task.sorter
    if settings.name != "kilosort4" or settings.params.get("templates_from_data", True):
        return
    if (nt := settings.params.get("nt", KILOSORT_NT)) != KILOSORT_NT:
        msg = f"kilosort4's built-in templates have {KILOSORT_NT} samples, and nt is {nt}"
        remedy = "Remove nt from sorter.params, or templates_from_data: false."
        raise SorterParameterError(msg, remedy=remedy, parameter="nt")
    named = os.environ.get(KILOSORT_FOLDER)
    folder = Path(named) if named else Path.home() / ".kilosort"
    file = folder / "wTEMP.npz"
    is_usable = zipfile.is_zipfile(file) if named or file.exists() else folder.is_dir()
    if settings.container is None and not is_usable:
        wheel = importlib.resources.files("kilosort")
        remedy = f"Set the environment variable {KILOSORT_FOLDER}={wheel}, which has the file."
        state = "damaged" if file.exists() else "not there"
        msg = f"kilosort4's built-in templates, {file}, are {state}"
        raise ModelLoadingError(msg, remedy=remedy, path=str(file))


def _check_device(task: SortTask) -> None:
    """Check that the GPU is there that the sorter needs, or that was asked for."""
    from spikeinterface.sorters import sorter_dict

    settings = task.sorter
    device = registry.asked_device(settings)
    kind = device.partition(":")[0]
    is_asked = kind in ("cuda", "mps")
    cls, msg = sorter_dict.get(settings.name), ""
    needs_one = cls is not None and cls.gpu_capability == "nvidia-required"
    if settings.name == "kilosort":  # SpikeInterface 0.105 inherits that it needs one
        needs_one = settings.params.get("useGPU", settings.device != "cpu")
    of_matlab = needs_one or settings.name == "ironclust"
    uses_torch = not of_matlab and settings.container is None
    if is_asked and uses_torch and importlib.util.find_spec("torch"):
        if why := _why_torch_has_no(kind):
            msg = f"{'CUDA' if kind == 'cuda' else kind} was asked for, but {why}"
    elif (is_asked or needs_one) and not gpus.count():
        msg = f"{settings.name} needs a GPU, and this machine has none"
    if msg:
        is_param = settings.device != device
        remedy = "Change the device in sorter.params, or run where it is." if is_param else ""
        raise GPUUnavailableError(msg, remedy=remedy, device=device)


def _check_torch(task: SortTask) -> Iterator[ClassifiedSortFailure]:
    """Say that a sort takes the CPU of a machine with a GPU: PyTorch cannot use it."""
    settings = task.sorter
    is_left_to_it = registry.asked_device(settings) == "auto" and settings.container is None
    if not is_left_to_it or settings.name not in registry.DEVICE_PARAM_OF or not gpus.count():
        return
    if why := _why_torch_has_no("cuda"):
        msg = f"this machine has a GPU, but {settings.name} uses the CPU: {why}"
        remedy = "Install a PyTorch that its driver can use (docs/install.md)."
        yield GPUUnavailableError(msg, remedy=remedy, device="auto")


def _why_torch_has_no(kind: str) -> str:
    """Say why PyTorch cannot use a GPU of a kind, cuda (or ROCm) or mps; nothing where it can."""
    import torch

    if kind == "cuda" and torch.version.cuda is None and torch.version.hip is None:
        return "this PyTorch is built without CUDA"
    of_kind = torch.cuda if kind == "cuda" else torch.backends.mps
    return "" if of_kind.is_available() else "PyTorch finds no such GPU here"


def _check_container(task: SortTask) -> Iterator[ClassifiedSortFailure]:
    """Check that the container runtime answers, and the image is there."""
    from spikeinterface.sorters import utils

    kind, image = task.sorter.container, task.sorter.image or ""
    for of, reason, what, is_there in (
        ("singularity", "runtime_missing", "singularity or apptainer", utils.has_singularity),
        ("singularity", "client_missing", "the Python package spython", utils.has_spython),
        ("docker", "client_missing", "the docker client", utils.has_docker),
        ("docker", "client_missing", "the Python package docker", utils.has_docker_python),
    ):
        if of == kind and not is_there():
            msg = f"{what} is not installed"
            raise ContainerEnvironmentError(msg, reason=reason, image=task.sorter.image)
    if kind == "docker":
        yield from _check_docker(task)
    elif kind and image.endswith(".sif") and "://" not in image and not Path(image).is_file():
        msg = f"the image {image} does not exist"
        raise ContainerEnvironmentError(msg, reason="image_pull_failed", image=image)


def _check_docker(task: SortTask) -> Iterator[ClassifiedSortFailure]:
    """Ask the docker daemon, whose errors signatures tell; a missing image is a warning."""
    import docker
    from spikeinterface.sorters.runsorter import SORTER_DOCKER_MAP

    client = docker.from_env(timeout=10)
    image = task.sorter.image or SORTER_DOCKER_MAP.get(task.sorter.name, "")
    try:
        client.images.get(image)
    except docker.errors.DockerException:
        msg = f"the image {image} is not on this machine and will be pulled"
        yield ContainerEnvironmentError(msg, reason="image_pull_failed", image=image)


def _check_hdf5(task: SortTask) -> Iterator[ClassifiedSortFailure]:
    """Check that the folder exists that HDF5_PLUGIN_PATH names."""
    path = os.environ.get("HDF5_PLUGIN_PATH")
    if path and not any(Path(part).is_dir() for part in path.split(os.pathsep)):
        msg = f"HDF5_PLUGIN_PATH names {path}, which is no folder"
        missing = HDF5PluginMissingError(msg, path=path)
        if task.row.reader == "maxwell":  # whose files cannot be read without
            raise missing
        yield missing


def _check_folder(folder: Path) -> None:
    """Check by writing that results can be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".preflight-") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as err:
        msg = f"{folder} cannot be written: {err}"
        raise FolderNotWritableError(msg, path=str(folder)) from err


def _check_disk(folder: Path, header: Mapping[str, Any]) -> Iterator[ClassifiedSortFailure]:
    """Check the free disk against the copy of the recording that most sorters write."""
    free_mb = shutil.disk_usage(folder).free / MB
    itemsize = np.dtype(header["dtype"]).itemsize
    copy_mb = header["n_samples"] * header["n_channels"] * itemsize / MB
    if free_mb < MIN_FREE_DISK_MB:
        msg = f"{free_mb:.0f} MB of disk are free in {folder}, less than {MIN_FREE_DISK_MB:g} MB"
        raise DiskExhaustionError(msg, path=str(folder))
    if free_mb < copy_mb + MIN_FREE_DISK_MB:
        msg = (
            f"{free_mb:.0f} MB of disk are free in {folder}, and a copy of the recording, which "
            f"many sorters write, has {copy_mb:.0f} MB"
        )
        yield DiskExhaustionError(msg, path=str(folder))


def _check_limits() -> Iterator[ClassifiedSortFailure]:
    """Check the host's free memory, and limits of this process (ulimit) that sorts run into."""
    free_mb = memory.read()[0] / MB
    if free_mb < MIN_FREE_RAM_MB:
        msg = f"{free_mb:.0f} MB of memory are free, less than {MIN_FREE_RAM_MB:g} MB"
        yield HostMemoryWatchdogError(msg)
    for name, least, what, option in (
        ("RLIMIT_NOFILE", 256, "open files", "-n"),
        ("RLIMIT_AS", 8e9, "bytes of address space", "-v"),
        ("RLIMIT_FSIZE", 1e9, "bytes of one file", "-f"),
    ):
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY and soft < least:
            msg = f"the limit on {what} is {soft} (ulimit), less than {least:g}"
            remedy = f"Raise it where the jobs start: ulimit {option}."
            yield HostMemoryWatchdogError(msg, remedy=remedy)
