"""A sorter plugin for tests: threshold crossings, in a second; fails as its parameters say."""

import os
import signal
import subprocess
import sys
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
        "fail_how": "bug",  # a key of FAULTS
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
            FAULTS[params["fail_how"]](params, sorter_output_folder)
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
        if os.path.exists("reader_is_broken"):  # noqa: PTH110 - in the working directory
            msg = "cannot read the sorter's own files"
            raise TypeError(msg)
        return NpzSortingExtractor(sorter_output_folder / "sorting.npz")


def _bug(params, folder):
    msg = "a bug that mentions CUDA, out of memory and docker in passing"
    raise ZeroDivisionError(msg)


def _silent(params, folder):
    msg = "No spikes detected, cannot continue sorting."
    raise ValueError(msg)


def _cuda(params, folder):
    msg = "Torch not compiled with CUDA enabled"
    raise AssertionError(msg)


def _memory(params, folder):
    np.empty((10**9, 10**6))


def _gpu_memory(params, folder):
    """Run out of GPU memory with large batches only."""
    if params["unused"] > 16:
        msg = (
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 "
            "GiB of which 1.20 GiB is free."
        )
        import torch

        raise torch.OutOfMemoryError(msg)


def _launch(params, folder):
    """Fail as a GPU does now and then: the first times, so many as `unused` says."""
    with open("launches", "a") as file:  # noqa: PTH123 - in the working directory
        file.write("x")
        if file.tell() > params["unused"]:
            return
    msg = (
        "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously "
        "reported at some other API call, so the stacktrace below might be incorrect."
    )
    raise RuntimeError(msg)


def _hang(params, folder):
    time.sleep(3600)


def _wait(params, folder):
    """Wait while there is a file `hold` in the working directory, then go on."""
    while os.path.exists("hold"):  # noqa: PTH110 - in the working directory
        time.sleep(0.2)


def _spin(params, folder):
    """Hang, but compute."""
    while True:
        pass


def _chatter(params, folder):
    """Hang, but print."""
    while True:
        print("still waiting for the licence server", flush=True)
        time.sleep(0.5)


def _hog(params, folder):
    """Take 100 MB more each time, up to what a machine of 16 GB bears."""
    held = []
    while len(held) < 120:
        held.append(np.ones(12_500_000))
        time.sleep(0.1)
    time.sleep(3600)


def _block(params, folder):
    """Hold 4.8 GB for a few seconds, then go on."""
    block = np.ones(600_000_000)
    time.sleep(8)
    print(f"held {block.nbytes} bytes", flush=True)


def _fill(params, folder):
    """Write 5 MB more each time, up to 1250 MB."""
    with (folder / "temp_wh.dat").open("wb") as file:
        for _ in range(250):
            file.write(b"x" * 5_000_000)
            file.flush()
            time.sleep(0.1)
    time.sleep(3600)


def _segv(params, folder):
    os.kill(os.getpid(), signal.SIGSEGV)


def _kill(params, folder):
    os.kill(os.getpid(), signal.SIGKILL)


def _exit(params, folder):
    os._exit(3)


def _family(params, folder):
    """Leave a grandchild, in a session of its own, that ignores SIGTERM; then fail."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    time.sleep(1)
    _bug(params, folder)


def _flood(params, folder):
    """Print a GB, then go on."""
    line = b"#" * 999_999 + b"\n"
    for _ in range(1000):
        sys.stdout.buffer.write(line)
    time.sleep(1)  # the log may be cut at this moment, which may cost a line
    print("that was a GB", flush=True)


def _garbage(params, folder):
    """Print what is no text, then go on."""
    sys.stdout.buffer.write(np.random.default_rng(0).bytes(100_000) + b"\n")
    print("that was no text", flush=True)


FAULTS = {
    name[1:]: fault
    for name, fault in list(globals().items())
    if name.startswith("_") and getattr(fault, "__module__", None) == __name__
}

# Sorters that fail, for single rows of a table: `silent_window` fails in the canary's window
# as a sorter does on silent data, and so on.
for _how in FAULTS:
    for _part in ("window", "full", "always"):
        _name = f"{_how}_{_part}"
        _defaults = QuickSorter._default_params | {"fail_in": _part, "fail_how": _how}
        globals()[_name] = type(
            _name,
            (QuickSorter,),
            {"sorter_name": _name, "_default_params": _defaults, "__module__": __name__},
        )
