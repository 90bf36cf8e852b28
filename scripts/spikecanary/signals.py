"""The signal itself: channels that carry none, and where the recording is active.

Both read sampled pieces only, a few tens of seconds of a recording of any length.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spikecanary.failures import (
    BiologicalFailure,
    ClassifiedSortFailure,
    NonFiniteSignalError,
    SaturatedSignalError,
)
from spikecanary.recording import cut_window, open_recording
from spikecanary.table import Recording

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spikeinterface.core import BaseRecording

#: The signal check samples so many chunks of so many s.
N_CHUNKS, CHUNK_S = 10, 0.5
#: A channel with this share of its samples at its lowest or highest value carries no signal.
RAILED_SHARE = 0.5
#: Noise levels outside of this range, in uV, make the gain doubtful.
PLAUSIBLE_UV = (0.1, 1000.0)
#: Channels that a warning names.
MOST_NAMED = 10
#: MAD of a normal distribution over its standard deviation.
MAD_TO_SD = 0.6745
#: A spike is a peak below so many times the noise level; Quiroga et al. 2004 use 4 to 5.
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
#: So often a second and channel noise alone crosses the threshold: Rice's formula,
#: f * exp(-THRESHOLD_MAD**2 / 2) with f = 3.5 kHz, the mean frequency of a band of 0.3 to 6 kHz.
NOISE_PER_S = 0.013


@dataclass(frozen=True)
class SignalReport:
    """What the sampled chunks of a recording show, by channel.

    ``noise_uV`` is the median over channels, None where the gain is not known.
    """

    n_channels: int
    n_samples: int
    non_finite_samples: int
    non_finite: list[str]
    flat: list[str]
    railed: list[str]
    noise_uV: float | None  # noqa: N815 - the field's unit

    def failure(self) -> BiologicalFailure | None:
        """Return the failure that needs no sort to be sure: no channel carries a signal."""
        if len({*self.flat, *self.railed}) < self.n_channels:
            return None
        msg = f"all {self.n_channels} channels are flat or at the converter's limits"
        return SaturatedSignalError(msg, n_channels=self.n_channels)

    def warnings(self) -> list[str]:
        """Describe what may spoil the sort, naming the channels."""
        messages = []
        for names, what in (
            (self.non_finite, "have samples that are not finite"),
            (self.flat, "are flat"),
            (self.railed, "are at the converter's limits"),
        ):
            if names:
                shown = ", ".join(names[:MOST_NAMED]) + (" ..." if len(names) > MOST_NAMED else "")
                messages.append(f"{len(names)} of {self.n_channels} channels {what}: {shown}")
        low, high = PLAUSIBLE_UV
        if self.noise_uV is not None and not low <= self.noise_uV <= high:
            messages.append(
                f"the noise level of {self.noise_uV:.3g} uV is implausible (expected {low:g} to "
                f"{high:g} uV): is the gain right?"
            )
        return messages


def check(recording: "BaseRecording") -> SignalReport:
    """Look at sampled chunks of a raw recording.

    A channel is *flat* where it holds one value, and *railed* where at least ``RAILED_SHARE`` of
    its samples are at its lowest or highest value.
    """
    from spikeinterface.core import get_random_data_chunks

    traces = np.asarray(
        get_random_data_chunks(
            recording, num_chunks_per_segment=N_CHUNKS, chunk_duration=f"{CHUNK_S}s", seed=0
        )
    )
    finite = np.isfinite(traces)
    values = traces if finite.all() else np.where(finite, traces, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel without one finite sample
        lowest, highest = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    flat = ~(highest > lowest)
    at_limit = ((traces == lowest) | (traces == highest)).mean(axis=0)
    railed = ~flat & (at_limit >= RAILED_SHARE)
    names = np.asarray(recording.channel_ids).astype(str)
    return SignalReport(
        n_channels=traces.shape[1],
        n_samples=traces.shape[0],
        non_finite_samples=int((~finite).sum()),
        non_finite=names[~finite.all(axis=0)].tolist(),
        flat=names[flat].tolist(),
        railed=names[railed].tolist(),
        noise_uV=_noise_uV(recording, values, ~flat & ~railed),
    )


def _noise_uV(  # noqa: N802 - the unit
    recording: "BaseRecording", values: "NDArray[Any]", good: "NDArray[np.bool_]"
) -> float | None:
    """Median over the good channels of the noise level by MAD, in uV."""
    gains = recording.get_channel_gains()
    if gains is None or not good.any():
        return None
    centred = values[:, good] - np.nanmedian(values[:, good], axis=0)
    mads = np.nanmedian(np.abs(centred), axis=0) / MAD_TO_SD
    return float(np.median(mads * np.abs(gains[good])))


def tell_apart(
    failure: ClassifiedSortFailure | None, report: Mapping[str, Any]
) -> ClassifiedSortFailure | None:
    """Correct a sorter's complaint by what the data of its window show.

    NaN, saturation and silence can give one text; the data tell them apart.

    Parameters
    ----------
    failure : ClassifiedSortFailure or None
        The failure by its text, if that is known.
    report : dict
        A :class:`SignalReport` of the window that was sorted, as plain data.
    """
    seen = SignalReport(**report)
    if seen.non_finite_samples:
        msg = (
            f"{seen.non_finite_samples} of {seen.n_samples * seen.n_channels} samples looked at "
            f"are NaN or infinite, on {len(seen.non_finite)} of {seen.n_channels} channels"
        )
        return NonFiniteSignalError(msg, n_samples=seen.non_finite_samples)
    return seen.failure() or failure


def check_window(row: Mapping[str, Any], window_s: tuple[float, float] | None) -> dict[str, Any]:
    """Look at a window, or at a whole recording (None), for a supervised child process.

    Sampled chunks; and of a window all samples that are not finite, since one can spoil a sort.
    """
    recording = open_recording(Recording.model_validate(row))
    if window_s is None:
        return asdict(check(recording))
    window = cut_window(recording, *window_s)
    report = asdict(check(window))
    if window.get_dtype().kind == "f":
        bad = _count_non_finite(window)
        names = np.asarray(window.channel_ids).astype(str)
        report |= {
            "non_finite_samples": int(bad.sum()),
            "non_finite": names[bad > 0].tolist(),
            "n_samples": window.get_num_samples(),
        }
    return report


def _count_non_finite(recording: "BaseRecording") -> "NDArray[np.int64]":
    """Count the samples of each channel that are not finite, second by second."""
    step = max(1, int(recording.get_sampling_frequency()))
    counts = np.zeros(recording.get_num_channels(), dtype=np.int64)
    for start in range(0, recording.get_num_samples(), step):
        end = min(start + step, recording.get_num_samples())
        traces = recording.get_traces(start_frame=start, end_frame=end)
        counts += (~np.isfinite(traces)).sum(axis=0)
    return counts


def scan(row: Mapping[str, Any], batch_s: float, shortest_s: float) -> dict[str, Any]:
    """Find where a recording is most active; for a supervised child process.

    It is silent where the most active stretch has no more peaks than noise alone may
    have there: six standard deviations (Poisson) and four above the mean.

    Parameters
    ----------
    row : dict
        The recording.
    batch_s : float
        What the sorter learns from first, in s: the activity of that long a stretch
        counts.
    shortest_s : float
        The window must be at least that long, so it begins that much before the end.

    Returns
    -------
    dict
        ``start_s``: where the most active stretch begins; ``peaks_per_s`` there, on all
        channels together; ``silent``: whether these may be noise alone; ``read_s``: how much was
        read.
    """
    from spikeinterface.core import get_random_data_chunks

    recording = _band_pass(open_recording(Recording.model_validate(row)))
    chunks = get_random_data_chunks(recording, concatenated=False, seed=0)
    # The median, where get_noise_levels has the mean: a few artefacts must not hide the activity.
    noise = np.median([np.median(np.abs(chunk), axis=0) for chunk in chunks], axis=0) / MAD_TO_SD
    noise = np.where(np.isfinite(noise) & (noise > 0), noise, np.inf)
    last_s = max(0.0, recording.get_duration() - shortest_s)
    edges = np.linspace(0.0, max(last_s, PIECE_S), N_PIECES + 1)
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
    noise_count = NOISE_PER_S * recording.get_num_channels() * batch_s
    return {
        "start_s": round(min(best_s, last_s), 3),
        "peaks_per_s": per_s,
        "silent": per_s * batch_s <= noise_count + 6 * noise_count**0.5 + 4,
        "read_s": N_PIECES * PIECE_S + AROUND_S,
    }


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
    starts_s: "Sequence[float] | NDArray[Any]",
    length_s: float,
) -> "NDArray[np.float64]":
    """Return the times in s of negative peaks in some pieces, all channels together, sorted."""
    from spikeinterface.sortingcomponents.peak_detection import detect_peaks

    rate_hz, n_samples = recording.get_sampling_frequency(), recording.get_num_samples()
    begins = [min(int(start_s * rate_hz), n_samples - 1) for start_s in starts_s]
    peaks = detect_peaks(
        recording,
        "by_channel",
        method_kwargs={"detect_threshold": THRESHOLD_MAD, "noise_levels": noise},
        pipeline_kwargs={
            "slices": [(0, at, min(at + int(length_s * rate_hz), n_samples)) for at in begins]
        },
        job_kwargs={"n_jobs": 1, "progress_bar": False},
    )
    found: NDArray[np.float64] = np.sort(peaks["sample_index"]) / rate_hz
    return found
