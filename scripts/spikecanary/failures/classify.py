"""From how a sort ended to a classified failure, or none.

Exception types tell first, texts second. Nothing matches by a bare word: a text that
only mentions CUDA, memory or docker is a bug in some code and stays unclassified.

As a command, for people with a log in hand: ``python -m spikecanary.failures.classify LOG...``.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikecanary import failures
from spikecanary.failures import (
    ClassifiedSortFailure,
    DependencyError,
    PreprocessingError,
    RecordingUnreadableError,
)
from spikecanary.failures.signatures import load_signatures

#: Our own failures that are raised whatever a library raised: what that was may say more.
WRAPPERS = (RecordingUnreadableError, PreprocessingError)
#: A line of a traceback that names an exception: its type, then its message. A type that
#: stands alone, without module, must be called like one; a log's "INFO: ..." is none.
_ERROR_LINE = re.compile(
    r"^(?:(?:\w+\.)+(?P<dotted>_*[A-Z]\w*|error|timeout)|(?P<plain>_?[A-Z]\w*(?:Error|Exception|"
    r"Failure|Timeout|Expired)|Exception|Timeout|NVMLError_\w+))(?::[ ]?(?P<message>.*))?$",
    flags=re.MULTILINE,
)

#: Marks that Python puts below a frame's source line, and carriage returns of progress bars.
_MARKS = re.compile(r"^ +[~^]+[~^ ]*\n|\r", flags=re.MULTILINE)

#: A sorter that is another program: why it failed is in its log.
_SAYS_NOTHING = re.compile(r"returned a non-zero exit (?:code|status)|did not run successfully")


def classify(error: Mapping[str, Any], log: str = "") -> ClassifiedSortFailure | None:
    """Tell the failure behind an exception.

    Parameters
    ----------
    error : dict
        What :func:`spikecanary.supervise.child.describe_error` returned.
    log : str
        The sorter's log, or its end.

    Returns
    -------
    ClassifiedSortFailure or None
        None where nothing known matches.
    """
    own = _own_failure(error)
    if own is not None and not isinstance(own, WRAPPERS):
        return own
    told = _by_type(error) or by_text(error["text"], log)
    if isinstance(own, PreprocessingError) and told is not None and told.category != "resource":
        return own
    # The reader's own words say more than a signature's of the same class.
    return own if told is None or type(told) is type(own) else told


def _own_failure(error: Mapping[str, Any]) -> ClassifiedSortFailure | None:
    """Return the classified failure that this package itself raised in the child."""
    own = error.get("failure")
    if own is None:
        return None
    return failures.by_name(own["class"])(
        own["message"], remedy=own.get("remedy", ""), **own["evidence"]
    )


def _by_type(error: Mapping[str, Any]) -> ClassifiedSortFailure | None:
    """Tell the failure from the exception's type alone."""
    outermost = error["chain"][0]
    if "builtins.ModuleNotFoundError" in outermost["types"]:
        match = re.match(r"No module named '([\w.]+)'", outermost["message"])
        return DependencyError(outermost["message"], module=match and match[1])
    return None


def by_text(text: str, log: str = "") -> ClassifiedSortFailure | None:
    """Tell the failure from a traceback's text and a log, by the table of signatures.

    An exception that is only in the log (a module that was missed and done without) is no
    cause, unless the traceback itself says nothing.
    """
    text, log = _MARKS.sub("", text), _MARKS.sub("", log)
    whole = f"{text}\n{log}"
    errors = parse_errors(text)
    if all(kind == "SpikeSortingError" or _SAYS_NOTHING.search(text_) for kind, text_ in errors):
        errors += parse_errors(log)
    for signature in load_signatures():
        match = signature.match(whole, errors)
        if match is not None:
            evidence = {**signature.evidence, **match.groupdict()}
            return signature.failure(signature.reason, remedy=signature.remedy, **evidence)
    return None


def parse_errors(text: str) -> list[tuple[str, str]]:
    """Return type (without its module) and first message line of each exception in a text."""
    return [
        (m["dotted"] or m["plain"], (m["message"] or "").rstrip())
        for m in _ERROR_LINE.finditer(text)
    ]


def _describe(failure: ClassifiedSortFailure | None) -> dict[str, Any]:
    """Describe a failure as plain data; all None where there is none."""
    if failure is None:
        return {"class": None, "category": None}
    return {
        "class": type(failure).__name__,
        "category": failure.category,
        "message": str(failure),
        "evidence": failure.evidence,
        "remedy": failure.remedy,
    }


def _classify_lines(path: Path) -> None:
    """Print one JSON line for each record of a JSON-lines file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                record = json.loads(line)
                text = record.get("chain_text") or ""
                if not parse_errors(text) and record.get("exception_type"):
                    text += f"\n{record['exception_type'].rsplit(' ', 1)[-1]}"
                failure = by_text(text, record.get("log_text") or "")
                described = {"id": record.get("id"), **_describe(failure)}
                sys.stdout.write(json.dumps(described) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Classify logs from the command line; exit status 2 where a file cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m spikecanary.failures.classify",
        description="Tell from a log why a sort failed: class, category, evidence and remedy.",
    )
    parser.add_argument("logs", nargs="*", type=Path, metavar="LOG", help="log or traceback")
    parser.add_argument(
        "--jsonl",
        type=Path,
        metavar="FILE",
        help="records with id, exception_type, chain_text, log_text; prints a JSON line each",
    )
    given = parser.parse_args(arguments)
    if not given.logs and given.jsonl is None:
        parser.error("name a LOG, or --jsonl FILE")
    try:
        if given.jsonl is not None:
            _classify_lines(given.jsonl)
        for path in given.logs:
            found = _describe(by_text(path.read_text(encoding="utf-8", errors="replace")))
            lines = [f"  {name}: {value}" for name, value in found.items() if value]
            sys.stdout.write("\n".join([str(path), *(lines or ["  unclassified"])]) + "\n")
    except (OSError, ValueError) as err:
        sys.stderr.write(f"{err}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
