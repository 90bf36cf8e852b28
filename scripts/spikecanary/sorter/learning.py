"""What a full sort will learn its templates from: clips in every 25th batch of Kilosort 4."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from spikecanary.failures import (
    ClassifiedSortFailure,
    InsufficientActivityError,
    SorterParameterError,
)
from spikecanary.recording import open_recording
from spikecanary.sorter import SortTask, prepare
from spikecanary.sorter.registry import BATCHES, sorter_class, with_device
from spikecanary.texts import count

#: From a shifted start the sort must learn so many times the clips that it needs: whitening is
#: learned from other batches then, too.
SURE_TIMES = 3
#: So many clips are plenty to learn from, so that no later start is looked for.
PLENTY = 100
#: At most so many batches are read to find such a start.
MOST_BATCHES = 250


class Learned(BaseModel):
    """What a full sort will learn from."""

    needed: int  #: clips
    counts: dict[float, int]  #: clips by where their batch begins, in s; read until they are enough
    start_s: float | None = None  #: where the sort would have to begin, if they are too few

    @property
    def n_clips(self) -> int:
        """Clips in all batches that were read."""
        return sum(self.counts.values())

    @property
    def is_enough(self) -> bool:
        """Whether the full sort learns its templates."""
        return self.n_clips >= self.needed

    @property
    def richest_s(self) -> float | None:
        """Where the batch with the most clips begins, if it alone is enough."""
        start_s = max(self.counts, key=lambda each: self.counts[each], default=0.0)
        return start_s if self.counts.get(start_s, 0) >= self.needed else None

    def describe(self) -> str:
        """Say what the full sort learns from, in one line."""
        at = ", ".join(f"{start_s:g}" for start_s in list(self.counts)[:3])
        more = " s, ..." if len(self.counts) > 3 else " s"  # noqa: PLR2004
        batches = f"the batches at {at}{more}" if len(self.counts) > 1 else "the first batch"
        spikes = count(self.n_clips, "spike")
        found = f"{spikes}, of {self.needed} that it needs to learn templates"
        return f"{found}, in {batches}"


def explain_too_few(learned: Learned, task: SortTask, *, silent: bool) -> ClassifiedSortFailure:
    """Return why a full sort that learns from too few clips is certain to fail, and the way out."""
    name, start_s = task.sorter.name, learned.start_s
    msg = f"{name} finds {learned.describe()}"
    if start_s is None and silent:
        return InsufficientActivityError(msg, n_spikes=learned.n_clips)
    evidence: dict[str, Any] = {"sorter": name}
    if start_s is not None and not task.row.chunks:
        from_s = (task.row.start_s or 0.0) + start_s
        msg += f"; from {from_s:g} s on it would learn enough"
        evidence |= {"parameter": "start_s", "start_s": from_s}
        remedy = (
            f"Set start_s to {from_s:g} in the recordings table: what comes before is not sorted. "
            f"Or set {task.alone('templates_from_data', 'false')}."
        )
    else:
        msg += ", though a scan of the recording sees activity"
        remedy = f"{task.suspects} Or set {task.alone('templates_from_data', 'false')}."
    return SorterParameterError(msg, remedy=remedy, **evidence)


class _CountedError(Exception):
    """Ends Kilosort once its clips are counted."""


def is_countable(task: SortTask) -> bool:
    """Whether a task's sorter learns from the data, by code that runs in this environment."""
    settings = task.sorter
    learns = settings.params.get("templates_from_data", True)
    return settings.name in BATCHES and settings.container is None and bool(learns)


def count_clips(task: SortTask, folder: Path) -> Learned:
    """Count the clips that a full sort learns from, for a supervised child process.

    Kilosort itself opens, filters and whitens, in an empty folder; where it would extract clips
    from batches 0, 25, 50, ... (kilosort 4.1.7, ``extract_wPCA_wTEMP``), its own
    ``extract_snippets`` are counted, and the sort ends. Fewer clips than templates fail (none in
    TruncatedSVD, others in KMeans).
    """
    from kilosort import spikedetect
    from spikeinterface.sorters import run_sorter

    recording = prepare(open_recording(task.row), task)
    params = with_device(sorter_class(task.sorter.name).default_params(), task.sorter)
    found: list[Learned] = []

    def count(ops: Any, bfile: Any, **options: Any) -> None:
        found.append(_count(ops, bfile, **options))
        raise _CountedError

    extract, spikedetect.extract_wPCA_wTEMP = spikedetect.extract_wPCA_wTEMP, count
    try:
        # None: the samples are read as they are needed, without a copy of them all.
        params |= {"use_binary_file": None, "save_preprocessed_copy": False}
        run_sorter(task.sorter.name, recording, folder=str(folder / "sorter"), **params)
    except Exception:
        if not found:
            raise
    finally:
        spikedetect.extract_wPCA_wTEMP = extract
    (learned,) = found
    return learned


def _count(ops: Any, bfile: Any, nskip: int, **of_snippets: Any) -> Learned:
    """Count as ``extract_wPCA_wTEMP`` extracts, which is given these arguments."""
    from kilosort.spikedetect import extract_snippets

    # Of fewer clips there are fewer components than n_pcs, all of which the sort takes.
    needed, counts = max(int(ops["settings"][x]) for x in ("n_templates", "n_pcs")), {}
    span_s = float(ops["batch_size"] / ops["fs"])
    downsampling = bfile.batch_downsampling
    step, last = nskip * downsampling, int(bfile.n_batches) * downsampling
    bfile.set_downsampling(1)  # batches are numbered as they are in the file

    def count_batch(number: int) -> int:
        return len(extract_snippets(bfile.padded_batch_to_torch(number, ops), **of_snippets))

    for number in range(0, last, step):
        counts[round(number * span_s, 3)] = count_batch(number)
        if sum(counts.values()) >= needed:
            return Learned(needed=needed, counts=counts)
    start = _find_start(count_batch, int(bfile.n_batches), step, needed)
    start_s = None if start is None else round(start * span_s, 3)
    return Learned(needed=needed, counts=counts, start_s=start_s)


def _find_start(
    count_batch: Callable[[int], int], n_batches: int, step: int, needed: int
) -> int | None:
    """Return the first batch from which a sort would learn enough, half of the most at least."""
    totals: dict[int, int] = {}
    in_order = [
        (start, number)
        for start in range(1, min(step, n_batches))
        for number in range(start, n_batches, step)
    ]
    for start, number in in_order[:MOST_BATCHES]:
        totals[start] = totals.get(start, 0) + count_batch(number)
        if totals[start] >= PLENTY:
            break
    least = max(SURE_TIMES * needed, max(totals.values(), default=0) / 2)
    return next((start for start, total in totals.items() if total >= least), None)
