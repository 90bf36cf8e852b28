"""What is read of logs: in quotes, behind bars, of other languages and systems."""

import json
import pprint
import traceback

import pytest

from spikecanary.failures import (
    DependencyError,
    GPUOutOfMemoryError,
    GPUUnavailableError,
    InsufficientActivityError,
    MatlabRuntimeError,
    RecordingUnreadableError,
    SorterTimeoutError,
    classify,
)
from spikecanary.failures.tracebacks import clean, parse_errors
from workbench import frame


def test_exceptions_of_a_text_are_found_with_their_messages():
    text = (
        "spikeinterface.sorters.utils.misc.SpikeSortingError: Spike sorting error trace:\n"
        "Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\n'
        "    raise ValueError: not this one\n"
        "ValueError: bad\n"
        "Exception: worse\n"
    )
    assert classify.parse_errors(text) == [
        ("SpikeSortingError", "Spike sorting error trace:"),
        ("ValueError", "bad"),
        ("Exception", "worse"),
    ]


def test_logs_that_stand_in_quotes():
    trace = frame("kilosort/spikedetect:extract_wPCA_wTEMP") + (
        "ValueError: n_samples=2 should be >= n_clusters=6.\n"
    )
    for written in (trace, trace.splitlines()):
        log = {"error_trace": written, "run_time": None}
        for text in (json.dumps(log, indent=4), pprint.pformat(log)):
            assert isinstance(classify.by_text(text), InsufficientActivityError)
    assert classify.by_text("{'error_trace': 'C:\\path and \\u12 more'}\n") is None
    assert classify.by_text('  "error_trace": ["x"],\n  "C:\\path and \\u12 more"\n') is None
    assert classify.by_text("{'error_trace': ['x\0y',\n 'more']}") is None
    slurm = (
        "slurmstepd: error: *** JOB 8 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***"
    )
    text = f"Error executing process > 'sort'\n\nCommand error:\n  set -e\n\n  {slurm}\n\nWork dir:"
    assert isinstance(classify.by_text(text), SorterTimeoutError)
    assert classify.by_text(f"The forum says:\n  {slurm}") is None
    window = "Error preprocessing! Undefined function 'spikedetector3' for input arguments of type"
    assert isinstance(classify.by_text(f"{window} 'gpuArray'."), MatlabRuntimeError)


def as_spikeinterface_writes(trace):
    """Return the list of lines that SpikeInterface 0.105 puts into its log of a sort."""
    first, *others = trace.splitlines()
    return [first, *(line if line.startswith(" ") else f"  {line}" for line in others)]


def before_each_line(prefix):
    return lambda trace: "".join(f"{prefix}{line}\n" for line in trace.splitlines())


FORMS = {
    "log": lambda trace: json.dumps({"error_trace": as_spikeinterface_writes(trace)}, indent=4),
    "printed log": lambda trace: pprint.pformat({"error_trace": as_spikeinterface_writes(trace)}),
    "list": lambda trace: f"SpikeSortingError: error trace:\n{as_spikeinterface_writes(trace)}\n",
    "rank": before_each_line("[rank0]: "),
    "container": before_each_line("sorter_1  | "),
    "time": before_each_line("2026-01-01 10:00:00,123 ERROR "),
    "quoted": before_each_line("> "),
    "indented": before_each_line("    "),
    "colours": lambda trace: trace.replace("RuntimeError", "\x1b[31mRuntimeError\x1b[0m"),
    "blank": lambda trace: trace.replace("RuntimeError:", "RuntimeError :"),
    "Kilosort's window": lambda trace: trace.replace("RuntimeError: ", "RuntimeError\n:\n"),
    "VS Code": lambda trace: (
        "Exception has occurred: " + trace[trace.rindex("Run") :].replace(": ", "\n", 1)
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_traceback(form):
    trace = frame("torch/cuda/__init__:_lazy_init") + "RuntimeError: No CUDA GPUs are available\n"
    written = FORMS[form](f"Traceback (most recent call last):\n{trace}")
    assert isinstance(classify.by_text(written), GPUUnavailableError)


def test_indented_words_are_no_exception():
    text = "rule sort:\n    message: x\n    RuntimeError: No CUDA GPUs are available\n"
    assert classify.by_text(text) is None


@pytest.mark.parametrize(
    "where", ["File {path}:288, in TdtRawIO._parse_header(self)", "{path} in _parse_header(self)"]
)
def test_frames_of_a_notebook(where):
    path = "~/miniconda3/envs/si/lib/python3.11/site-packages/neo/rawio/tdtrawio.py"
    text = (
        f"{'-' * 75}\nValueError                          Traceback (most recent call last)\n"
        "Cell In[3], line 1\n----> 1 recording = se.read_tdt('tank', stream_id='0')\n\n"
        f"{where.format(path=path)}\n"
        "    286     rate = header['frequency']\n    287 \n"
        "--> 288     raise ValueError('sampling is changing!!!')\n    289     continue\n\n"
        "ValueError: sampling is changing!!!\n"
    )
    assert isinstance(classify.by_text(text), RecordingUnreadableError)
    assert classify.by_text(text.replace("neo/rawio/", "mine/")) is None


def test_line_behind_a_bar_of_progress():
    bar = "  0%|          | 0/844 [00:00<?, ?it/s]"
    library = "Could not load library libcudnn_ops_infer.so.8. Error: libcudnn_ops_infer.so.8"
    assert isinstance(classify.by_text("", bar + library), DependencyError)
    assert classify.by_text("", f"see [0/844] {library}") is None


@pytest.mark.parametrize(
    "said", ["b'x\\n  y\\nImportError: no \\'z\\'\\n'", "['x\\n', 'ImportError: z\\n']"]
)
def test_what_a_container_said_is_read_though_it_stands_as_a_list_or_bytes(said):
    text = f"misc.SpikeSortingError: Spike sorting in docker failed\n{said}"
    assert isinstance(classify.by_text(text), DependencyError)


def test_an_exception_of_another_language_is_read_as_one_of_python():
    ends = "terminate called after throwing an instance of 'c10::AcceleratorError'\n  what():  "
    failure = classify.by_text("", ends + "CUDA error: uncorrectable ECC error encountered")
    assert type(failure).__name__ == "GPUUnavailableError"
    assert classify.by_text("", ends + "index 3 is out of bounds") is None


def test_paths_of_windows():
    text = 'Traceback:\n  File "C:\\x\\kilosort\\utils.py", line 1, in cache_template_path\n    x\n'
    assert classify.by_text(text + "urllib.error.URLError: x").category == "environment"


def test_exceptions_of_a_group_are_found_by_themselves():
    def fail():
        raise ExceptionGroup("g", [ValueError("a"), OSError(28, "No space left on device")])

    with pytest.raises(ExceptionGroup) as caught:
        fail()
    text = clean("".join(traceback.format_exception(caught.value)))
    found = [("ValueError", "a"), ("OSError", "[Errno 28] No space left on device")]
    assert parse_errors(text)[-2:] == found
    assert text.rstrip().endswith("No space left on device")


def test_lines_that_are_printed_with_an_empty_one_behind_each():
    """As SpikeInterface prints what MATLAB said."""
    lines = [
        "Time  7s. Loading raw data and applying filters...",
        f"{'-' * 40}Error using mexMPnu8",
        "An unexpected error occurred during CUDA execution. The CUDA error was:",
        "out of memory",
    ]
    for between in ("\n", "\n\n", "\n\r\n"):
        assert type(classify.by_text("", between.join([*lines, ""]))) is GPUOutOfMemoryError
