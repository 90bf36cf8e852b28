"""Texts for people: safe to show, of a readable length, with the name that was meant."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

#: How numpy's scalars show themselves in the messages of other packages.
NUMPY_SCALAR = re.compile(r"\bnp\.\w+\(('[^']*'|[-+\w.]+)\)")
#: So many characters of a value are quoted in a message, and of a text that is one line.
LONGEST_QUOTE, LONGEST_LINE = 80, 500
#: Of so few known names all are told where the word is as short as this: gpu is not meant as cpu.
FEW, SHORT = 6, 3
#: So many names are listed.
MOST_NAMED = 10


class PlainError(ValueError):
    """An error whose text says all that a person needs: no traceback is shown."""


def printable(text: str) -> str:
    """Return a text without characters that act on a terminal, a table or a page.

    Control characters, those that turn the direction of a text and halves of surrogate pairs are
    written as escapes, other white space as a space.
    """

    def show(char: str) -> str:
        if char.isprintable() or char == "\n":
            return char
        return " " if char.isspace() else char.encode("unicode_escape").decode()

    return "".join(map(show, NUMPY_SCALAR.sub(r"\1", text)))


def one_line(text: str, most: int = LONGEST_LINE) -> str:
    """Return a printable text in one line of at most so many characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= most else f"{line[: most - 6]} [...]"


def abridge(text: str, most: int) -> str:
    """Return a text in one line of at most so many characters; long words lose their middle first.

    So of a path or a URL the beginning and the file's name stay.
    """
    line, end = " ".join(text.split()), most // 4
    if len(line) > most:
        line = re.sub(rf"(\S{{{end}}})\S+(\S{{{end}}})", r"\1...\2", line)
    return textwrap.shorten(line, most)


def quote(value: Any) -> str:
    """Return a value as messages quote it."""
    return one_line(repr(value), LONGEST_QUOTE)


def as_yaml(name: str) -> str:
    """Return a name as a config takes it: in quotes where YAML reads a number, a date or true."""
    is_plain = re.fullmatch(r"[A-Za-z_][\w.-]*", name)
    words = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
    return name if is_plain and name.casefold() not in words else f'"{name}"'


def sentences(*texts: Any) -> str:
    """Join texts as sentences, each with an end of its own; empty ones are left out."""
    parts = [str(text).rstrip() for text in texts if str(text).strip()]
    return " ".join(text if text[-1] in ".?!:" else f"{text}." for text in parts)


def duration(seconds: float) -> str:
    """Return a time in s as people say it."""
    if 0 < seconds < 1:
        return f"{seconds:.1g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def count(number: int, one: str, more: str = "") -> str:
    """Return a number and what is counted, e.g. ``1 recording``; ``more``: a plural without s."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def shorten(names: Sequence[Any], most: int = MOST_NAMED) -> str:
    """List names, of many the first ones."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the nearest known names, else a list of all."""
    folded = {each.casefold(): each for each in sorted(known)}
    wanted = name.casefold()
    near = [each for each in folded if wanted and each.startswith(wanted)]
    if len(wanted) > SHORT or len(folded) > FEW:
        near = near or get_close_matches(wanted, folded, n=1)
    if near:
        return f" (did you mean {' or '.join(repr(folded[each]) for each in near[:3])}?)"
    return f" (known: {', '.join(folded.values())})" if known else ""


def describe_empty(canary_units: int | None) -> str:
    """Say that a full sort found no units, and that its canary found some."""
    found = f", and its canary found {canary_units}" if canary_units else ""
    return f"the full sort found no units{found}"
