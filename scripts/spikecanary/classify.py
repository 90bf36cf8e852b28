"""From how a sort ended to a classified failure, or none.

Exception types tell first, texts second. Nothing matches by a bare word: a text that
only mentions CUDA, memory or docker is a bug of somebody's and stays unclassified.
"""

import re
from collections.abc import Mapping
from typing import Any

from spikecanary import failures
from spikecanary.failures import (
    ClassifiedSortFailure,
    DependencyError,
    RecordingUnreadableError,
)
from spikecanary.signatures import SIGNATURES, Signature

#: A line of a traceback that names an exception: its type, then its message.
_ERROR_LINE = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*(?P<type>\w*(?:Error|Exception|Failure))(?::[ ]?(?P<message>.*))?$",
    flags=re.MULTILINE,
)


def classify(error: Mapping[str, Any], log: str = "") -> ClassifiedSortFailure | None:
    """Tell the failure behind an exception.

    Parameters
    ----------
    error : dict
        What :func:`spikecanary.child.describe_error` returned.
    log : str
        The sorter's log, or its end.

    Returns
    -------
    ClassifiedSortFailure or None
        None where nothing known matches.
    """
    own = _own_failure(error)
    if own is not None and not isinstance(own, RecordingUnreadableError):
        return own
    return _by_type(error) or by_text(error["text"], log) or own


def _own_failure(error: Mapping[str, Any]) -> ClassifiedSortFailure | None:
    """Return the classified failure that this package itself raised in the child."""
    own = error.get("failure")
    if own is None:
        return None
    return failures.by_name(own["class"])(own["message"], **own["evidence"])


def _by_type(error: Mapping[str, Any]) -> ClassifiedSortFailure | None:
    """Tell the failure from the exception's type alone."""
    outermost = error["chain"][0]
    if "builtins.ModuleNotFoundError" in outermost["types"]:
        match = re.match(r"No module named '([\w.]+)'", outermost["message"])
        return DependencyError(outermost["message"], module=match and match[1])
    return None


def by_text(text: str, log: str = "") -> ClassifiedSortFailure | None:
    """Tell the failure from a traceback's text and a log, by the table of signatures."""
    whole = f"{text}\n{log}"
    errors = parse_errors(whole)
    for signature in SIGNATURES:
        match = _match(signature, whole, errors)
        if match is not None:
            evidence = {**signature.evidence, **match.groupdict()}
            return signature.failure(signature.reason, **evidence)
    return None


def _match(signature: Signature, whole: str, errors: list[tuple[str, str]]) -> re.Match[str] | None:
    if signature.where == "text":
        return signature.search(whole)
    for error_type, message in errors:
        if signature.error_type in (None, error_type):
            match = signature.search(message)
            if match is not None:
                return match
    return None


def parse_errors(text: str) -> list[tuple[str, str]]:
    """Return type (without its module) and first message line of each exception in a text."""
    return [(m["type"], m["message"] or "") for m in _ERROR_LINE.finditer(text)]
