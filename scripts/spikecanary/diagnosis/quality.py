"""What is odd about a full sort: one line for people each."""

from collections.abc import Iterator, Mapping
from typing import Any

from spikecanary.sentinel import Record
from spikecanary.supervise.watchdogs import Found, Sample
from spikecanary.texts import describe_empty

#: More units than this, and than so many per channel, are told apart by no probe: of a tetrode's
#: four channels 5 to 20 are (Buzsaki 2004, doi:10.1038/nn1233).
MOST_UNITS, MOST_PER_CHANNEL = 100, 5.0
#: A spike rate so many times that of the canary, or its inverse, is odd; of fewer spikes than this
#: in the canary's window no rate is told.
RATE_FACTOR, LEAST_SPIKES = 5.0, 50
#: A sort is slow that takes so many times the high end of its forecast.
SLOW_FACTOR = 3.0


def describe(found: Mapping[str, Any], header: Mapping[str, Any], canary: Record) -> Iterator[str]:
    """Describe what is odd about what :func:`spikecanary.sorter.sort` returned, if it did."""
    n_units, n_spikes = found["n_units"], found.get("n_spikes")
    if n_units == 0:
        yield describe_empty(canary.n_units)
    if not n_units or not n_spikes:
        return
    for name, where in {"n_before": "before the start", "n_beyond": "beyond the end"}.items():
        if count := found.get(name):
            yield f"{count} of {n_spikes} spikes are {where} of the recording"
    if n_units > max(MOST_UNITS, MOST_PER_CHANNEL * header["n_channels"]):
        yield f"{n_units} units of {header['n_channels']} channels: far more than can be told apart"
    first = canary.windows[0] if canary.outcome == "passed" and canary.windows else None
    if first is None or first.why != "leading" or (first.n_spikes or 0) < LEAST_SPIKES:
        return
    before_hz = (first.n_spikes or 0) / (first.end_s - first.start_s)
    now_hz = n_spikes / header["duration_s"]
    if not 1 / RATE_FACTOR <= now_hz / before_hz <= RATE_FACTOR:
        yield f"{now_hz:.3g} spikes per s, and in the canary's window {before_hz:.3g}"


def check_forecast(sample: Sample, high_s: float) -> Found:
    """Warn once of a sort that takes far longer than its canary forecast, in s."""
    if sample.elapsed_s <= SLOW_FACTOR * high_s:
        return None
    return (
        f"running for {sample.elapsed_s / 60:.1f} min by now, more than {SLOW_FACTOR:g} times the "
        f"{high_s / 60:.1f} min of its forecast's high end"
    )
