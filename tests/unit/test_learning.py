"""What Kilosort 4 will learn its templates from, counted by its own code."""

import numpy as np
import pytest
from probeinterface import generate_linear_probe, write_probeinterface

from spikecanary import sorter
from spikecanary.config import Config, SorterSettings
from spikecanary.sorter import learning
from spikecanary.table import Recording

RATE_HZ, N_CHANNELS, DURATION_S = 20_000.0, 8, 12.0
#: Batches of 0.2 s: it learns from those at 0, 5 and 10 s.
PARAMS = {"nblocks": 0, "batch_size": 4_000}


@pytest.fixture
def make_task(tmp_path):
    """Return a function that makes the task of a recording that is active in some spans, in s."""
    probe = generate_linear_probe(N_CHANNELS, ypitch=20)
    probe.set_device_channel_indices(range(N_CHANNELS))
    write_probeinterface(tmp_path / "probe.json", probe)

    def make(*active, **params):
        rng = np.random.default_rng(3)
        traces = rng.normal(0.0, 10.0, (int(DURATION_S * RATE_HZ), N_CHANNELS))
        for begins, ends in active:
            for at_s in np.arange(begins, ends - 0.01, 0.006):
                at = int(at_s * RATE_HZ)
                channel = int(rng.integers(N_CHANNELS))
                traces[at : at + 12, channel] -= 140.0 * np.hanning(12)
        traces.astype("int16").tofile(tmp_path / "x.raw")
        row = Recording(
            id="x",
            paths=(str(tmp_path / "x.raw"),),
            reader="binary",
            reader_options={
                "sampling_frequency": RATE_HZ,
                "dtype": "int16",
                "num_channels": N_CHANNELS,
            },
            probe=str(tmp_path / "probe.json"),
        )
        settings = SorterSettings(name="kilosort4", device="cpu", params=PARAMS | params)
        return sorter.make_task(row, Config(sorter=settings))

    return make


def test_reading_ends_with_enough_clips(make_task, tmp_path):
    found = learning.count_clips(make_task((0.0, 12.0)), tmp_path)
    assert list(found.counts) == [0.0]
    assert found.is_enough
    assert found.richest_s == 0.0
    late = learning.count_clips(make_task((4.5, 6.0)), tmp_path / "late")
    assert list(late.counts) == [0.0, 5.0]
    assert (late.counts[0.0], late.richest_s) == (0, 5.0)


def test_start_from_which_it_would_sort(make_task, tmp_path):
    found = learning.count_clips(make_task((1.0, 4.0)), tmp_path)  # nothing at 0, 5 and 10 s
    assert found.counts == {0.0: 0, 5.0: 0, 10.0: 0}
    assert not found.is_enough
    assert found.start_s == pytest.approx(1.0, abs=0.3)


def test_silent_recording_has_no_start(make_task, tmp_path):
    found = learning.count_clips(make_task(), tmp_path)
    assert (found.n_clips, found.start_s) == (0, None)


def test_batches_that_are_read_at_all(make_task, tmp_path):
    # Of every second batch every 25th: those at 0 and 10 s.
    found = learning.count_clips(make_task((4.5, 6.0), batch_downsampling=2), tmp_path)
    assert found.counts == {0.0: 0, 10.0: 0}
    assert found.start_s == pytest.approx(4.5, abs=0.3)


def test_what_cannot_be_counted(make_task):
    task = make_task()
    assert learning.is_countable(task)
    assert not learning.is_countable(make_task(templates_from_data=False))
    settings = task.sorter.model_copy(update={"container": "docker"})
    assert not learning.is_countable(task.model_copy(update={"sorter": settings}))
