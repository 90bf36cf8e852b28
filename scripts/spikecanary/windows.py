"""One window of a canary: sort it, tell its failure, and what it measured."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikecanary import diagnosis
from spikecanary.config import SignalSettings
from spikecanary.failures import BiologicalFailure, ClassifiedSortFailure
from spikecanary.sentinel import Measured, Window
from spikecanary.sorter import LEAST_BATCHES, SortTask
from spikecanary.supervise.folders import work_folder
from spikecanary.supervise.run import Ended, Supervision

logger = logging.getLogger(__name__)

#: A second window is this share of the first.
SECOND_SHARE = 1 / 3
#: It pays where the full sort has so many times the data of the first.
SECOND_PAYS = 8.0


@dataclass(frozen=True)
class Attempt:
    """One window that was sorted: how it ended, and the failure if it is a known one."""

    window: Window
    ended: Ended
    failure: ClassifiedSortFailure | None

    @property
    def n_units(self) -> int | None:
        """Units found; None where the sort failed."""
        return self.window.n_units

    @property
    def suspicious(self) -> bool:
        """Whether the data may be to blame: a biological failure, or no units."""
        return isinstance(self.failure, BiologicalFailure) or self.n_units == 0


def shorter(
    window: Window, task: SortTask, header: Mapping[str, Any]
) -> tuple[float, float] | None:
    """Return the part of a window whose sort tells, beside the whole's, how costs grow.

    None where the recording is too short for that to pay, or the part too short to sort.
    """
    length_s = window.end_s - window.start_s
    batch_s = task.batch_s(header["sampling_frequency_hz"]) or 0.0
    part_s = max(length_s * SECOND_SHARE, LEAST_BATCHES * batch_s)
    if header["duration_s"] < SECOND_PAYS * length_s or part_s > 0.5 * length_s:
        return None
    return window.start_s, window.start_s + part_s


def sort_window(
    task: SortTask,
    window_s: tuple[float, float],
    why: str,
    signals: SignalSettings,
    *,
    folder: Path,
    supervision: Supervision,
) -> Attempt:
    """Sort one window with the code of the full sort.

    Parameters
    ----------
    task : SortTask
        The full sort.
    window_s : (float, float)
        Begin and end of the window in s.
    why : str
        What the window is for, noted in the sentinel.
    signals : SignalSettings
        Thresholds by which a biological failure is told apart.
    folder : Path
        Where to work; made empty, and removed.
    supervision : Supervision
        How the child process is watched.
    """
    start_s, end_s = window_s
    with work_folder(folder):
        ended, failure = diagnosis.sort(
            task.for_canary(start_s, end_s), signals, folder=folder, supervision=supervision
        )
    found = ended.result or {}
    said = f"{found['n_units']} units" if found else ended.describe()
    logger.info("%s: window %g to %g s (%s): %s", task.row.id, start_s, end_s, why, said)
    window = Window(
        start_s=start_s,
        end_s=end_s,
        why=why,
        ended=said,
        n_units=found.get("n_units"),
        n_spikes=found.get("n_spikes"),
        measured=_without_copy(task, ended),
    )
    return Attempt(window, ended, failure)


def _without_copy(task: SortTask, ended: Ended) -> Measured:
    """Return what was measured, without a copy of the samples that the full sort will not make.

    A sorter that wants a binary file reads a recording that is one as it is; of a window,
    which is none, SpikeInterface writes a copy first.
    """
    whole = ended.facts.get("header", {}).get("is_binary") and not task.preprocessing
    copied_mb = ended.facts.get("copied_mb", 0.0)
    disk_mb = ended.measured.disk_mb or 0.0
    if not whole or disk_mb < copied_mb:
        return ended.measured
    return ended.measured.model_copy(update={"disk_mb": round(disk_mb - copied_mb, 1)})
