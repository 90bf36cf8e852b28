"""The table of signatures, row by row, and what must stay unclassified."""

import json
import os
from pathlib import Path

import pytest

from spikecanary import child, classify
from spikecanary.failures import DependencyError, RecordingUnreadableError
from spikecanary.signatures import SIGNATURES


def described(error):
    """Describe an exception as the child process does."""
    try:
        raise error
    except type(error) as err:
        return child.describe_error(err)


@pytest.mark.parametrize("row", SIGNATURES, ids=lambda row: row.reason)
def test_every_row_matches_its_example(row):
    text = row.example if row.where == "text" else f"{row.error_type or 'Error'}: {row.example}"
    failure = classify.by_text("Traceback (most recent call last):\n" + text)
    assert type(failure) is row.failure
    assert str(failure) == row.reason
    assert row.source


@pytest.mark.parametrize("row", SIGNATURES, ids=lambda row: row.reason)
def test_rows_do_not_match_their_words_in_passing(row):
    quoted = f"INFO see the FAQ about '{row.example.splitlines()[-1]}' for help"
    assert classify.by_text(quoted) is None


@pytest.mark.parametrize(
    "text",
    [
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "IndexError: list index out of range in /data/docker/cuda_out_of_memory/run.py",
        "ValueError: the filter is not installed properly",
        "KeyError: 'No CUDA GPUs are available'",
        "AssertionError",
        "",
    ],
)
def test_hard_negatives(text):
    assert classify.by_text("Traceback (most recent call last):\n" + text) is None


def test_exception_types_tell_first():
    failure = classify.classify(described(ModuleNotFoundError("No module named 'hdbscan.x'")))
    assert isinstance(failure, DependencyError)
    assert failure.evidence == {"module": "hdbscan.x"}
    assert classify.classify(described(MemoryError())) is None


def test_own_failures_pass_through_the_child():
    own = RecordingUnreadableError("/x does not exist", path="/x", reader="nwb")
    failure = classify.classify(json.loads(json.dumps(described(own))))
    assert isinstance(failure, RecordingUnreadableError)
    assert failure.evidence == {"path": "/x", "reader": "nwb"}


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


def test_traces_of_real_software_are_never_stopped_wrongly(capsys):
    """Issue A's table is small: what it says is right, what it misses is counted."""
    default = Path(__file__).resolve().parents[3] / "shared/traces"
    path = Path(os.environ.get("SPIKECANARY_TRACES", default)) / "train.jsonl"
    if not path.exists():
        pytest.skip(f"no failure texts in {path}")
    wrong = []
    right = 0
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        failure = classify.by_text(row["chain_text"] or "", row["log_text"] or "")
        said = failure.category if failure else "unclassified"
        right += said == row["label"] or (failure is None and not row["decidable_from_text"])
        if failure is not None and said != row["label"]:
            wrong.append((row["id"], row["label"], said))
    with capsys.disabled():
        print(f"\nfailure texts: {right} of {len(rows)} categories right, {len(wrong)} wrong")
    assert wrong == []
    assert right >= 45
