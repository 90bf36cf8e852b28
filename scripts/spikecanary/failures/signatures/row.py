"""One row of the table of signatures."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from spikecanary.failures import ClassifiedSortFailure


@dataclass(frozen=True)
class Signature:
    """A text that tells a failure.

    Parameters
    ----------
    failure : type
        The failure's class.
    reason : str
        What happened, one line for people.
    pattern : str
        Regular expression. With ``errors`` it must match at the beginning of an
        exception's message; without, at the beginning of a line of the traceback or log.
        Named groups become evidence of those names.
    example : str
        What the software prints: the message, or the text.
    source : str
        The file that prints it, or a thread in which users met it.
    errors : str
        Types of exceptions that may carry the message, without their modules, separated
        by blanks; ``*`` is any. Empty: the pattern is for a text.
    evidence : dict
        Evidence that the row itself tells.
    """

    failure: type[ClassifiedSortFailure]
    reason: str
    pattern: str
    example: str
    source: str
    errors: str = ""
    evidence: dict[str, str] = field(default_factory=dict)

    def match(self, text: str, errors: Iterable[tuple[str, str]]) -> re.Match[str] | None:
        """Look for this row in a text and the exceptions found in it.

        Parameters
        ----------
        text : str
            Traceback and log.
        errors : iterable of (str, str)
            Type (without its module) and message of each exception in the text.
        """
        if not self.errors:
            return re.search(f"^(?:{self.pattern})", text, flags=re.MULTILINE)
        types = self.errors.split()
        for error_type, message in errors:
            if error_type in types or types == ["*"]:
                match = re.match(self.pattern, message)
                if match is not None:
                    return match
        return None
