"""What a log tells beside an exception, and what it must not."""

import time

import pytest

from spikecanary.failures import (
    DependencyError,
    HostMemoryWatchdogError,
    InsufficientActivityError,
    RecordingUnreadableError,
    classify,
)
from spikecanary.supervise.log import TAIL_BYTES
from workbench import frame


@pytest.mark.parametrize(
    "line", ["\n", "  \n", "INFO kilosort: batch 3 of 90\n", "-" * 30 + "\n", "x\n", "/a.b\n"]
)
def test_the_end_of_a_long_log_and_long_messages_are_read_at_once(line):
    log = (line * TAIL_BYTES)[:TAIL_BYTES]
    begin = time.process_time()
    assert classify.by_text("Traceback (most recent call last):\nIndexError: x", log) is None
    message = log.replace("\n", "")
    assert classify.by_text(f"Traceback (most recent call last):\nIndexError: {message}") is None
    assert time.process_time() - begin < 10.0  # minutes, where a pattern looks back and forth


@pytest.mark.parametrize(
    "killed",
    [
        "systemd-oomd[7]: Killed /user.slice/app.slice/app-gnome-{}-7.scope due to memory pressure",
        "systemd[7]: app-gnome-{}-7.scope: Failed with result 'oom-kill'.",
        'earlyoom[7]: sending SIGTERM to process 7 uid 1000 "{}": badness 1005',
    ],
)
def test_memory_that_another_program_took_did_not_end_the_sort(killed):
    assert classify.by_text(killed.format("firefox")) is None
    assert isinstance(classify.by_text(killed.format("python3")), HostMemoryWatchdogError)


@pytest.mark.parametrize("why", ["Requested nodes are busy", "Licenses currently unavailable"])
def test_what_slurm_or_a_registry_has_not_now_passes(why):
    assert classify.by_text(f"srun: error: Unable to create step for job 7: {why}") is None
    pyxis = "slurmstepd: error: pyxis: "
    text = f"{pyxis}failed to import docker image\n{pyxis}    curl: (6) Could not resolve host"
    assert classify.by_text(text) is None
    text = "FATAL:   While making image from oci registry: create command failed: signal: killed"
    assert classify.by_text(text) is None


def test_memory_that_a_job_passed_at_some_point_did_not_end_it():
    log = "slurmstepd: error: Exceeded step memory limit at some point."
    assert classify.by_text("Traceback (most recent call last):\nKeyError: 'x'", log) is None


def test_a_result_that_a_sorter_did_not_write_is_no_recording():
    text = "Traceback (most recent call last):\n"
    text += frame("spikeinterface/extractors/spykingcircusextractors:__init__", "assert folder")
    assert classify.by_text(text + "AssertionError: Not a valid spyking circus folder") is None
    result = frame("spikeinterface/sorters/basesorter:get_result_from_folder")
    result += frame("spikeinterface/extractors/waveclustextractors:__init__")
    lost = "FileNotFoundError: [Errno 2] No such file or directory: '/out/times.mat'"
    assert classify.by_text(f"Traceback (most recent call last):\n{result}{lost}") is None
    log = "| No waveforms found! Are the data properly loaded??"
    said = classify.by_text(f"{text}AssertionError: Not a valid spyking circus folder", log)
    assert isinstance(said, InsufficientActivityError)
    text = "Traceback (most recent call last):\n" + frame("spikeinterface/core/loading:load")
    other = "AssertionError: Could not load spikeinterface class"  # of another version
    assert isinstance(classify.by_text(text + other), RecordingUnreadableError)
    lost = " is not a file or a folder. It should point to either a json, ..."
    assert isinstance(classify.by_text(f"{text}ValueError: /d{lost}"), RecordingUnreadableError)
    assert classify.by_text(f"{text}ValueError: /out/in_container_sorting{lost}") is None


def test_missed_module_in_the_log_is_no_cause():
    text = "Traceback (most recent call last):\nIndexError: list index out of range"
    log = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'tkinter'"
    assert classify.by_text(text, log) is None
    program = "Traceback (most recent call last):\nException: x returned a non-zero exit code"
    assert isinstance(classify.by_text(program, log), DependencyError)


KERNEL = (
    "found {} threshold crossings in 59.16 seconds of data\nfound {} bad channels\n"
    "----------------------------------------Error using gpuArray/nan\n"
    "An unexpected error occurred trying to launch a kernel. The CUDA error was:\n"
)


@pytest.mark.parametrize(
    ("crossings", "bad", "biological"), [(50, 0, True), (900, 60, True), (90_000, 2, False)]
)
def test_numbers_of_the_log_decide(crossings, bad, biological):
    failure = classify.by_text("", KERNEL.format(crossings, bad))
    assert (failure is not None) == biological


def test_a_line_of_the_log_never_outweighs_the_exception():
    log = "detect_peaks(): 0 peaks found\n"
    chunk = "Scheme 2 detected 0 spikes in chunk 1 of 2\n"
    assert classify.by_text("ZeroDivisionError: division by zero", log) is not None
    assert classify.by_text("IndexError: list index out of range", log) is None
    assert classify.by_text("", chunk) is None


def test_process_that_was_killed_and_one_that_kills_itself():
    killed = "/opt/matlab/bin/matlab: line 412:  5555 Killed                  setsid matlab"
    assert isinstance(classify.by_text("", killed), HostMemoryWatchdogError)
    crashed = f"MATLAB is exiting because of fatal error\n{killed}"
    assert classify.by_text("", crashed) is None


@pytest.mark.parametrize(
    "said",
    [
        "zsh:1: command not found: matlab",
        "run.sh: Zeile 3: matlab: Kommando nicht gefunden.",
        "'matlab' is not recognized as an internal or external command,",
        "'matlab' 不是内部或外部命令",
    ],
)
def test_missing_programs_in_other_shells_and_languages(said):
    assert classify.by_text("", said).evidence == {}
    assert type(classify.by_text("", said)).__name__ == "MatlabRuntimeError"
    other = classify.by_text("", said.replace("matlab", "klusta"))
    assert other.evidence == {"module": "klusta"}
    assert classify.by_text("", said.replace("matlab", "nvidia-smi")) is None


def test_parts_without_spikes_beside_parts_with_some():
    text = "Traceback (most recent call last):\nValueError: could not broadcast"
    assert classify.by_text(text, "Detected 0 spikes") is not None
    assert classify.by_text(text, "Detected 5123 spikes\nDetected 0 spikes") is None
    assert classify.by_text(text, "Shank 1: detected 0 spikes\nShank 2: detected 9 spikes") is None
    assert classify.by_text(text, "Found 0 spikes on channel 12") is None
    assert classify.by_text(text, "Found 0 spikes in the recording") is not None


def test_hardly_any_spikes_then_a_computation_on_more():
    text = (
        "Traceback (most recent call last):\nIndexError: index 1 is out of bounds for axis 0 with "
    )
    failure = classify.by_text(f"{text}size 1", "Kept 1 peaks for clustering")
    assert failure.evidence == {"n_spikes": 1}
    assert classify.by_text(f"{text}size 1", "Kept 8 peaks for clustering") is None
    assert classify.by_text(f"{text}size 1", "Detected 40 peaks\nKept 1 peaks") is None


@pytest.mark.parametrize(
    "line",
    [
        "/bin/sh: 1: matlab: not found",
        "WARNING: Could not find any nv files on this host!",
        "pynvml.NVMLError_LibraryNotFound: NVML Shared Library Not Found",
        "ERROR: Failed building wheel for isosplit5",
        "touch: cannot touch '/home/me/.x': Disk quota exceeded",
        "Illegal instruction (core dumped)",
    ],
)
def test_what_a_log_says_of_the_machine_is_no_cause_beside_an_error_of_code(line):
    assert classify.by_text("", line) is not None
    text = "Traceback (most recent call last):\n{}"
    assert classify.by_text(text.format("IndexError: list index out of range"), line) is None
    astray = "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert classify.by_text(text.format(astray), line) is None


@pytest.mark.parametrize(
    "log",
    [
        "detect_peaks(): {} peaks found",
        "kilosort.run_kilosort: {} spikes extracted in 1.85s; total 1.93s",
        "Detected {} spikes",
        "Kept {} peaks for clustering",
    ],
)
@pytest.mark.parametrize(
    "said",
    [
        "ValueError: n_samples=3 should be >= n_clusters=5.",
        "AssertionError: Prototype should have a negative peak",
        "ValueError: No spikes found in shank 3",
    ],
)
def test_many_spikes_in_the_log_are_never_too_few(log, said):
    text = f"Traceback (most recent call last):\n{said}"
    assert classify.by_text(text, log.format("12")).category == "biological"
    assert classify.by_text(text, log.format("40,123")) is None


@pytest.mark.parametrize(
    "line",
    [
        "mkdir: cannot create directory '/run/user/1234': Permission denied",
        "Failed to initialize NVML: Unknown Error",
        "touch: cannot touch '/home/me/.matlab/x': Disk quota exceeded",
        "OSError: [Errno 28] No space left on device (a figure was not saved)",
    ],
)
def test_what_stands_before_the_error_of_a_sorter_in_matlab_is_not_the_cause(line):
    ended = "Traceback (most recent call last):\nException: kilosort3 returned a non-zero exit code"
    assert classify.by_text(ended, line) is not None
    rule = "-" * 40
    bug = f"{line}\nTime 33s. Optimizing templates ...\n{rule}Index must not exceed 4.\n"
    assert classify.by_text(ended, bug) is None
    assert classify.by_text(ended, f"{rule}\n{line}") is not None  # a rule alone
    assert classify.by_text(ended, f"{rule}Invalid MEX-file 'a.mexa64': libcufft.so") is not None


def test_what_a_shell_says_while_it_starts_is_not_the_cause():
    text = "Traceback (most recent call last):\nRuntimeError: a bug"
    said = "line 12: klusta: command not found"
    assert classify.by_text(text, f"/scratch/run.sh: {said}") is not None
    assert classify.by_text(text, f"/home/me/.bashrc: {said}") is None
    assert classify.by_text(text, f"/etc/profile.d/lab.sh: {said}") is None


def test_an_import_that_code_did_without_is_no_cause():
    mark = "\nDuring handling of the above exception, another exception occurred:\n\n"
    begin = "Traceback (most recent call last):\n"
    missed = begin + frame("a/b:f", "import cuml") + "ImportError: No module named 'cuml'\n"
    other = begin + frame("a/c:g") + "IndexError: list index out of range"
    says_so = begin + frame("a/b:f", "raise KeyError(x)") + "KeyError: 'cuml'"
    assert classify.by_text(missed + mark + other) is None
    assert isinstance(classify.by_text(missed + mark + says_so), DependencyError)
