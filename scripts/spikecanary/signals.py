"""The signal map: what pieces of the whole recording show, by period and by channel.

Pieces are read at even distances, a few hundred megabytes of a recording of any length; of
floating-point numbers, which alone can be NaN, all samples.
"""

import bisect
import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from spikecanary.failures import (
    BiologicalFailure,
    ClassifiedSortFailure,
    NonFiniteSignalError,
    PreprocessingError,
    SaturatedSignalError,
)
from spikecanary.recording import cut_window, find_chunks, open_recording
from spikecanary.recording.formats import describe_binary, find_source
from spikecanary.recording.layout import MAD_TO_SD, read_bytes
from spikecanary.sentinel import BadPeriod, MapRow
from spikecanary.table import Recording
from spikecanary.texts import count, shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spikeinterface.core import BaseRecording

#: A recording is divided into at most so many periods of at least so many s, with a piece each:
#: of an hour every 3.6 s are looked at.
MOST_PERIODS, LEAST_PERIOD_S = 1_000, 0.5
#: Pieces have between so many s, and together no more than so many bytes.
LEAST_PIECE_S, MOST_PIECE_S, MOST_BYTES = 0.01, 0.25, 250e6
#: Of a recording at a URL whole chunks are read, several at once where they have fewer bytes.
LEAST_FETCHED_BYTES = 500e3
#: A channel with this share of its samples at its lowest or highest value carries no signal.
RAILED_SHARE = 0.5
#: A period is bad where this share of the channels that carry a signal elsewhere carry none, or
#: where the noise is so many times higher or lower than elsewhere, for at least so many s.
BAD_SHARE, NOISE_FACTOR, LEAST_BAD_S = 0.9, 4.0, 0.5
#: Noise of fewer counts jumps between them: that of a piece tells nothing.
LEAST_COUNTS = 2.0
#: A channel that carries no signal in this share of the pieces carries none.
ALWAYS = 0.9
#: Where none carries more, all of them carry none with this share.
ALL_ALWAYS = 0.99
#: One that carries none in so many pieces is named.
LEAST_PIECES = 3
#: Rows of the map that is kept.
MOST_ROWS = 60
#: Noise levels outside of this range, in uV, make the gain doubtful.
PLAUSIBLE_UV = (0.1, 1000.0)
#: Noise is measured on differences over so many s, which slow signals do not enter.
DIFFERENCE_S = 0.0003
#: What is sorted of a recording: all of it.
WHOLE: tuple[tuple[float, float | None], ...] = ((0.0, None),)
#: So many times more active, the louder part of a recording is the one with electrodes.
ACTIVE_TIMES = 1.5
#: A channel is active in a piece where a difference is beyond so many times its noise.
ACTIVE_MAD = 6.0


class SignalReport(BaseModel):
    """What a recording shows; channels by their names, times from the first sample sorted."""

    model_config = ConfigDict(frozen=True)

    n_channels: int
    non_finite_samples: int  #: NaN or infinite, of all channels
    non_finite: list[str]  #: channels with such samples
    flat: list[str]  #: channels that hold one value
    railed: list[str]  #: channels at the converter's limits
    #: The median over channels and pieces; None where the gain is not known.
    noise_uV: float | None  # noqa: N815 - the field's unit
    partly: list[str] = []  #: no signal for a part of the recording, beside its bad periods
    rows: list[MapRow] = []  #: the signal map
    bad_periods: list[BadPeriod] = []  #: stretches without a usable signal
    first_non_finite_s: float | None = None
    gains_are_finite: bool = True
    #: What is sorted, by the columns: texts count as these do.
    cut: tuple[tuple[float, float | None], ...] = WHOLE

    def failure(self, *, bad_periods_stop: bool = False) -> BiologicalFailure | None:
        """Return the failure that needs no sort to be sure."""
        if self.non_finite_samples:
            at_s = self.first_non_finite_s
            first_s = "" if at_s is None else f"{self._uncut_s(at_s):.3f} s{self._counted}"
            msg = (
                f"{self.non_finite_samples:,} samples are NaN or infinite, on "
                f"{len(self.non_finite)} of {self.n_channels} channels ({shorten(self.non_finite)})"
                + (first_s and f", the first at {first_s}")
            )
            return NonFiniteSignalError(
                msg, n_samples=self.non_finite_samples, channels=self.non_finite, first_s=at_s
            )
        if len({*self.flat, *self.railed}) >= self.n_channels:
            msg = f"all {self.n_channels} channels are flat or at the converter's limits"
            return SaturatedSignalError(msg, n_channels=self.n_channels)
        if bad_periods_stop and any(period.is_dead for period in self.bad_periods):
            remedy = "Cut them out (column chunks), or set canary.bad_periods to warn or silence."
            msg = self.describe_bad_periods()
            return SaturatedSignalError(msg, n_channels=self.n_channels, remedy=remedy)
        return None

    def after(
        self, preprocessed: "SignalReport", dtype: "np.dtype[Any]"
    ) -> "tuple[SignalReport, list[str]]":
        """Return this without samples that preprocessing has made finite, and a note of that."""
        if dtype.kind != "f" or preprocessed.non_finite_samples:  # a whole number is never NaN
            return self, []
        note = f"preprocessing replaces {self.non_finite_samples:,} samples that are not finite"
        cleared = {"non_finite_samples": 0, "non_finite": [], "first_non_finite_s": None}
        return self.model_copy(update=cleared), [note]

    def describe_bad_periods(self) -> str:
        """Name the bad periods in one line."""
        inside = 0.001  # they are rounded, and may end where a chunk does
        named = [
            f"{self._uncut_s(period.start_s + inside) - inside:.2f} to "
            f"{self._uncut_s(period.end_s - inside) + inside:.2f} s ({period.what})"
            for period in self.bad_periods
        ]
        return f"{count(len(named), 'bad period')}: {shorten(named)}{self._counted}"

    def _uncut_s(self, at_s: float) -> float:
        """Return when a moment of what is sorted is in the whole recording."""
        for start_s, end_s in self.cut:
            if end_s is None or at_s < end_s - start_s:
                return start_s + at_s
            at_s -= end_s - start_s
        return (end_s or 0.0) + at_s

    @property
    def _counted(self) -> str:
        """How texts count times, where a part of the recording is sorted."""
        return "" if self.cut == WHOLE else " (counted as start_s, end_s and chunks are)"

    def warnings(self) -> list[str]:
        """Describe what may spoil the sort, naming channels and periods."""
        bad_channels = {
            "are flat": self.flat,
            "are at the converter's limits": self.railed,
            "carry no signal for a part of the recording": self.partly,
        }
        hint = " (column bad_channels leaves them out)"
        messages = [
            f"{len(names)} of {self.n_channels} channels {what}: {shorten(names)}"
            f"{'' if names is self.partly or len(names) == self.n_channels else hint}"
            for what, names in bad_channels.items()
            if names
        ]
        if self.bad_periods:
            messages.append(self.describe_bad_periods())
        if not self.gains_are_finite:
            messages.append(
                "gains of channels are NaN or infinite, so noise is not known in uV: correct them"
            )
        low, high = PLAUSIBLE_UV
        if self.noise_uV is not None and not low <= self.noise_uV <= high:
            messages.append(
                f"the noise level of {self.noise_uV:.3g} uV is implausible (expected {low:g} to "
                f"{high:g} uV): is the gain right?"
            )
        return messages


@dataclass(frozen=True)
class _Pieces:
    """What pieces show, each an array of (pieces, channels); where they start, in samples."""

    starts: "NDArray[np.int64]"
    length: int
    lowest: "NDArray[Any]"
    highest: "NDArray[Any]"
    at_limit: "NDArray[np.float64]"
    finite: "NDArray[np.bool_]"
    noise: "NDArray[np.float64]"
    active: "NDArray[np.bool_]"

    def limits(self) -> "tuple[NDArray[Any], NDArray[Any]]":
        """Return the lowest and the highest value of each channel."""
        return np.fmin.reduce(self.lowest), np.fmax.reduce(self.highest)

    def find_dead(
        self, limits: "tuple[NDArray[Any], NDArray[Any]]"
    ) -> "tuple[NDArray[np.bool_], NDArray[np.bool_]]":
        """Return where a channel holds one value, and where it is at its own limits."""
        lowest, highest = limits
        at_end = (self.lowest <= lowest) | (self.highest >= highest)
        railed = (self.at_limit >= RAILED_SHARE) & at_end & (highest > lowest)
        return ~(self.highest > self.lowest) & ~railed, railed


def check(recording: "BaseRecording", *, whole: bool = True, remote: bool = False) -> SignalReport:
    """Look at pieces of a raw recording of one segment.

    ``whole``: count the samples that are not finite in all of it, not in the pieces alone;
    ``remote``: it is at a URL, so pieces are whole chunks, and bad periods begin and end with one.
    """
    rate_hz = recording.get_sampling_frequency()
    place = _place_on_chunks if remote else _place_pieces
    pieces = _look(recording, *place(recording))
    flat, railed = pieces.find_dead(pieces.limits())
    flat &= pieces.finite
    always_flat, always_railed = flat.mean(axis=0) >= ALWAYS, railed.mean(axis=0) >= ALWAYS
    if (always_flat | always_railed).all():  # of a short signal the rest is a bad period
        is_dead = (flat | railed).mean(axis=0) >= ALL_ALWAYS
        always_flat, always_railed = always_flat & is_dead, always_railed & is_dead
    good = ~(always_flat | always_railed)
    gains = recording.get_channel_gains()
    if not (gains_are_finite := gains is None or bool(np.isfinite(gains).all())):
        gains = None
    scale = np.ones(len(good)) if gains is None else np.abs(np.asarray(gains, dtype=float))
    noise = pieces.noise * scale
    names = np.asarray(recording.channel_ids).astype(str)
    known = noise[:, good][pieces.noise[:, good] > 0]
    counts, first_s = _count_non_finite(recording, pieces, whole=whole)
    step = pieces.length if remote else 1
    periods = _find_bad_periods(recording, pieces, good, scale, step) if good.any() else []
    starts_s, elsewhere = pieces.starts / rate_hz, np.ones(len(pieces.starts), dtype=bool)
    for period in periods:
        elsewhere &= (starts_s < period.start_s) | (starts_s >= period.end_s)
    partly = good & ((flat | railed)[elsewhere].sum(axis=0) >= LEAST_PIECES)
    states = {"flat": flat, "railed": railed, "non_finite": ~pieces.finite, "active": pieces.active}
    usual = np.median(noise[:, good], axis=1) if good.any() else np.zeros(len(noise))
    return SignalReport(
        n_channels=len(names),
        non_finite_samples=int(counts.sum()),
        non_finite=names[counts > 0].tolist(),
        flat=names[always_flat].tolist(),
        railed=names[always_railed].tolist(),
        noise_uV=None if gains is None or not known.size else float(np.median(known)),
        partly=names[partly].tolist(),
        rows=_summarize(
            {name: of_channels.sum(axis=1) for name, of_channels in states.items()},
            None if gains is None else usual,
            (pieces.starts[-1] + pieces.length) / rate_hz,
        ),
        bad_periods=periods,
        first_non_finite_s=first_s,
        gains_are_finite=gains_are_finite,
    )


def _count_periods(recording: "BaseRecording") -> int:
    """Return into how many periods a recording is divided."""
    return int(min(MOST_PERIODS, max(1, recording.get_duration() // LEAST_PERIOD_S)))


def _place_pieces(recording: "BaseRecording") -> "tuple[NDArray[np.int64], int]":
    """Return where pieces start, in samples, and their length: one for each period."""
    rate_hz, n_samples = recording.get_sampling_frequency(), recording.get_num_samples()
    duration_s = n_samples / rate_hz
    n_periods = _count_periods(recording)
    sample_bytes = recording.get_num_channels() * recording.get_dtype().itemsize
    affordable_s = MOST_BYTES / (n_periods * sample_bytes * rate_hz)
    longest_s = min(MOST_PIECE_S, duration_s / n_periods)
    length = max(2, round(min(longest_s, max(LEAST_PIECE_S, affordable_s)) * rate_hz))
    most = max(1, int(MOST_BYTES / (length * sample_bytes)))
    edges = np.linspace(0, n_samples - length, min(n_periods, most)).astype(np.int64)
    return edges, length


def _place_on_chunks(recording: "BaseRecording") -> "tuple[NDArray[np.int64], int]":
    """Return where pieces start, and their length: whole chunks, as many as may be read."""
    n_samples, (first, chunk, sample_bytes) = recording.get_num_samples(), find_chunks(recording)
    length = min(n_samples, chunk * math.ceil(LEAST_FETCHED_BYTES / (chunk * sample_bytes)))
    starts = np.arange(-first % length, n_samples - length + 1, length)
    starts = starts if len(starts) else np.zeros(1, dtype=np.int64)
    most = max(1, min(_count_periods(recording), int(MOST_BYTES / (length * sample_bytes))))
    return starts[np.linspace(0, len(starts) - 1, min(most, len(starts))).astype(int)], length


def _look(recording: "BaseRecording", starts: "NDArray[np.int64]", length: int) -> _Pieces:
    """Read pieces, one after the other, and describe each channel in each."""
    lag = max(1, min(length - 1, round(DIFFERENCE_S * recording.get_sampling_frequency())))
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel without one finite sample
        for start in map(int, starts):
            _fetch(recording, start, start + length)
            traces = recording.get_traces(start_frame=start, end_frame=start + length)
            seen.append(_describe_piece(np.ascontiguousarray(traces.T), lag))
    return _Pieces(starts, length, *map(np.array, zip(*seen, strict=True)))


def _fetch(recording: "BaseRecording", start: int, end: int) -> None:
    """Read samples of a raw file into the page cache, and no more than these."""
    root, first = find_source(recording)
    raw = describe_binary(root) if root.get_num_segments() == 1 else None
    if raw and raw["time_axis"] == 0:
        frame_bytes = raw["num_channels"] * np.dtype(raw["dtype"]).itemsize
        offset = raw["file_offset"] + (first + start) * frame_bytes
        read_bytes(raw["file_paths"][0], offset, (end - start) * frame_bytes)


def _describe_piece(traces: "NDArray[Any]", lag: int) -> "tuple[NDArray[Any], ...]":
    """Describe each channel of a piece, (channels, samples), as :class:`_Pieces` has it."""
    finite = np.isfinite(traces)
    if not finite.all():
        traces = np.where(finite, traces, np.nan)
    lowest, highest = np.fmin.reduce(traces, axis=1), np.fmax.reduce(traces, axis=1)
    at_limit = ((traces == lowest[:, None]) | (traces == highest[:, None])).mean(axis=1)
    differences = np.abs(traces[:, lag:].astype(np.float32) - traces[:, :-lag])
    # Of every third sample: neighbours say the same.
    noise = np.nan_to_num(np.nanmedian(differences[:, ::3], axis=1)) / MAD_TO_SD
    active = np.fmax.reduce(differences, axis=1) > ACTIVE_MAD * noise
    return lowest, highest, at_limit, finite.all(axis=1), noise / 2**0.5, active


def _summarize(
    counts: "Mapping[str, NDArray[Any]]", noise_uv: "NDArray[Any] | None", end_s: float
) -> list[MapRow]:
    """Return the rows of the map, of several pieces each where there are many."""
    n_pieces = len(counts["flat"])
    period_s = end_s / n_pieces
    return [
        MapRow(
            start_s=round(float(members[0] * period_s), 3),
            end_s=round(float((members[-1] + 1) * period_s), 3),
            noise_uV=None if noise_uv is None else round(float(np.median(noise_uv[members])), 3),
            **{name: int(of_pieces[members].max()) for name, of_pieces in counts.items()},
        )
        for members in np.array_split(np.arange(n_pieces), min(n_pieces, MOST_ROWS))
    ]


def _find_bad_periods(
    recording: "BaseRecording",
    pieces: _Pieces,
    good: "NDArray[np.bool_]",
    scale: "NDArray[np.float64]",
    step: int,
) -> list[BadPeriod]:
    """Find stretches in which channels carry no signal that carry one elsewhere, to a step."""
    rate_hz, n_samples = recording.get_sampling_frequency(), recording.get_num_samples()
    limits = pieces.limits()

    def measure(seen: _Pieces) -> "tuple[NDArray[np.float64], ...]":
        """Return the shares of flat and of railed channels, and the noise, of each piece."""
        flat, railed = seen.find_dead(limits)
        levels = np.where(flat | railed, np.nan, seen.noise * scale)[:, good]
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            noise = np.nanmedian(levels, axis=1)  # of the channels that carry a signal
        return flat[:, good].mean(axis=1), railed[:, good].mean(axis=1), noise

    step_size = float(np.median(scale[good])) if recording.get_dtype().kind in "iu" else 0.0
    flat, railed, noise = measure(pieces)
    is_alive = (flat + railed < 1 - BAD_SHARE) & (noise > 0)
    usual = _find_usual(noise[is_alive], pieces.active[is_alive][:, good].mean(axis=1))

    def judge(seen: _Pieces) -> list[str]:
        """Say what is wrong in each piece; nothing where it is good."""
        flat, railed, noise = measure(seen)
        is_dead = flat + railed >= BAD_SHARE
        is_noisy = noise > NOISE_FACTOR * usual
        is_quiet = (noise < usual / NOISE_FACTOR) & (usual > LEAST_COUNTS * step_size)
        conditions = [is_dead & (railed >= flat), is_dead, is_noisy, is_quiet]
        found: list[str] = np.select(conditions, ["railed", "flat", "noisy", "quiet"], "").tolist()
        return found

    short = max(2, step, min(pieces.length, round(LEAST_PIECE_S * rate_hz)))

    def find_edge(at: int, what: str, *, is_end: bool) -> int:
        """Return the sample after a piece's start at which a state begins, or ends."""
        first, last = pieces.starts[at : at + 2]
        between = range(first, last + is_end * (pieces.length - short + 1))[::step]

        def has_passed(start: int) -> bool:
            return (judge(_look(recording, np.array([start]), short))[0] == what) is not is_end

        found = bisect.bisect_left(between, x=True, key=has_passed)
        return between.start + found * step

    stretches: list[tuple[int, int, str]] = []
    end = 0
    for what, members in itertools.groupby(judge(pieces)):
        start, end = end, end + len(list(members))
        if not what:
            continue
        begins = find_edge(start - 1, what, is_end=False) if start else 0
        is_last = end == len(pieces.starts)
        ends = n_samples if is_last else short - 1 + find_edge(end - 1, what, is_end=True)
        if ends - begins >= LEAST_BAD_S * rate_hz:
            stretches.append((begins, ends, what))
    # Edges are found to a piece's length: two stretches that touch would lie on each other.
    periods = []
    for (begins, ends, what), (beyond, *_) in itertools.pairwise([*stretches, (n_samples, 0, "")]):
        start_s, end_s = round(begins / rate_hz, 3), round(min(ends, beyond) / rate_hz, 3)
        if end_s - start_s >= LEAST_BAD_S:
            periods.append(BadPeriod(start_s=start_s, end_s=end_s, what=what))
    return periods


def _find_usual(levels: "NDArray[Any]", activity: "NDArray[Any]") -> float:
    """Return the usual noise of pieces; NaN where there is none.

    That of the quieter ones: what is louder may be artefacts. But an amplifier without electrodes
    is quiet, too, and never active.
    """
    if not levels.size:
        return np.nan
    low, high = np.percentile(levels, [25, 85])
    of_low, of_high = (activity[np.abs(np.log2(levels / each)) < 1] for each in (low, high))
    is_unplugged = high > NOISE_FACTOR * low and of_high.mean() > ACTIVE_TIMES * of_low.mean()
    return float(high if is_unplugged else low)


def silence(
    recording: "BaseRecording", periods: list[BadPeriod], start_s: float = 0.0
) -> "BaseRecording":
    """Set the samples of dead periods to zero, lazily; those only noisier or quieter are kept.

    The recording, or its part from ``start_s`` on, is centred on zero, by a filter; periods count
    from the beginning of the whole. Raises PreprocessingError if its samples are unsigned.
    """
    from spikeinterface.core.base import base_period_dtype
    from spikeinterface.preprocessing import silence_periods

    rate_hz = recording.get_sampling_frequency()
    dead = [
        (0, round((period.start_s - start_s) * rate_hz), round((period.end_s - start_s) * rate_hz))
        for period in periods
        if period.is_dead
    ]
    if not dead:
        return recording
    if recording.get_dtype().kind == "u":
        msg = "canary.bad_periods is silence, but zeros are no silence among unsigned samples"
        remedy = "Put unsigned_to_signed and a filter into the config's preprocessing."
        raise PreprocessingError(msg, step="silence_periods", remedy=remedy)
    return silence_periods(recording, periods=np.array(dead, dtype=base_period_dtype))


def tell_apart(
    failure: ClassifiedSortFailure | None, report: Mapping[str, Any]
) -> ClassifiedSortFailure | None:
    """Correct a failure that is known by its text, if any, by the dumped report of its window.

    NaN, saturation and silence can give one text; the data tell them apart.
    """
    seen = SignalReport.model_validate(report).failure()
    is_contradicted = isinstance(failure, (NonFiniteSignalError, SaturatedSignalError))
    return seen or (None if is_contradicted else failure)


def check_window(row: Recording, window_s: tuple[float, float] | None) -> SignalReport:
    """Look at a window, or at a whole recording (None), for a supervised child process."""
    recording = open_recording(row)
    looked_at = recording if window_s is None else cut_window(recording, *window_s)
    report, update = check(looked_at, remote=row.is_remote), dict[str, Any](cut=row.pieces())
    if window_s is not None and report.first_non_finite_s is not None:
        update["first_non_finite_s"] = report.first_non_finite_s + window_s[0]
    return report.model_copy(update=update)


def _count_non_finite(
    recording: "BaseRecording", pieces: _Pieces, *, whole: bool
) -> "tuple[NDArray[np.int64], float | None]":
    """Count the samples of each channel that are not finite, and say where the first is, in s."""
    counts, first_s = np.zeros(recording.get_num_channels(), dtype=np.int64), None
    if recording.get_dtype().kind != "f":
        return counts, None
    rate_hz, n_samples = recording.get_sampling_frequency(), recording.get_num_samples()
    starts, length = pieces.starts[~pieces.finite.all(axis=1)], pieces.length
    if whole:
        length = max(1, int(rate_hz))
        starts = np.arange(0, n_samples, length)
    for start in starts.tolist():
        end = min(start + length, n_samples)
        bad = ~np.isfinite(recording.get_traces(start_frame=start, end_frame=end))
        if first_s is None and bad.any():
            first_s = (start + int(np.flatnonzero(bad.any(axis=1))[0])) / rate_hz
        counts += bad.sum(axis=0)
    return counts, first_s
