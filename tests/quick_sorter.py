"""A sorter plugin for tests: threshold crossings, in a second; fails as its parameters say."""

import os
import signal
import subprocess
import time

import numpy as np
from spikeinterface.core import NpzSortingExtractor, NumpySorting
from spikeinterface.sorters import BaseSorter

#: A window is shorter than this, a whole recording of the tests is not.
WINDOW_S = 5.0


class QuickSorter(BaseSorter):
    """One unit for each channel that crosses the threshold at least ten times."""

    sorter_name = "quick"
    requires_locations = False
    gpu_capability = "not-supported"
    handle_multi_segment = False
    _default_params = {  # noqa: RUF012 - as SpikeInterface wants it
        "threshold": 5.0,
        "fail_in": "never",  # never, window, full, always
        "fail_how": "bug",  # bug, silent, cuda, memory, kill, exit
        "sleep_s": 0.0,
        "grandchild": False,
        "unused": 0,
    }
    _params_description = dict.fromkeys(_default_params, "")

    @classmethod
    def is_installed(cls):
        return True

    @staticmethod
    def get_sorter_version():
        return "1.0"

    @classmethod
    def _check_params(cls, recording, output_folder, params):
        return params

    @classmethod
    def _check_apply_filter_in_params(cls, params):
        return False

    @classmethod
    def _setup_recording(cls, recording, sorter_output_folder, params, verbose):
        pass

    @classmethod
    def _run_from_folder(cls, sorter_output_folder, params, verbose):
        recording = cls.load_recording_from_folder(sorter_output_folder.parent)
        print(f"quick sorter: {recording.get_total_duration():.1f} s")
        if params["grandchild"]:
            subprocess.Popen(["sleep", "300"])
        time.sleep(params["sleep_s"])
        part = "window" if recording.get_total_duration() < WINDOW_S else "full"
        if params["fail_in"] in (part, "always"):
            _fail(params["fail_how"])
        traces = recording.get_traces().astype(float)
        traces -= np.median(traces, axis=0)
        noise = np.median(np.abs(traces), axis=0) / 0.6745
        below = traces < -params["threshold"] * noise
        crossings = np.diff(below.astype(np.int8), axis=0) == 1
        units = {
            str(channel): np.flatnonzero(crossings[:, channel])
            for channel in range(crossings.shape[1])
            if crossings[:, channel].sum() >= 10
        }
        sorting = NumpySorting.from_unit_dict(units, recording.sampling_frequency)
        NpzSortingExtractor.write_sorting(sorting, sorter_output_folder / "sorting.npz")

    @classmethod
    def _get_result_from_folder(cls, sorter_output_folder):
        return NpzSortingExtractor(sorter_output_folder / "sorting.npz")


# Sorters that fail, for single rows of a table: `silent_window` fails in the canary's window
# as a sorter does on silent data, and so on.
for _how in ("bug", "silent", "cuda", "kill", "exit"):
    for _part in ("window", "full", "always"):
        _name = f"{_how}_{_part}"
        _defaults = QuickSorter._default_params | {"fail_in": _part, "fail_how": _how}
        globals()[_name] = type(
            _name,
            (QuickSorter,),
            {"sorter_name": _name, "_default_params": _defaults, "__module__": __name__},
        )


def _fail(how):
    if how == "bug":
        msg = "a bug that mentions CUDA, out of memory and docker in passing"
        raise ZeroDivisionError(msg)
    if how == "silent":
        msg = "No spikes detected, cannot continue sorting."
        raise ValueError(msg)
    if how == "cuda":
        msg = "Torch not compiled with CUDA enabled"
        raise AssertionError(msg)
    if how == "memory":
        np.empty((10**9, 10**6))
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)
