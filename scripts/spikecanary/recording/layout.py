"""The layout check: whether a raw binary file is what the table declares it to be.

Read with a wrong type, order of bytes or offset, samples vary more than they do: each type is
scored by how short a code of the file's bytes it allows (minimum description length, Rissanen
1978), a Gaussian one. Read with a wrong number of channels, or in another order, a sample is not
predicted by that of the same channel before, but by another number of the file.
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
#: For the order, which needs many spikes, so many times longer.
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
#: A channel is clipped with so much of it at the ends of its range, this share of which stays there
#: for a sample more, if its range has more counts; where more of the channels are, nothing is said
#: of the type.
CLIPPED_SHARE, ALL_CLIPPED, CLIPPED_STAYS = 0.05, 0.98, 0.25
CLIPPED_RANGE, CLIPPED_CHANNELS = 256, 0.1
#: A tone has a bin of the spectrum so many times as strong as the median of so many in its band.
TONE, TONE_BINS, LEAST_WINDOW = 10.0, 101, 0.2
#: A channel that keeps less than this share of its spread without its tones has nothing else.
LEAST_LEFT = 0.001
#: MAD of a normal distribution over its standard deviation.
MAD_TO_SD = 0.6745
#: Integers vary by no less, and floating-point numbers beyond this are none.
LEAST_SPREAD, LARGEST_INTEGER = 0.3, 2.0**24
#: The code of a byte that is no signal.
NO_SIGNAL_BITS = 8.0
#: Samples of one byte are rare: they must save so many bits more.
RARE_BITS = 0.7
#: Another type is decisively better where it saves so many bits a byte; another number of channels
#: or order where it predicts so many times more, and so many bits more, and so many more than the
#: numbers beside. No healthy file was stopped of 227 generated ones in odd ways (2 to 64 channels,
#: stimulation, hum, dead and identical channels, offsets), each with two or three seeds, and three
#: real ones.
BETTER_BYTE_BITS, BETTER_LAG, BETTER_LAG_BITS, LEAST_PEAK_BITS = 0.15, 1.2, 0.25, 0.1
#: Channels are predicted alike: the worst as the best one to this share; and those from one sample
#: of all channels to the next as those within one, on average.
ALIKE, WRAPS = 0.5, 0.7
#: The number before must predict so many times more, in a file that is stored by channel.
BETTER_BY_CHANNEL = 1.5
#: So many numbers of channels are tried, the likeliest of up to so many at least.
MOST_TRIED, MOST_CHANNELS = 10, 128
#: Samples that stay the same for so long are held.
HELD = 9
#: No more events are compared.
MOST_EVENTS = 50_000
#: Correlations above are the same.
MOST_SHARED = 0.999_999
DTYPES = (*(x + y for y in ("i2", "u2", "i4", "i8", "f4", "f8") for x in "<>"), "|u1", "|i1")


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
    def is_float(self) -> bool:
        """Whether samples are floating-point numbers."""
        return np.dtype(self.dtype).kind == "f"

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return np.dtype(self.dtype).itemsize * self.num_channels

    def remainder(self, path: str) -> int:
        """Bytes of a file that are left after its last whole frame."""
        return (Path(path).stat().st_size - self.file_offset) % self.frame_bytes

    def options(self) -> dict[str, Any]:
        """Return what the table's reader_options would say."""
        dtype = np.dtype(self.dtype)
        return asdict(self) | {"dtype": dtype.name if dtype.isnative else self.dtype}


def check(row: Recording, rate_hz: float) -> list[str]:
    """Check the declaration of a recording's raw binary files; return warnings.

    Raises RecordingLayoutError if another declaration explains a file decisively better.
    """
    warnings: list[str] = []
    if row.reader != "binary":
        return warnings
    declared = Layout.of(row)
    for path in row.paths:
        warnings += describe_remainder(path, declared)
        if found := find_better(path, declared, rate_hz):
            better, bits, its = found
            was, now = declared.options(), better.options()
            fits = ", ".join(f"{k} {now[k]!r} (not {was[k]!r})" for k in was if was[k] != now[k])
            msg = f"{path} is not what the table declares: it reads well with {fits}"
            remedy = f"Set {fits} in reader_options of the recordings table."
            if len(row.paths) > 1:
                remedy += " Parts that differ are sorted in rows of their own, with what fits each."
            raise RecordingLayoutError(
                msg,
                path=path,
                declared=str(was),
                fits=str(now),
                score_declared=round(its, 3),
                score_fits=round(bits, 3),
                remedy=remedy,
            )
    return warnings


def describe_remainder(path: str, declared: Layout) -> Iterator[str]:
    """Say that the size of a file is no whole number of samples."""
    if n_left := declared.remainder(path):
        yield (
            f"{path} does not hold a whole number of samples: {n_left} bytes are left over (frames "
            f"of {declared.frame_bytes}). Are num_channels, dtype and file_offset right, and is "
            "the copy finished?"
        )


def find_better(path: str, declared: Layout, rate_hz: float) -> tuple[Layout, float, float] | None:
    """Find a declaration that explains a file decisively better.

    ``declared`` is what the file, of that sampling rate, is declared to be.

    Returns
    -------
    (Layout, float, float) or None
        The declaration; its score and the old one's, of which the lower is better: bits of a byte,
        or, of the same type, those of a sample that are not predicted.
    """
    slow_bytes = SLOW_S * rate_hz * declared.frame_bytes
    its = None if _is_clipped(path, declared) else byte_bits(path, declared, slow_bytes)
    if its is None:
        return None
    scored = [(byte_bits(path, other, slow_bytes), other) for other in _other_types(declared, its)]
    known = [(bits, other) for bits, other in scored if bits is not None and bits < NO_SIGNAL_BITS]
    best, least = declared, its
    for bits, other in known:
        odds = RARE_BITS if np.dtype(other.dtype).itemsize == 1 else 0.0
        if bits + odds < least:
            best, least = other, bits + odds
    # Of one exponent, floating-point numbers are as good as integers.
    floats = (other for bits, other in known if other.is_float)
    if best != declared and not best.is_float:
        same = (best.frame_bytes, best.num_channels)
        best = next((x for x in floats if (x.frame_bytes, x.num_channels) == same), best)
    if best.frame_bytes > declared.frame_bytes and its - least > BETTER_BYTE_BITS:
        # A tone at half the rate is slow in frames of two samples.
        times = best.frame_bytes // declared.frame_bytes
        longer = replace(declared, num_channels=times * declared.num_channels)
        saved = its - (byte_bits(path, longer, slow_bytes) or its)
        its -= saved if saved > BETTER_BYTE_BITS else 0.0
    if its - least > BETTER_BYTE_BITS:
        further = find_order(path, best, rate_hz)
        return further[0] if further else best, least, its
    return find_order(path, declared, rate_hz)


def _is_clipped(path: str, declared: Layout) -> bool:
    """Whether channels stay at the ends of their ranges, whose code would be too short."""
    pieces = _read_pieces(path, declared)
    if not pieces or declared.is_float:
        return False
    rows = np.concatenate(pieces)
    lowest, highest = rows.min(axis=0), rows.max(axis=0)
    at_end = (rows == lowest) | (rows == highest)
    share, stays = at_end.mean(axis=0), (at_end[1:] & at_end[:-1]).mean(axis=0)
    is_wide = highest.astype(np.float64) - lowest > CLIPPED_RANGE
    # Of wider numbers that are read in halves, all upper ones are at the ends.
    is_clipped = is_wide & (share > CLIPPED_SHARE) & (share < ALL_CLIPPED)
    is_clipped &= stays > CLIPPED_STAYS * share
    return bool(is_clipped.mean() > CLIPPED_CHANNELS)


def _other_types(declared: Layout, bits: float) -> Iterator[Layout]:
    """Yield declarations of other types, as people mistake them.

    Floating-point numbers that may be samples are no integers: of one exponent, these would be as
    good.
    """
    n_bytes = declared.frame_bytes
    for name in DTYPES:
        dtype = np.dtype(name)
        if dtype == np.dtype(declared.dtype) or (
            declared.is_float and bits < NO_SIGNAL_BITS and dtype.kind != "f"
        ):
            continue
        yield replace(declared, dtype=name)
        count, remainder = divmod(n_bytes, dtype.itemsize)
        if count and not remainder and count != declared.num_channels:
            yield replace(declared, dtype=name, num_channels=count)
    for shift in range(1, np.dtype(declared.dtype).itemsize):
        yield replace(declared, file_offset=declared.file_offset + shift)


def byte_bits(path: str, layout: Layout, slow_bytes: float) -> float | None:
    """Return the bits of the code of one byte by a declaration; fewer are better.

    None where the file is too short, at its type's limits, or without a number. Signals that last
    for more than ``slow_bytes`` of the file are taken out.
    """
    pieces = _read_pieces(path, layout)
    if not pieces:
        return None
    dtype, rows = np.dtype(layout.dtype), np.concatenate(pieces)
    values = rows[:, (rows != rows[0]).any(axis=0)].ravel()  # constant channels tell nothing
    if not _tells(values):
        return None
    if (dtype.kind == "f" or dtype.name == "int64") and not _is_signal(values):
        return NO_SIGNAL_BITS
    numbers, n_slow = _finite(values), max(3, round(slow_bytes / layout.frame_bytes)) | 1
    # The code of floating-point numbers that were integers is as short as that of integers.
    is_whole = dtype.kind != "f" or (
        np.array_equal(numbers, np.round(numbers)) and np.abs(numbers).max() < LARGEST_INTEGER
    )
    if not is_whole:
        return (_mantissa_bits(values) + GAUSSIAN_BITS) / dtype.itemsize
    # Low bits that are always zero cost nothing.
    used = 1 if dtype.kind == "f" else int(np.bitwise_or.reduce(values)) or 1
    step = float(used & -used)
    pieces = [_without_slow(_finite(piece) / step, n_slow) for piece in pieces]
    spreads = [_spread(piece, LEAST_SPREAD) for piece in pieces]
    return (float(np.log2(spreads).mean()) + GAUSSIAN_BITS) / dtype.itemsize


def find_order(path: str, declared: Layout, rate_hz: float) -> tuple[Layout, float, float] | None:
    """Find another number of channels, order or first channel, by how a file's numbers repeat.

    As :func:`find_better`. The sample before of the same channel, which predicts a spike's next
    one, is as many numbers before as there are channels; in a file stored by channel, one. This
    holds for all channels alike, as they are declared: what holds for some are channels side by
    side.
    """
    n_now = declared.num_channels if declared.time_axis == 0 else 1
    numbers = _read_numbers(path, declared, n_now, round(SLOW_S * rate_hz) | 1)
    if numbers is None:
        return None
    most = max(4 * n_now, 2 * declared.num_channels, MOST_CHANNELS) + 9
    gains = [0.0, *(numbers.gain(lag) for lag in range(1, most + 1))]

    def predicts(lag: int) -> bool:
        beside = max(gains[lag - 1], gains[lag + 1])
        # With a multiple of the channels, the sample before is one that is some more before. But of
        # channels that share a slow signal, the neighbour in the file tells as much.
        times = 1.0 if n_now % lag == 0 else BETTER_LAG
        times = BETTER_BY_CHANNEL if lag == 1 else times
        is_better = gains[lag] - times * gains[n_now] > BETTER_LAG_BITS
        return bool(is_better and gains[lag] - beside > LEAST_PEAK_BITS)

    likeliest = sorted(range(1, most), key=lambda lag: -gains[lag])[:MOST_TRIED]
    alike = (lag for lag in likeliest if predicts(lag) and numbers.is_alike(lag, n_now))
    if found := next(alike, None):
        # It may be a multiple of the channels, of which the nearest predicts best.
        divisors = [each for each in range(found, 0, -1) if found % each == 0]
        lag = max(divisors, key=gains.__getitem__)
        other = replace(declared, time_axis=0, num_channels=lag)
        if lag == 1:
            other = replace(declared, time_axis=1)
        return (other, -gains[lag], -gains[n_now]) if other != declared else None
    # Of a header that was not skipped, a part of a sample is left at the end.
    n_left = declared.remainder(path)
    channel, split = divmod(n_left, np.dtype(declared.dtype).itemsize)
    if channel and not split and n_now > 1:
        first, within = (numbers.gain(1, each, n_now) for each in (0, channel))
        is_better = first - BETTER_LAG * within > BETTER_LAG_BITS
        if is_better and _begins_with_header(path, declared, channel):
            other = replace(declared, file_offset=declared.file_offset + n_left)
            return other, -first, -within
    return None


def _begins_with_header(path: str, declared: Layout, channel: int) -> bool:
    """Whether the numbers before a file's first sample are none: zeros, or far from the others.

    Zeros that end with a sample of all channels are a blanked beginning.
    """
    pieces = _read_pieces(path, declared)
    first, following = pieces[0][0], np.concatenate(pieces[1:])[:, :channel].astype(np.float64)
    usual, before = np.median(following, axis=0), first[:channel].astype(np.float64)
    far = np.abs(before - usual) > ARTEFACT_MAD / 3 * _spread(following - usual, 1e-9)
    n_zeros = int(np.flatnonzero(np.append(pieces[0], 1))[0])
    ends_within = n_zeros % declared.num_channels == channel
    return bool(far.any() or (not before.any() and ends_within))


@dataclass(frozen=True)
class _Numbers:
    """The numbers of a file's pieces, one behind the other, without slow signals."""

    values: "NDArray[np.float64]"  #: in MAD of noise of their channel
    is_good: "NDArray[np.bool_]"  #: whether they can be compared: no artefacts, nothing held
    events: "NDArray[np.intp]"  #: which are compared: events where there are enough of them

    def gain(self, lag: int, channel: int = 0, n_channels: int = 1) -> float:
        """Bits of an event that the number so many before saves, or the one so many after.

        Of all channels, or of one; NaN where it has too few events.
        """
        one, other = (
            self.events % n_channels == (channel - each) % n_channels for each in (0, lag)
        )
        now = np.concatenate([self.events[one], self.events[other] + lag])
        if len(now) < 2 * LEAST_EVENTS:
            return np.nan
        now = now[(now >= lag) & (now < len(self.values))]
        now = now[self.is_good[now] & self.is_good[now - lag]]
        one, other = self.values[now], self.values[now - lag]
        shared = float(one @ other) / max(float(np.sqrt((one @ one) * (other @ other))), 1e-300)
        return -0.5 * float(np.log2(1 - min(max(shared, 0.0), MOST_SHARED) ** 2))

    def is_alike(self, lag: int, n_channels: int) -> bool:
        """Whether the number so many before predicts all channels, as declared, alike."""
        gains = np.array([self.gain(lag, each, n_channels) for each in range(n_channels)])
        if lag % n_channels == 0:
            own = np.array([self.gain(n_channels, each, n_channels) for each in range(n_channels)])
            is_own = own - BETTER_LAG * gains > BETTER_LAG_BITS
            # One channel alone that repeats, such as a clock, says nothing of the others.
            is_lone = n_channels > 1 and (~np.isnan(gains)).sum() == 1
            return not (is_own.any() or is_lone)
        parts = [part[~np.isnan(part)] for part in np.split(gains, [lag % n_channels])]
        if not all(map(len, parts)):
            return False
        crossing, within = parts
        least, most = np.nanmin(gains), np.nanmax(gains)
        return bool(least > ALIKE * most and crossing.mean() > WRAPS * within.mean())


def _read_numbers(path: str, layout: Layout, n_columns: int, n_slow: int) -> _Numbers | None:
    """Read a file's pieces as they stand there, of so many channels; None where nothing varies."""
    from scipy.ndimage import maximum_filter1d

    values, good, events = [], [], []
    as_it_stands = replace(layout, time_axis=0, num_channels=n_columns)
    for chunk in _read_pieces(path, as_it_stands, LONGER):
        piece = _finite(chunk)
        changes = np.append(False, (np.diff(piece, axis=0) != 0).any(axis=1))
        varies = maximum_filter1d(changes, HELD)
        if varies.sum() < LEAST_ROWS:
            continue
        with_tones = _without_slow(piece, n_slow)
        piece = _without_tones(with_tones)
        spread = _spread(piece[varies], 0.0)
        spread[spread < LEAST_LEFT * _spread(with_tones[varies], 0.0)] = 0.0
        scaled = piece / np.where(spread > 0, spread, 1.0)
        strongest = maximum_filter1d(np.abs(scaled), min(n_slow, len(piece)), axis=0)
        is_good = (strongest < ARTEFACT_MAD) & (spread > 0) & varies[:, None]
        values.append(scaled.ravel())
        good.append(is_good.ravel())
        events.append((is_good & (np.abs(scaled) > EVENT_MAD)).ravel())
    if not values:
        return None
    is_good = np.concatenate(good)
    compared = np.flatnonzero(np.concatenate(events))
    if len(compared) < LEAST_EVENTS:
        compared = np.flatnonzero(is_good)
    every = max(1, len(compared) // MOST_EVENTS)
    return _Numbers(np.concatenate(values), is_good, compared[::every])


def _mantissa_bits(values: "NDArray[Any]") -> int:
    """Count the bits of the mantissa that are used: of float32 in float64 the others are zero."""
    native = values.astype(values.dtype.newbyteorder("="))
    words = native[np.isfinite(native)].view(f"u{native.itemsize}")
    used = int(np.bitwise_or.reduce(words)) or 1
    n_zeros, n_bits = (used & -used).bit_length() - 1, np.finfo(native.dtype).nmant
    return n_bits - min(n_zeros, n_bits)


def _spread(piece: "NDArray[np.float64]", least: float) -> "NDArray[np.float64]":
    """Return the spread of each channel by MAD, which artefacts do not enter."""
    mad: NDArray[np.float64] = np.median(np.abs(piece), axis=0) / MAD_TO_SD
    return np.maximum(mad, least)


def read_bytes(path: str, offset: int, n_bytes: int) -> bytes:
    """Read a piece of a file, without the megabytes that Linux reads ahead of a mapped page."""
    with Path(path).open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return os.pread(file.fileno(), n_bytes, offset)


def _read_pieces(path: str, layout: Layout, times: int = 1) -> "list[NDArray[Any]]":
    """Read pieces at the same places of a file for every layout, each (samples, channels).

    None at all where the file is too short.
    """
    item, n_channels = np.dtype(layout.dtype).itemsize, layout.num_channels
    n_rows = (Path(path).stat().st_size - layout.file_offset) // layout.frame_bytes
    length = min(n_rows, max(LEAST_ROWS, times * PIECE_BYTES // layout.frame_bytes))
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


def _tells(values: "NDArray[Any]") -> bool:
    """Whether there are numbers that are not at their type's limits; if not, the map says why."""
    if values.dtype.kind == "f":
        return bool(np.isfinite(values).any())
    limits = np.iinfo(values.dtype)
    is_railed = (values == limits.min) | (values == limits.max)
    return len(values) > 0 and bool(is_railed.mean() <= LEAST_RAILED)


def _is_signal(values: "NDArray[Any]") -> bool:
    """Whether numbers may be samples, and not bytes of something else."""
    finite = np.isfinite(values)
    if finite.mean() < 0.5:  # noqa: PLR2004 - NaN samples are another check's
        return False
    magnitudes = np.abs(values[finite & (values != 0)][::7].astype(np.float64))
    if not len(magnitudes):
        return True
    low, high = np.percentile(np.log2(magnitudes), [5, 95])
    return bool(high - low < MOST_OCTAVES and abs(high) < MOST_MAGNITUDE)


def _finite(piece: "NDArray[Any]") -> "NDArray[np.float64]":
    """Return a piece as floating-point numbers, with zeros for those that are none."""
    values = np.asarray(piece, dtype=np.float64)
    if piece.dtype.kind != "f":
        return values
    return np.where(np.abs(values) < 2.0**MOST_MAGNITUDE, values, 0.0)


def _without_slow(piece: "NDArray[np.float64]", n_slow: int) -> "NDArray[np.float64]":
    """Take a running mean out of each channel."""
    from scipy.ndimage import uniform_filter1d

    slow: NDArray[np.float64] = uniform_filter1d(piece, min(n_slow, len(piece)), axis=0)
    return piece - slow


def _without_tones(piece: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Take narrow bands out of each channel that has some, since a tone repeats."""
    window = np.hanning(len(piece))[:, None]
    spectrum = np.fft.rfft(piece * window, axis=0)
    size = np.abs(spectrum)
    bands = np.array_split(size, max(1, len(size) // TONE_BINS))
    is_tone = np.concatenate([band > TONE * np.median(band, axis=0) for band in bands])
    is_tone[: len(bands[0])] = False  # slow signals are out of that band already
    if not is_tone.any():
        return piece
    cleaned = np.fft.irfft(np.where(is_tone, 0.0, spectrum), len(piece), axis=0)
    return np.where(is_tone.any(axis=0), cleaned / np.maximum(window, LEAST_WINDOW), piece)
