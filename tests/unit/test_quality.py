"""What is odd about a sort."""

import pytest

from spikecanary import canary as canaries
from spikecanary import fullsort
from spikecanary.config import CanarySettings, SorterSettings
from spikecanary.diagnosis import quality
from spikecanary.sentinel import Window
from spikecanary.sorter import SortTask
from spikecanary.supervise.job import Job
from spikecanary.supervise.watchdogs import Sample
from spikecanary.table import Recording
from workbench import ROOT, make_record

#: The quick sorter with spikes outside of a whole recording, as old Kilosorts leave them.
PLUGIN = """
import runpy
import numpy as np
from spikeinterface.core import NpzSortingExtractor, NumpySorting
from spikeinterface.sorters import BaseSorter

class OutsideSorter(runpy.run_path({quick!r})["QuickSorter"]):
    sorter_name = "outside"

    @classmethod
    def _get_result_from_folder(cls, folder):
        sorting = NpzSortingExtractor(folder / "sorting.npz")
        units = sorting.get_unit_spike_train(sorting.unit_ids[0])
        if units[-1] < 150_000:
            return sorting
        times = np.array([-9, -1, 5, 239_999, 240_000])
        return NumpySorting.from_unit_dict({{"0": times}}, 30000.0)
"""
HEADER = {"n_channels": 384, "duration_s": 100.0}


def canary(n_spikes=1000, **fields):
    window = Window(start_s=0, end_s=10, why="leading", ended="", n_units=8, n_spikes=n_spikes)
    return make_record(**{"n_units": 8, "windows": [window]} | fields)


@pytest.mark.parametrize(
    ("found", "header", "said"),
    [
        ({}, {}, None),
        ({"n_before": 2}, {}, "2 of 10000 spikes are before the start of the recording"),
        ({"n_beyond": 3}, {}, "3 of 10000 spikes are beyond the end of the recording"),
        ({"n_units": 1920}, {}, None),
        ({"n_units": 1921}, {}, "1921 units of 384 channels: far more than can be told apart"),
        ({"n_units": 100}, {"n_channels": 1}, None),
        ({"n_units": 101}, {"n_channels": 4}, "101 units of 4 channels"),
        (
            {"n_units": 0, "n_spikes": 0},
            {},
            "the full sort found no units, and its canary found 8",
        ),
        ({"n_spikes": 2000}, {}, None),
        ({"n_spikes": 1900}, {}, "19 spikes per s, and in the canary's window 100"),
        ({"n_spikes": 50_100}, {}, "501 spikes per s, and in the canary's window 100"),
    ],
)
def test_what_is_odd(found, header, said):
    result = {"n_units": 9, "n_spikes": 10_000} | found
    lines = list(quality.describe(result, HEADER | header, canary()))
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]


def test_rate_is_compared_with_that_of_a_canary_that_passed():
    few = {"n_units": 9, "n_spikes": 100}
    assert len(list(quality.describe(few, HEADER, canary()))) == 1
    assert not list(quality.describe(few, HEADER, canary(outcome="unexpected")))
    assert not list(quality.describe(few, HEADER, canary(n_spikes=49)))
    richest = canary().windows[0].model_copy(update={"why": "the most active"})
    assert not list(quality.describe(few, HEADER, canary(windows=[richest])))


def test_slow_sort():
    assert quality.check_forecast(Sample(elapsed_s=180.0), high_s=60.0) is None
    said = quality.check_forecast(Sample(elapsed_s=181.0), high_s=60.0)
    assert said == (
        "running for 3.0 min by now, more than 3 times the 1.0 min of its forecast's high end"
    )


@pytest.mark.usefixtures("in_process")
def test_warnings_of_a_full_sort(tmp_path, write_binary, reader_options, monkeypatch):
    monkeypatch.setattr(quality, "SLOW_FACTOR", 0.0)
    plugin = tmp_path / "outside.py"
    plugin.write_text(PLUGIN.format(quick=str(ROOT / "tests/quick_sorter.py")))
    path = str(write_binary("active", 8.0))
    row = Recording(id="x", paths=(path,), reader="binary", reader_options=reader_options)
    task = SortTask(row=row, sorter=SorterSettings(name="outside", plugin=str(plugin)))
    job = Job(log=tmp_path / "log.txt")
    settings = CanarySettings(window_s=2, min_recording_s=4)
    assert canaries.run(task, settings, tmp_path / "x", job).n_units == 4
    record = fullsort.run(task, tmp_path / "x", job)
    assert record.outcome == "sorted"
    slow, before, beyond, rate = record.warnings
    assert "more than 0 times the" in slow
    assert before == "2 of 5 spikes are before the start of the recording"
    assert beyond == "1 of 5 spikes are beyond the end of the recording"
    assert "0.625 spikes per s, and in the canary's window" in rate
