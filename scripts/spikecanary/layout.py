"""The layout check: whether a raw binary file is what the table declares it to be.

Samples of neurons are predictable: from the same channel's sample before, and from the channel
beside. Read with a wrong type, number of channels, order or offset, they are not. So each
declaration is scored by how short a code of the file's bytes it allows (minimum description
length, Rissanen 1978): a Gaussian code of what such a prediction leaves, per byte.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spikecanary.failures import RecordingLayoutError
from spikecanary.table import Recording

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: So many pieces are read, of so many bytes each.
N_PIECES, PIECE_BYTES = 8, 1 << 17
#: Where these hold too few spikes, pieces are so many times longer.
LONGER = 4
#: A piece has at least so many samples of each channel, or nothing can be said.
LEAST_ROWS = 64
#: Slow signals are taken out by a running mean of so many s.
SLOW_S = 0.002
#: Samples beyond so many MAD of noise are events, which decide where there are enough of them.
EVENT_MAD, LEAST_EVENTS = 5.0, 50
#: Bits of the mantissa of floating-point numbers, which no prediction shortens.
MANTISSA_BITS = {4: 23, 8: 52}
#: Numbers that are no signal: 5 % and 95 % of their magnitudes are so many octaves apart. A
#: Gaussian's are 5 apart.
MOST_OCTAVES = 25.0
#: Nor are these where most are above or below 2 to the power of so many.
MOST_MAGNITUDE = 50.0
#: Bits of a Gaussian sample in units of its standard deviation: log2(sqrt(2 pi e)).
GAUSSIAN_BITS = 2.047
MAD_TO_SD = 0.6745
#: Integers vary by no less, and floating-point numbers beyond this are none.
LEAST_SPREAD, LARGEST_INTEGER = 0.3, 2.0**24
#: The code of a sample has at least so many bits, and a byte of no signal eight.
LEAST_BITS, NO_SIGNAL_BITS = 0.05, 8.0
#: Another declaration is decisively better where it saves so many bits a byte; or so many bits an
#: event by both predictions; or, of nearly as many channels, so many by the sample before, and
#: none is lost by both. On healthy recordings (16 generated ones, 4 to 64 channels, and three real
#: ones) none saves more than 0.03, 0.05 and 0.1.
BETTER_BYTE_BITS, BETTER_EVENT_BITS, BETTER_BEFORE_BITS = 0.15, 0.15, 0.5
#: In a file stored by channel the last channel predicts this share of what the one beside does.
WRAPS = 0.7
#: A better prediction of events may cost so many bits a byte, or a worse one by both so many.
EQUAL_BYTE_BITS, EQUAL_EVENT_BITS = 0.1, 0.06
#: Channels beside each other share so much of their events, and others at most so much.
NEIGHBOURS_SHARE, OTHERS_SHARE = 0.3, 0.1
#: Channels that were forgotten or counted too many: synchronisation, auxiliary ones.
NEAR = (1, 2, 3, 4, 8)
DTYPES = ("<i2", "<u2", ">i2", ">u2", "<i4", "<f4", ">f4", "<f8")


@dataclass(frozen=True)
class Layout:
    """A declaration of a raw binary file: NumPy's type, channels, order, and where it begins."""

    dtype: str
    num_channels: int
    time_axis: int = 0
    file_offset: int = 0

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return np.dtype(self.dtype).itemsize * self.num_channels

    def options(self) -> dict[str, Any]:
        """Return what the table's reader_options would say."""
        dtype = np.dtype(self.dtype)
        name = dtype.name if dtype.isnative else self.dtype
        return {
            "dtype": name,
            "num_channels": self.num_channels,
            "time_axis": self.time_axis,
            "file_offset": self.file_offset,
        }


@dataclass(frozen=True)
class Score:
    """How well a declaration explains the bytes.

    Attributes
    ----------
    byte_bits : float
        Bits of the code of one byte; fewer are better.
    gains : tuple of float
        Bits of a sample that are saved by prediction from the sample before; and from that and
        the channel beside.
    event_gains : tuple of float or None
        The same of an event; None where there are too few.
    wrap : float
        Bits that the last channel saves of the first one's next sample: none, unless the file is
        stored by channel.
    seam : int
        Before which channel the order of the channels begins, if not before the first.
    """

    byte_bits: float
    gains: tuple[float, float] = (0.0, 0.0)
    event_gains: tuple[float, float] | None = None
    wrap: float = 0.0
    seam: int = 0

    def before(self) -> float:
        """Return what the sample before predicts, of events where there are enough."""
        return (self.event_gains or self.gains)[0]

    def is_decisively_better(self, other: "Score", kind: Literal["near", "order", ""]) -> bool:
        """Whether another declaration is out of the question.

        ``kind`` is how this one differs from it: in a few channels, in the order, or otherwise.
        """
        saved = other.byte_bits - self.byte_bits
        mine, its = self.event_gains, other.event_gains
        if mine is None or its is None:
            mine, its = self.gains, other.gains
        before, both = mine[0] - its[0], mine[1] - its[1]
        predicts = min(before, both) > BETTER_EVENT_BITS
        if kind and before > BETTER_BEFORE_BITS:
            is_by_channel = other.wrap > WRAPS * its[1] and both > -BETTER_EVENT_BITS
            predicts |= both > -EQUAL_EVENT_BITS if kind == "near" else is_by_channel
        return saved > BETTER_BYTE_BITS or (predicts and saved > -EQUAL_BYTE_BITS)


def check(row: Recording, rate_hz: float) -> list[str]:
    """Check the declaration of a recording's raw binary files; return warnings.

    Raises
    ------
    RecordingLayoutError
        Another declaration explains the file decisively better.
    """
    warnings: list[str] = []
    if row.reader != "binary":
        return warnings
    names = ("num_channels", "time_axis", "file_offset")
    named = {name: int(row.reader_options[name]) for name in names if name in row.reader_options}
    declared = Layout(dtype=np.dtype(row.reader_options["dtype"]).str, **named)
    for path in row.paths:
        left = (Path(path).stat().st_size - declared.file_offset) % declared.frame_bytes
        if left:
            warnings.append(
                f"{path} holds no whole number of samples: {left} bytes are left of frames of "
                f"{declared.frame_bytes}. Are num_channels, dtype and file_offset right?"
            )
        if (found := find_better(path, declared, rate_hz)) is not None:
            better, score, its = found
            fits = _describe_difference(declared, better)
            msg = f"{path} is not what the table declares: it reads well with {fits}"
            raise RecordingLayoutError(
                msg,
                path=path,
                declared=str(declared.options()),
                fits=str(better.options()),
                score_declared=round(its.byte_bits, 3),
                score_fits=round(score.byte_bits, 3),
                remedy=f"Set {fits} in reader_options of the recordings table.",
            )
    return warnings


def _describe_difference(declared: Layout, better: Layout) -> str:
    """Describe the options of one declaration that the other one has not."""
    was = declared.options()
    return ", ".join(
        f"{k} {v!r} (not {was[k]!r})" for k, v in better.options().items() if v != was[k]
    )


def find_better(path: str, declared: Layout, rate_hz: float) -> tuple[Layout, Score, Score] | None:
    """Find a declaration that explains a file decisively better.

    Parameters
    ----------
    path : str
        The file.
    declared : Layout
        What it is declared to be.
    rate_hz : float
        Its sampling rate.

    Returns
    -------
    (Layout, Score, Score) or None
        The other declaration, its score, and that of the declared one.
    """
    slow_bytes = SLOW_S * rate_hz * declared.frame_bytes
    n_bytes = PIECE_BYTES
    its = score(path, declared, slow_bytes, n_bytes)
    if its is None:
        return None
    if its.event_gains is None:
        n_bytes *= LONGER
        its = score(path, declared, slow_bytes, n_bytes) or its
    better: list[tuple[Layout, Score]] = []
    for other in _others(declared):
        found = score(path, other, slow_bytes, n_bytes)
        if found is not None and found.is_decisively_better(its, _kind(declared, other)):
            better.append((other, found))
    if better:
        layout, found = min(better, key=lambda each: each[1].byte_bits - each[1].before() / 10)
        return layout, found, its
    item = np.dtype(declared.dtype).itemsize
    left = (Path(path).stat().st_size - declared.file_offset) % declared.frame_bytes
    if its.seam and left == its.seam * item:
        return replace(declared, file_offset=declared.file_offset + left), its, its
    return None


def _kind(declared: Layout, other: Layout) -> Literal["near", "order", ""]:
    """Return how a declaration differs from another one."""
    if other.time_axis != declared.time_axis:
        return "order"
    return "near" if abs(other.num_channels - declared.num_channels) in NEAR else ""


def _others(declared: Layout) -> Iterator[Layout]:
    """Yield other declarations: as people mistake them, one thing at a time."""
    n_channels, item = declared.num_channels, np.dtype(declared.dtype).itemsize
    for dtype in DTYPES:
        if np.dtype(dtype) != np.dtype(declared.dtype):
            yield replace(declared, dtype=dtype)
    counts = {n_channels + sign * more for more in NEAR for sign in (-1, 1)}
    counts |= {n_channels // 4, n_channels // 2, n_channels * 4}
    counts |= {n_channels * 2 + more for more in (-1, 0, 1)}
    for count in sorted(counts):
        if count > 1 and count != n_channels:
            yield replace(declared, num_channels=count)
    if n_channels > 1:
        yield replace(declared, time_axis=1 - declared.time_axis)
    for shift in range(1, item):
        yield replace(declared, file_offset=declared.file_offset + shift)


def score(path: str, layout: Layout, slow_bytes: float, piece_bytes: int) -> Score | None:
    """Score a declaration of a file; None where the file is too short for it.

    Signals that last for more than ``slow_bytes`` of the file are taken out.
    """
    pieces = _read_pieces(path, layout, piece_bytes)
    if pieces is None:
        return None
    dtype = np.dtype(layout.dtype)
    if dtype.kind == "f" and not _is_signal(np.concatenate([piece.ravel() for piece in pieces])):
        return Score(NO_SIGNAL_BITS)
    n_slow = max(3, round(slow_bytes / layout.frame_bytes)) | 1
    is_whole = dtype.kind != "f" or all(_are_integers(piece) for piece in pieces)
    pieces = [_without_slow(_finite(piece), n_slow) for piece in pieces]
    least = LEAST_SPREAD if is_whole else np.finfo(float).tiny
    spreads = [np.maximum(piece.std(axis=0), least) for piece in pieces]
    scaled = [piece / spread for piece, spread in zip(pieces, spreads, strict=True)]
    now, before, beside = (
        np.concatenate(each) for each in zip(*map(_predict, scaled), strict=True)
    )
    gains = _gains(now, before, beside)
    events = _find_events(scaled)
    of_events = None if events is None else _gains(now[events], before[events], beside[events])
    sample_bits = np.log2(spreads).mean() if is_whole else MANTISSA_BITS[dtype.itemsize]
    bits = float(sample_bits) + GAUSSIAN_BITS - gains[1]
    return Score(
        max(bits, LEAST_BITS) / dtype.itemsize,
        gains,
        of_events,
        _wrap_gain(scaled),
        _find_seam(scaled),
    )


def _are_integers(piece: "NDArray[Any]") -> bool:
    """Whether floating-point numbers were integers, whose code is as short as that of integers."""
    values = _finite(piece)
    return bool(np.array_equal(values, np.round(values)) and np.abs(values).max() < LARGEST_INTEGER)


def _read_pieces(path: str, layout: Layout, piece_bytes: int) -> "list[NDArray[Any]] | None":
    """Read pieces at the same places of a file for every layout, each (samples, channels)."""
    item, n_channels = np.dtype(layout.dtype).itemsize, layout.num_channels
    n_rows = (Path(path).stat().st_size - layout.file_offset) // layout.frame_bytes
    length = min(n_rows, max(LEAST_ROWS, piece_bytes // layout.frame_bytes))
    if length < LEAST_ROWS:
        return None
    file = np.memmap(path, mode="r", dtype=np.uint8, offset=layout.file_offset)
    pieces = []
    for start in np.linspace(0, n_rows - length, N_PIECES).astype(int):
        if layout.time_axis == 0:
            read = np.array(file[start * item * n_channels :][: length * item * n_channels])
            pieces.append(read.view(layout.dtype).reshape(length, n_channels))
        else:
            first = (np.arange(n_channels) * n_rows + start) * item
            columns = [np.array(file[at : at + length * item]).view(layout.dtype) for at in first]
            pieces.append(np.stack(columns, axis=1))
    return pieces


def _is_signal(values: "NDArray[Any]") -> bool:
    """Whether floating-point numbers may be samples, and not bytes of something else."""
    finite = np.isfinite(values)
    if finite.mean() < 0.5:  # noqa: PLR2004 - NaN samples are another check's
        return False
    magnitudes = np.abs(values[finite & (values != 0)][::7]).astype(np.float64)
    if not len(magnitudes):
        return True
    low, high = np.percentile(np.log2(magnitudes), [5, 95])
    return bool(high - low < MOST_OCTAVES and abs(high) < MOST_MAGNITUDE)


def _finite(piece: "NDArray[Any]") -> "NDArray[np.float64]":
    """Return a piece as floating-point numbers, with zeros for those that are none."""
    limit = 2.0**MOST_MAGNITUDE
    values = np.asarray(piece, dtype=np.float64)
    return np.where(np.abs(values) < limit, values, 0.0)


def _without_slow(piece: "NDArray[np.float64]", n_slow: int) -> "NDArray[np.float64]":
    """Take a running mean out of each channel."""
    from scipy.ndimage import uniform_filter1d

    slow: NDArray[np.float64] = uniform_filter1d(piece, min(n_slow, len(piece)), axis=0)
    return piece - slow


def _predict(
    piece: "NDArray[np.float64]",
) -> "tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]":
    """Return samples of a piece, those before them, and those of the channel beside."""
    first = min(1, piece.shape[1] - 1)
    now, before = piece[1:, first:].ravel(), piece[:-1, first:].ravel()
    beside = piece[1:, :-1].ravel() if first else np.zeros_like(now)
    return now, before, beside


def _find_events(pieces: "list[NDArray[np.float64]]") -> "NDArray[np.bool_] | None":
    """Return which samples of :func:`_predict` are events; None where few pieces have any."""
    now = [_predict(piece)[0] for piece in pieces]
    levels = [float(np.median(np.abs(each))) / MAD_TO_SD for each in now]
    found = [np.abs(n) > EVENT_MAD * max(level, 1e-9) for n, level in zip(now, levels, strict=True)]
    enough = sum(each.sum() >= LEAST_EVENTS / N_PIECES for each in found) >= N_PIECES / 2
    events = np.concatenate(found)
    return events if enough and events.sum() >= LEAST_EVENTS else None


def _gains(
    now: "NDArray[np.float64]", before: "NDArray[np.float64]", beside: "NDArray[np.float64]"
) -> tuple[float, float]:
    """Bits that are saved by prediction from the sample before, and from both."""
    return _gain(now, before[None]), _gain(now, np.stack([before, beside]))


def _gain(now: "NDArray[np.float64]", predictors: "NDArray[np.float64]") -> float:
    """Bits of a sample that a linear prediction saves."""
    products = predictors @ predictors.T + 1e-9 * len(now) * np.eye(len(predictors))
    left = now - np.linalg.solve(products, predictors @ now) @ predictors
    share = float(left @ left) / max(float(now @ now), 1e-300)
    return 0.5 * float(np.log2(1 / min(max(share, 1e-6), 1.0)))


def _wrap_gain(pieces: "list[NDArray[np.float64]]") -> float:
    """Bits of the first channel's events that the last channel's sample before saves."""
    now = np.concatenate([piece[1:, 0] for piece in pieces])
    last = np.concatenate([piece[:-1, -1] for piece in pieces])
    level = EVENT_MAD * max(float(np.median(np.abs(now))) / MAD_TO_SD, 1e-9)
    events = np.abs(now) > level
    if events.sum() < LEAST_EVENTS / 2:
        return _gain(now, last[None])
    return _gain(now[events], last[events][None])


def _find_seam(pieces: "list[NDArray[np.float64]]") -> int:
    """Return the only channel whose events its left neighbour does not share, if not the first.

    Then the file's first channel is another one: a header was not skipped.
    """
    rows = np.concatenate(pieces)
    n_channels = rows.shape[1]
    if n_channels < 4:  # noqa: PLR2004 - too few to tell
        return 0
    shares = np.zeros(n_channels)
    for channel in range(n_channels):
        now, left = rows[:, channel], rows[:, channel - 1]
        noise = float(np.median(np.abs(now))) / MAD_TO_SD
        events = np.abs(now) > EVENT_MAD * max(noise, 1e-9)
        if events.sum() < LEAST_EVENTS:
            return 0
        shares[channel] = now[events] @ left[events] / max(float(now[events] @ now[events]), 1e-300)
    lowest = int(np.argmin(shares))
    others = np.delete(shares, lowest)
    is_seam = shares[lowest] < OTHERS_SHARE and others.min() > NEIGHBOURS_SHARE
    return lowest if is_seam else 0
