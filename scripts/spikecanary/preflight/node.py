"""Can this machine run a sorter at all? Tried once, before the canaries that need that sorter."""

import json
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spikecanary import preflight, sentinel, sorter
from spikecanary.config import Config, SorterSettings, as_set
from spikecanary.failures import (
    ClassifiedSortFailure,
    EnvironmentFailure,
    PreprocessingError,
    RecordingLayoutError,
    RecordingUnreadableError,
    SorterParameterError,
)
from spikecanary.recording import describe_header, open_recording
from spikecanary.sentinel import Failure
from spikecanary.sorter import SortTask
from spikecanary.supervise import folders, gpus, watchdogs
from spikecanary.supervise.job import Job
from spikecanary.supervise.run import call
from spikecanary.table import Recording

logger = logging.getLogger(__name__)

#: Fewer recordings are not worth the trial, which takes about as long as a canary.
LEAST_RECORDINGS = 4
#: What the trial sorts: a seeded recording of so many channels and units, and at least so many s.
N_CHANNELS, N_UNITS, SHORTEST_S, RATE_HZ = 16, 6, 6.0, 30_000.0
#: Failures of the environment that may be of the made recording, and not of the machine.
OF_RECORDING = (
    PreprocessingError,
    RecordingLayoutError,
    RecordingUnreadableError,
    SorterParameterError,
)


def describe_kind(name: str, config: Config) -> dict[str, Any]:
    """Return what makes another trial necessary: the sorter's settings, versions, the driver."""
    settings = sorter.settings_for(name, config.sorter)
    return {
        "sorter": {**as_set(settings), "name": name},
        "versions": sentinel.package_versions(),
        "driver": gpus.driver_version(),
    }


def run(
    settings: SorterSettings, record: Path, job: Job, n_jobs: int, waiting: Sequence[str]
) -> EnvironmentFailure | None:
    """Try a sorter on this machine: preflight, then a sort of a made recording of a few seconds.

    ``record`` is written where canaries may begin; where they may not, a file beside it, which
    :func:`spikecanary.summary.read_waiting` reads, with the recordings that are ``waiting`` for it.
    Returns why this machine cannot run the sorter; None where it can, or where the trial proved
    nothing: then the canaries tell.
    """
    record.parent.mkdir(parents=True, exist_ok=True)
    task = SortTask(row=_row(record.parent), sorter=settings, n_jobs=n_jobs)
    folders.sweep(record.parent)
    with folders.work_folder(folders.work_path(record.parent, "node")) as folder:
        limit_s = watchdogs.canary_inactivity_s(SHORTEST_S)
        ended = call(
            try_sorter,
            {"task": task, "folder": folder / "trial"},
            folder=folder / "trial",
            supervision=job.supervision(task, record.parent, limit_s),
        )
    failure, failed = ended.failure, record.with_suffix(".failed.json")
    if isinstance(failure, EnvironmentFailure) and not isinstance(failure, OF_RECORDING):
        found = {
            "failure": Failure.of(failure).model_dump(mode="json", by_alias=True),
            "reason": describe(settings, failure),
            "recordings": list(waiting),
            "host": socket.gethostname(),
            "log": str(job.log),
            "at": sentinel.now(),
        }
        sentinel.write_atomic(failed, json.dumps(found, indent=1))
        return failure
    logger.info("%s was tried: %s", settings.name, ended.describe())
    failed.unlink(missing_ok=True)
    tried = {"ended": ended.describe(), "wall_s": ended.measured.wall_s, "at": sentinel.now()}
    sentinel.write_atomic(record, json.dumps(tried, indent=1))
    return None


def try_sorter(task: SortTask, folder: Path, tell: Callable[..., None]) -> dict[str, Any]:
    """Make a recording in a folder, check this node, and sort; for a supervised child process."""
    from spikeinterface.generation import generate_ground_truth_recording

    tell(stage="make")
    batch_s = task.batch_s(RATE_HZ) or 0.0
    recording, _ = generate_ground_truth_recording(
        durations=[max(SHORTEST_S, sorter.LEAST_BATCHES * batch_s)],
        sampling_frequency=RATE_HZ,
        num_channels=N_CHANNELS,
        num_units=N_UNITS,
        seed=0,
    )
    recording.save(folder=folder / "recording", verbose=False, progress_bar=False)
    tell(stage="inspect")
    task = task.model_copy(update={"row": _row(folder / "recording")})
    header = describe_header(open_recording(task.row))
    preflight.check_node(task, folder, header)
    return sorter.sort(task, folder, tell)


def _row(path: Path) -> Recording:
    return Recording(id="node", paths=(str(path),), reader="spikeinterface")


def describe(settings: SorterSettings, failure: ClassifiedSortFailure) -> str:
    """Say in one line what is wrong with this machine."""
    return f"{settings.name} cannot run on this machine: {failure}"
