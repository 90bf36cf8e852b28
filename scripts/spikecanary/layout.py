"""The layout check: whether a raw binary file is what the table declares it to be.

Samples of neurons are predictable: from the same channel's sample before, and from the channel
beside. Read with a wrong type, number of channels, order or offset, they are not. So each
declaration is scored by how short a code of the file's bytes it allows (minimum description
length, Rissanen 1978): a Gaussian code of what such a prediction leaves, per byte.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
#: Beyond so many is an artefact.
ARTEFACT_MAD = 60.0
#: Numbers that are no signal: 5 % and 95 % of their magnitudes are so many octaves apart. A
#: Gaussian's are 5 apart.
MOST_OCTAVES = 25.0
#: Nor are these where most are above or below 2 to the power of so many.
MOST_MAGNITUDE = 50.0
#: Bits of a Gaussian sample in units of its standard deviation: log2(sqrt(2 pi e)).
GAUSSIAN_BITS = 2.047
#: With more than this share of its samples at the limits of their type, a file has no signal. Of
#: 32-bit integers that are read as 16-bit ones half of them are.
LEAST_RAILED = 0.9
#: MAD of a normal distribution over its standard deviation.
MAD_TO_SD = 0.6745
#: Integers vary by no less, and floating-point numbers beyond this are none.
LEAST_SPREAD, LARGEST_INTEGER = 0.3, 2.0**24
#: The code of a sample has at least so many bits, and a byte of no signal eight.
LEAST_BITS, NO_SIGNAL_BITS = 0.05, 8.0
#: Another declaration is decisively better where it saves so many bits a byte; or so many bits an
#: event by both predictions; or, of nearly as many channels, so many by the sample before, and
#: none is lost by both. On 39 healthy files (36 generated, of 2 to 64 channels; three real) none
#: saves more than 0.05, 0.01 and 0.20.
BETTER_BYTE_BITS, BETTER_EVENT_BITS, BETTER_BEFORE_BITS = 0.15, 0.25, 0.5
#: Events that are predicted by so many bits are read rightly, if no other declaration does better.
SURE_EVENT_BITS = 1.0
#: Channels that are predicted by more are the same, and tell nothing of their number.
SAME_BITS = 4.0
#: In a file stored by channel the last channel predicts this share of what the one beside does.
WRAPS = 0.7
#: A better prediction of events may cost so many bits a byte, or a worse one by both so many.
EQUAL_BYTE_BITS, EQUAL_EVENT_BITS = 0.1, 0.06
#: Channels beside each other share their events; the correlation is so much higher than of others.
NEIGHBOURS_SHARE = 0.3
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

    @classmethod
    def of(cls, row: Recording) -> "Layout":
        """Return what a row of reader ``binary`` declares."""
        names, options = ("num_channels", "time_axis", "file_offset"), row.reader_options
        named = {name: int(options[name]) for name in names if name in options}
        return cls(dtype=np.dtype(options["dtype"]).str, **named)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return np.dtype(self.dtype).itemsize * self.num_channels

    def remainder(self, path: str) -> int:
        """Bytes of a file that are left after its last whole frame."""
        return (Path(path).stat().st_size - self.file_offset) % self.frame_bytes

    def n_slow(self, slow_bytes: float) -> int:
        """Odd number of samples of a channel that are so many bytes of the file."""
        return max(3, round(slow_bytes / self.frame_bytes)) | 1

    def options(self) -> dict[str, Any]:
        """Return what the table's reader_options would say."""
        dtype = np.dtype(self.dtype)
        return asdict(self) | {"dtype": dtype.name if dtype.isnative else self.dtype}


@dataclass(frozen=True)
class Score:
    """How well a declaration explains the bytes."""

    layout: Layout
    byte_bits: float  #: of the code of one byte; fewer are better
    #: Bits of a sample that are saved by prediction from the one before; and the channel beside.
    gains: tuple[float, float] = (0.0, 0.0)
    event_gains: tuple[float, float] | None = None  #: the same of an event; None: too few
    #: Bits that the last channel saves of the first one's next sample: none, unless the file is
    #: stored by channel.
    wrap: float = 0.0

    def before(self) -> float:
        """Return what the sample before predicts, of events where there are enough."""
        return (self.event_gains or self.gains)[0]

    def is_decisively_better(self, other: "Score") -> bool:
        """Whether another declaration is out of the question."""
        saved = other.byte_bits - self.byte_bits
        mine, its = self.event_gains, other.event_gains
        if mine is None or its is None:
            mine, its = self.gains, other.gains
        before, both = mine[0] - its[0], mine[1] - its[1]
        if its is other.event_gains and its[1] > SURE_EVENT_BITS and both < -BETTER_EVENT_BITS:
            return False  # what can be predicted so well is read rightly
        predicts = min(before, both) > BETTER_EVENT_BITS
        if before > BETTER_BEFORE_BITS and its[1] < SAME_BITS:
            if abs(self.layout.num_channels - other.layout.num_channels) in NEAR:
                predicts |= both > -EQUAL_EVENT_BITS
            elif self.layout.time_axis != other.layout.time_axis:
                predicts |= other.wrap > WRAPS * its[1] and both > -BETTER_EVENT_BITS
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
    declared = Layout.of(row)
    for path in row.paths:
        warnings += describe_remainder(path, declared)
        if (found := find_better(path, declared, rate_hz)) is not None:
            better, score, its = found
            was, now = declared.options(), better.options()
            fits = ", ".join(f"{k} {now[k]!r} (not {was[k]!r})" for k in was if was[k] != now[k])
            msg = f"{path} is not what the table declares: it reads well with {fits}"
            raise RecordingLayoutError(
                msg,
                path=path,
                declared=str(was),
                fits=str(now),
                score_declared=round(its.byte_bits, 3),
                score_fits=round(score.byte_bits, 3),
                remedy=f"Set {fits} in reader_options of the recordings table.",
            )
    return warnings


def describe_remainder(path: str, declared: Layout) -> Iterator[str]:
    """Say that the size of a file is no whole number of samples."""
    if left := declared.remainder(path):
        yield (
            f"{path} holds no whole number of samples: {left} bytes are left of frames of "
            f"{declared.frame_bytes}. Are num_channels, dtype and file_offset right, and is the "
            "copy finished?"
        )


def find_better(path: str, declared: Layout, rate_hz: float) -> tuple[Layout, Score, Score] | None:
    """Find a declaration that explains a file decisively better: it, its score, and the old one's.

    ``declared`` is what the file, of that sampling rate, is declared to be.
    """
    slow_bytes = SLOW_S * rate_hz * declared.frame_bytes
    n_bytes = PIECE_BYTES
    its = score(path, declared, slow_bytes, n_bytes)
    if its is None:
        return None
    if its.event_gains is None:
        n_bytes *= LONGER
        its = score(path, declared, slow_bytes, n_bytes) or its
    found = (score(path, other, slow_bytes, n_bytes) for other in _others(declared))
    better = [each for each in found if each is not None and each.is_decisively_better(its)]
    if better:
        best = min(better, key=lambda each: each.byte_bits - each.before() / 10)
        return best.layout, best, its
    left = declared.remainder(path)
    channel, split = divmod(left, np.dtype(declared.dtype).itemsize)
    if channel and not split and _begins_at(path, declared, slow_bytes, channel):
        return replace(declared, file_offset=declared.file_offset + left), its, its
    return None


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
    """Score a declaration of a file; None where it is too short, or at its type's limits.

    Signals that last for more than ``slow_bytes`` of the file are taken out.
    """
    from scipy.ndimage import maximum_filter1d

    pieces = _read_pieces(path, layout, piece_bytes)
    if not pieces:
        return None
    dtype, values = np.dtype(layout.dtype), np.concatenate([piece.ravel() for piece in pieces])
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        if ((values == limits.min) | (values == limits.max)).mean() > LEAST_RAILED:
            return None  # nothing can be predicted, and the signal map says why
    elif not _is_signal(values):
        return Score(layout, NO_SIGNAL_BITS)
    numbers, n_slow = _finite(values), layout.n_slow(slow_bytes)
    # The code of floating-point numbers that were integers is as short as that of integers.
    is_whole = dtype.kind != "f" or (
        np.array_equal(numbers, np.round(numbers)) and np.abs(numbers).max() < LARGEST_INTEGER
    )
    pieces = [_without_slow(_finite(piece), n_slow) for piece in pieces]
    spreads = [_spread(piece, LEAST_SPREAD if is_whole else 0.0) for piece in pieces]
    scaled = [piece / spread for piece, spread in zip(pieces, spreads, strict=True)]
    kept = []
    for piece in scaled:  # artefacts, which the running mean spreads, are predicted by every layout
        strongest = maximum_filter1d(np.abs(piece), min(n_slow, len(piece)), axis=0)
        kept.append(_predict(piece)[:, _predict(strongest < ARTEFACT_MAD).all(axis=0)])
    gains, of_events = _gains(np.concatenate(kept, axis=1)), None
    if (events := _find_events(kept)) is not None:
        of_events = _gains(events)
    sample_bits = float(np.log2(spreads).mean()) if is_whole else _mantissa_bits(values)
    bits = max(sample_bits + GAUSSIAN_BITS - gains[1], LEAST_BITS)
    return Score(layout, bits / dtype.itemsize, gains, of_events, _wrap_gain(scaled))


def _mantissa_bits(values: "NDArray[Any]") -> int:
    """Count the bits of the mantissa that are used: of float32 in float64 the others are zero."""
    native = values.astype(values.dtype.newbyteorder("="))
    words = native[np.isfinite(native)].view(f"u{native.itemsize}")
    used = int(np.bitwise_or.reduce(words)) or 1
    n_zeros, n_bits = (used & -used).bit_length() - 1, np.finfo(native.dtype).nmant
    return n_bits - min(n_zeros, n_bits)


def _spread(piece: "NDArray[np.float64]", least: float = 0.0) -> "NDArray[np.float64]":
    """Return the spread of each channel by MAD, which artefacts do not enter."""
    mad: NDArray[np.float64] = np.median(np.abs(piece), axis=0) / MAD_TO_SD
    return np.maximum(mad, max(least, float(np.finfo(float).tiny)))


def read_bytes(path: str, offset: int, n_bytes: int) -> bytes:
    """Read a piece of a file, without the megabytes that Linux reads ahead of a mapped page."""
    with Path(path).open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return os.pread(file.fileno(), n_bytes, offset)


def _read_pieces(path: str, layout: Layout, piece_bytes: int) -> "list[NDArray[Any]]":
    """Read pieces at the same places of a file for every layout, each (samples, channels).

    None at all where the file is too short.
    """
    item, n_channels = np.dtype(layout.dtype).itemsize, layout.num_channels
    n_rows = (Path(path).stat().st_size - layout.file_offset) // layout.frame_bytes
    length = min(n_rows, max(LEAST_ROWS, piece_bytes // layout.frame_bytes))
    if length < LEAST_ROWS:
        return []
    pieces = []
    for start in np.linspace(0, n_rows - length, N_PIECES).astype(int).tolist():
        if layout.time_axis == 0:
            at = layout.file_offset + start * layout.frame_bytes
            read = np.frombuffer(read_bytes(path, at, length * layout.frame_bytes), layout.dtype)
            pieces.append(read.reshape(length, n_channels))
        else:
            first = layout.file_offset + (np.arange(n_channels) * n_rows + start) * item
            columns = [read_bytes(path, at, length * item) for at in map(int, first)]
            pieces.append(np.stack([np.frombuffer(c, layout.dtype) for c in columns], axis=1))
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


def _predict(piece: "NDArray[Any]") -> "NDArray[Any]":
    """Return samples of a piece, those before them, and those of the channel beside; (3, samples).

    A single channel has none beside it; then it is the sample before the one before.
    """
    if piece.shape[1] == 1:
        return np.stack([piece[2:, 0], piece[1:-1, 0], piece[:-2, 0]])
    return np.stack([piece[1:, 1:].ravel(), piece[:-1, 1:].ravel(), piece[1:, :-1].ravel()])


def _find_events(triples: "list[NDArray[np.float64]]") -> "NDArray[np.float64] | None":
    """Return those of :func:`_predict` that are events; None where few pieces have any."""
    found = []
    for triple in triples:
        level = float(np.median(np.abs(triple[0]))) / MAD_TO_SD if triple.size else 0.0
        found.append(triple[:, np.abs(triple[0]) > EVENT_MAD * max(level, 1e-9)])
    enough = sum(each.shape[1] >= LEAST_EVENTS / N_PIECES for each in found) >= N_PIECES / 2
    events = np.concatenate(found, axis=1)
    return events if enough and events.shape[1] >= LEAST_EVENTS else None


def _gains(triples: "NDArray[np.float64]") -> tuple[float, float]:
    """Bits that are saved by prediction from the sample before, and from both."""
    return _gain(triples[0], triples[1:2]), _gain(triples[0], triples[1:])


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
    highest = np.maximum(np.abs(now), np.abs(last))
    events = (np.abs(now) > level) & (highest < ARTEFACT_MAD)
    if events.sum() < LEAST_EVENTS / 2:
        events = highest < ARTEFACT_MAD
    return _gain(now[events], last[events][None])


def _begins_at(path: str, declared: Layout, slow_bytes: float, channel: int) -> bool:
    """Whether a file's first channel is another one: a header was not skipped.

    Then the last and the first channel share their events, as those beside each other do, and the
    other one does not share its left neighbour's.
    """
    pieces = _read_pieces(path, declared, PIECE_BYTES)
    n_slow = declared.n_slow(slow_bytes)
    rows = np.concatenate([_without_slow(_finite(piece), n_slow) for piece in pieces])
    shares = []
    for one, other in ((-1, 0), (channel - 1, channel)):
        pair = rows[:, [one, other]] / _spread(rows[:, [one, other]])
        highest = np.abs(pair).max(axis=1)
        events = (highest > EVENT_MAD) & (highest < ARTEFACT_MAD)
        if events.sum() < LEAST_EVENTS:
            return False
        shares.append(float(np.corrcoef(pair[events, 0], pair[events, 1])[0, 1]))
    return shares[0] - shares[1] > NEIGHBOURS_SHARE
