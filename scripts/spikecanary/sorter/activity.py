"""Where a recording is active, by a scan of pieces for peaks; why a sorter missed it."""

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary.failures import ClassifiedSortFailure, RecordingLayoutError, SorterParameterError
from spikecanary.recording import open_recording, preprocess
from spikecanary.recording.layout import MAD_TO_SD
from spikecanary.recording.probes import count_largest_group
from spikecanary.sorter import SortTask
from spikecanary.sorter.registry import BATCHES, CPU_SORTERS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spikeinterface.core import BaseRecording

#: A spike is a peak beyond so many times the noise level; Quiroga et al. 2004 use 4 to 5.
THRESHOLD_MAD = 5.0
#: The scan reads so many pieces of so many s, one at a random place in each stretch of the
#: recording: 80 x 0.5 s find bursts of 2 s every 40 s with 99 % (1 - (1 - 2.5 / 40) ** 80).
N_PIECES = 80
PIECE_S = 0.5
#: Around the most active piece, so many s are read to find where the activity begins.
AROUND_S = 6.0
#: Of recordings with more channels, evenly chosen ones are scanned: neighbours see the same
#: spikes, and 40 s of so many channels are half a gigabyte.
MOST_CHANNELS = 96
#: So often a second and channel noise alone crosses the threshold, up or down: Rice's formula,
#: 2 f * exp(-THRESHOLD_MAD**2 / 2) with f = 3.5 kHz, the mean frequency of a band of 0.3 to 6 kHz.
NOISE_PER_S = 0.026
#: Sorters that scale what they are handed, so that small numbers are no reason to find nothing.
SCALE_FREE = {*CPU_SORTERS} - {"hdsort"}
#: Floating-point samples with less noise are in V or mV: Kilosort's whitening adds 1e-6 to the
#: variance (kilosort 4.1, whitening_from_covariance), and others round.
LEAST_NOISE = 0.05
#: Sorters that place their templates on a grid over many contacts, and how many contacts are few.
NEEDS_NEIGHBOURS = ("kilosort4",)
TETRODE = 4


def scan(task: SortTask, shortest_s: float = 0.0) -> dict[str, Any]:
    """Find where a recording is most active; for a supervised child process.

    It is silent where the most active stretch, as long as what the sorter learns from, has no
    more peaks than noise alone may have there (:func:`_may_be_noise`); of sorters that learn from
    all of it, where all that is read has no more either. What is found begins ``shortest_s`` before
    the end, or earlier.

    Returns
    -------
    dict
        ``start_s``: where the most active stretch begins; ``peaks_per_s`` there, on all
        channels together; ``silent``: whether these may be noise alone; ``read_s``: how much was
        read, and ``n_peaks`` there; ``noise``: the median over channels of the noise in the numbers
        that the sorter is handed; ``largest_group``: contacts near each other.
    """
    from spikeinterface.core import get_random_data_chunks

    opened = open_recording(task.row)
    batch_s = task.learn_s(opened.get_sampling_frequency())
    handed = get_random_data_chunks(preprocess(opened, task.preprocessing), seed=0)
    recording = _band_pass(opened)
    chunks = get_random_data_chunks(recording, concatenated=False, seed=0)
    # The median, where get_noise_levels has the mean: a few artefacts must not hide the activity.
    mads = np.array([np.median(np.abs(chunk), axis=0) for chunk in chunks])
    mads[~(np.isfinite(mads) & (mads > 0))] = np.nan  # flat stretches have none
    with warnings.catch_warnings(action="ignore"):  # of channels that are flat throughout
        noise = np.nan_to_num(np.nanmedian(mads, axis=0), nan=np.inf) / MAD_TO_SD
    duration_s = recording.get_num_samples() / recording.get_sampling_frequency()
    last_s = max(0.0, duration_s - shortest_s)
    edges = np.linspace(0.0, max(duration_s, PIECE_S), N_PIECES + 1)
    rng = np.random.default_rng(0)
    starts = edges[:-1] + rng.uniform(size=N_PIECES) * np.maximum(np.diff(edges) - PIECE_S, 0.0)
    peaks_s = _find_peaks(recording, noise, starts, PIECE_S)
    counts = np.searchsorted(peaks_s, starts + PIECE_S) - np.searchsorted(peaks_s, starts)
    best_s = float(starts[int(np.argmax(counts))])

    around = _find_peaks(recording, noise, [max(0.0, best_s - AROUND_S / 2)], AROUND_S)
    per_s = 0.0
    if len(around):
        following = np.searchsorted(around, around + batch_s) - np.arange(len(around))
        peak = int(np.argmax(following))
        per_s = float(following[peak] / min(batch_s, AROUND_S))
        best_s = max(0.0, float(around[peak]) - 0.05)
    noise_per_s = NOISE_PER_S * recording.get_num_channels()
    is_silent = _may_be_noise(per_s * batch_s, noise_per_s * batch_s)
    if task.sorter.name not in BATCHES:
        read_s = min(N_PIECES * PIECE_S, duration_s)  # pieces of a short one overlap
        n_peaks = len(peaks_s) * read_s / (N_PIECES * PIECE_S)
        is_silent &= _may_be_noise(n_peaks, noise_per_s * read_s)
    return {
        "start_s": round(min(best_s, last_s), 3),
        "peaks_per_s": per_s,
        "silent": is_silent,
        "read_s": min(N_PIECES * PIECE_S + AROUND_S, round(duration_s, 1)),
        "n_peaks": len(peaks_s),
        "noise": float(np.median(np.abs(handed - np.median(handed, axis=0)))) / MAD_TO_SD,
        "largest_group": count_largest_group(opened),
    }


def _may_be_noise(n_peaks: float, expected: float) -> bool:
    """Whether there are at most six standard deviations (Poisson) and four more than expected."""
    return bool(n_peaks <= expected + 6 * expected**0.5 + 4)


def explain_missed(
    found: Mapping[str, Any], task: SortTask, header: Mapping[str, Any]
) -> ClassifiedSortFailure | None:
    """Explain why a sorter found too little where the scan sees activity; None if it cannot."""
    seen = f"a scan of {found['read_s']:g} s sees {found['n_peaks']:,} peaks"
    noise = found["noise"] * float(task.sorter.params.get("scale") or 1.0)
    is_float = np.dtype(header["dtype"]).kind == "f"
    if is_float and 0 < noise < LEAST_NOISE and task.sorter.name not in SCALE_FREE:
        gain = header.get("gain_to_uV")
        known = "" if gain is None else f" (gain to uV: {gain:g})"
        msg = (
            f"the noise of the numbers that {task.sorter.name} is handed is {noise:.3g}{known}: "
            f"too small to sort, though {seen}; are the samples in volts?"
        )
        steps = "".join(f", {step}: ..." for step in task.preprocessing)
        remedy = (
            f"Set preprocessing_of: {{in_uV: {{scale_to_uV: {{}}{steps}}}}} in the config, and "
            "in_uV in its column preprocessing (it needs the right gain to uV). Or, of a sorter "
            f"that has it, set {task.alone('scale', '...')}, so that the noise is about 10."
        )
        path = task.row.paths[0]
        return RecordingLayoutError(msg, remedy=remedy, path=path, noise=noise, gain=gain)
    if task.sorter.name in NEEDS_NEIGHBOURS and found["largest_group"] <= TETRODE:
        msg = (
            f"{task.sorter.name} cannot sort this geometry, groups of {found['largest_group']} "
            f"contacts: it finds too few spikes, though {seen}"
        )
        remedy = (
            "Choose a sorter for tetrodes (mountainsort5, spykingcircus2, tridesclous2), or "
            "sort one group a row (column channels, such as group=0)."
        )
        if task.sorter.params.get("nblocks") != 0:
            remedy += f" Or set {task.alone('nblocks', 0)}."
        name, n_peaks = task.sorter.name, found["n_peaks"]
        return SorterParameterError(msg, remedy=remedy, sorter=name, n_peaks=n_peaks)
    return None


def _band_pass(recording: "BaseRecording") -> "BaseRecording":
    """Filter a recording for spikes, of many channels evenly chosen ones."""
    from spikeinterface.preprocessing import astype, bandpass_filter

    step = -(-recording.get_num_channels() // MOST_CHANNELS)
    recording = recording.select_channels(recording.channel_ids[::step])
    nyquist_hz = recording.get_sampling_frequency() / 2
    return bandpass_filter(
        astype(recording, "float32"), freq_min=300.0, freq_max=min(6000.0, 0.9 * nyquist_hz)
    )


def _find_peaks(
    recording: "BaseRecording",
    noise: "NDArray[Any]",
    starts_s: Iterable[float],
    length_s: float,
) -> "NDArray[np.float64]":
    """Return the times in s of peaks in some pieces, all channels together, sorted."""
    from spikeinterface.sortingcomponents.peak_detection import detect_peaks

    rate_hz, n_samples = recording.get_sampling_frequency(), recording.get_num_samples()
    begins = [min(int(start_s * rate_hz), n_samples - 1) for start_s in starts_s]
    peaks = detect_peaks(
        recording,
        "by_channel",
        method_kwargs={
            "peak_sign": "both",
            "exclude_sweep_ms": 2.0,  # a spike's other lobes are no peaks of their own
            "detect_threshold": THRESHOLD_MAD,
            "noise_levels": noise,
        },
        pipeline_kwargs={
            "slices": [(0, at, min(at + int(length_s * rate_hz), n_samples)) for at in begins]
        },
        job_kwargs={"n_jobs": 1, "progress_bar": False},
    )
    found: NDArray[np.float64] = np.sort(peaks["sample_index"]) / rate_hz
    return found
