"""Read texts of Python: which exceptions a traceback names, and in which functions."""

import ast
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

#: A line of a traceback that names an exception: its type, then its message. A type that
#: stands alone, without module, must be called like one; a log's "INFO: ..." is none.
_ERROR = (
    r"(?:(?:\w+\.)+(?P<dotted>_*[A-Z]\w*|error|timeout)|(?P<plain>_?[A-Z]\w*(?:Error|Exception|"
    r"Failure|Timeout|Expired)|Exception|Timeout|NVMLError_\w+))(?:[ ]?:[ ]?(?P<message>.*))?$"
)
_ERROR_LINE = re.compile(f"^{_ERROR}", flags=re.MULTILINE)
#: Marks that Python puts below a frame's source line, and carriage returns of progress bars.
_MARKS = re.compile(r"^ +[~^]+[~^ ]*\n|\r", flags=re.MULTILINE)
#: Lines that stand as Python writes a list or bytes, as what a container said.
_REPR = re.compile(r"^(?:b|\[)['\"].*\\n.*", flags=re.MULTILINE)
_WINDOWS = re.compile(r'^ *File "[^"\n]*\\[^"\n]*"', flags=re.MULTILINE)
#: A line that stands in quotes, as in SpikeInterface's own log of a sorter, and what makes it one.
_QUOTED = re.compile(
    r'^ *(?:"\w+": )?("(?:[^"\\\n]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"),?$', flags=re.MULTILINE
)
_QUOTES = re.compile(r'^ *"(?:runtime|error)_trace": ["\[]', flags=re.MULTILINE)
#: ... as a pipeline prints that log with Python, long lines in pieces, and what makes it one.
_ESCAPE = r"\\(?:['\"\\nrt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})"
_PIECE = rf"(?:'(?:[^'\\\n]|{_ESCAPE})*'|\"(?:[^\"\\\n]|{_ESCAPE})*\")"
_PRINTED = re.compile(
    rf"^ *(?:\{{?'\w+': )?\[?({_PIECE}(?:\n +{_PIECE})*)[\],}}]*$", flags=re.MULTILINE
)
_PRINTS = re.compile(r"^ *\{?'(?:runtime|error)_trace': ", flags=re.MULTILINE)
#: ... and as Python writes that list in a line, in the exception that SpikeInterface raises of it.
_LIST = re.compile(rf"^\[{_PIECE}(?:, {_PIECE})+\]$", flags=re.MULTILINE)
#: In that list, the line that names the exception stands two spaces to the right.
_BELOW_FRAME = re.compile(rf"^((?:  File \"| {{4}}).*\n) {{2}}(?={_ERROR})", flags=re.MULTILINE)
#: A traceback of which each line has the same before it: a rank, a container's name, an indent.
_PREFIXED = re.compile(
    r"^(?P<prefix>.*[ \t])Traceback \(most recent call last\):\n"
    r"(?:(?P=prefix) .*\n)+(?P=prefix)\S.*$",
    flags=re.MULTILINE,
)
#: A group of exceptions: lines before and between them, and what stands before each line.
_GROUP = re.compile(r"^ *(?:\+-[-+ \d]*\n|\+-[-+ \d]*$|[|+] )", flags=re.MULTILINE)
#: The time in what HDF5 says of a failed read or write, which C ends with a new line.
_TIME = re.compile(r"(file (?:read|write) failed: time = .*)\n(?=, filename = )")
#: Lines with an empty one behind each, as SpikeInterface prints those of a program (ShellScript).
_DOUBLED = re.compile(r"^(?:[ \t]*\S.*\n[ \t\r]*\n){3,}", flags=re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[[\d;]*m")
#: What a shell says of the files that it reads when it starts: no part of the sort.
_START_UP = re.compile(
    r"^(?:\S*/\.\w*(?:rc|profile|login|aliases|env)|/etc/\S+): (?:line )?\d+: .*\n?",
    flags=re.MULTILINE,
)
#: An exception in VS Code's window, and in Kilosort's own, which prints its parts on lines.
_IN_WINDOW = re.compile(
    r"^Exception has occurred: ([\w.]+)\n(?=\S)|^(\w+(?:Error|Exception))\n:\s*\n(?=\S)",
    flags=re.MULTILINE,
)
#: Names that Python 2 had for it.
_OS_ERROR = re.compile(r"^(?:IO|Environment|Windows)Error(?=: )", flags=re.MULTILINE)
#: How the window of Kilosort in MATLAB begins what MATLAB said.
_WINDOW = re.compile(r"^Error (?:preprocessing|running kilosort)! (?=\S)", flags=re.MULTILINE)
#: What Nextflow quotes of a task, two spaces to the right.
_TASK = re.compile(r"^Command (?:output|error):\n(?:(?:  .*)?(?:\n|\Z))+", flags=re.MULTILINE)
#: What a program in C++ ends with that catches no exception of its own.
_WHAT = re.compile(
    r"^(terminate called after throwing an instance of '[^'\n]*'\n) +what\(\):[ ]+",
    flags=re.MULTILINE,
)
#: A bar of progress, after which a library wrote without a new line.
_BAR = re.compile(r"(\d+/\d+ \[[^\]\n]*\])(?=[^\s\]])")
_FRAME = re.compile(
    r'^ *File "(?P<path>[^"\n]+)", line \d+, in (?P<function>\S+)\n(?P<source> *(?!File ")\S.*)?',
    flags=re.MULTILINE,
)
#: A frame as IPython writes it: lines around the one that failed, which an arrow marks.
_NOTEBOOK = re.compile(
    r"^(?:File )?(?P<path>[^\s:][^\n]*?\.py)(?::\d+,)? in (?:[\w.<>]+\.)?(?P<function>\w+)\(.*\)\n"
    r"(?: *\d+(?: .*)?\n)*-+> ?\d+ +(?P<source>.*)(?:\n *\d+(?: .*)?$)*",
    flags=re.MULTILINE,
)
#: Part of the function around it, which is the next frame.
_COMPREHENSION = re.compile(r"<(?:list|set|dict)comp>|<genexpr>")
_HANDLED = "During handling of the above exception, another exception occurred:"
_IMPORT_ERRORS = ("ImportError", "ModuleNotFoundError")
#: A sorter that is another program, or its result that is not there: why it failed is in its log.
_SAYS_NOTHING = re.compile(
    r"returned a non-zero exit (?:code|status)|did not run successfully|spyking circus folder|"
    r"\[Errno 2\] .*\b(?:spike_times\.npy|firings\.|samplerate\.|times_results\.|HS2_sorted\.)"
)


class Frame(NamedTuple):
    """One function of a traceback."""

    where: str
    """Source file and function, ``.../x.py:read``."""
    raises: bool
    """Whether the exception is of a ``raise`` or ``assert`` in that function itself."""


def clean(text: str) -> str:
    """Remove marks below source lines and carriage returns; write out lines, slashes in paths.

    What stands behind a bar of progress begins a line, and so does what another program quotes or
    puts a prefix before.
    An exception of C++ that ended a process is written as the one that Python would have raised.
    """
    text = _DOUBLED.sub(lambda lines: re.sub(r"\n[ \t\r]*\n", "\n", lines[0]), text)
    text = _TIME.sub(r"\1", _START_UP.sub("", _COLOURS.sub("", text)))
    if "Exception Group Traceback (most recent call last)" in text:
        text = _GROUP.sub("", text)
    if _QUOTES.search(text) is not None:
        text = _QUOTED.sub(lambda line: json.loads(line[1], strict=False), text)
    if _PRINTS.search(text) is not None:
        text = _PRINTED.sub(_read, text)
    text = _LIST.sub(lambda line: "\n".join(ast.literal_eval(line[0])), text)
    text = _BELOW_FRAME.sub(r"\1", text)
    text = _PREFIXED.sub(lambda found: _without(found["prefix"], found[0]), text)
    text = _OS_ERROR.sub("OSError", _IN_WINDOW.sub(lambda found: f"{found[1] or found[2]}: ", text))
    text = _TASK.sub(lambda task: _without("  ", task[0]), text)
    text = _NOTEBOOK.sub(r'  File "\g<path>", line 0, in \g<function>\n    \g<source>', text)
    text = _WINDOW.sub("", text)
    text = _REPR.sub(lambda line: _write_out(line[0]), text)
    text = _WINDOWS.sub(lambda path: path[0].replace("\\", "/"), text)
    return _WHAT.sub(r"\1RuntimeError: ", _BAR.sub(r"\1\n", _MARKS.sub("", text)))


def _without(prefix: str, lines: str) -> str:
    """Take a prefix away from lines."""
    return re.sub(f"^{re.escape(prefix)}", "", lines, flags=re.MULTILINE)


def _read(line: re.Match[str]) -> str:
    """Return what Python printed of a text; the line itself where it is none."""
    try:
        return str(ast.literal_eval(f"({line[1]})"))
    except (SyntaxError, ValueError):  # zero bytes, halves of surrogate pairs
        return line[0]


def _write_out(line: str) -> str:
    lines = re.sub(r"\\n(?:['\"], b?['\"])?", "\n", re.sub(r"^(?:b|\[)['\"]", "", line))
    return lines.replace("\\'", "'").replace('\\"', '"')


def without_handled_imports(text: str) -> str:
    """Cut import errors that code did without: what failed while it did is another thing.

    An import error stays where the handler itself raised, to say so in other words.
    """
    pieces = text.split(_HANDLED)
    for number, piece in enumerate(pieces[:-1]):
        missed = list(parse_frames(piece))[-1:]
        then = next(parse_frames(pieces[number + 1]), None)
        if not missed or then is None or missed[0][0] not in _IMPORT_ERRORS:
            continue
        kind, _, frames = then
        paths = {frame.where.rpartition(":")[0] for frame in missed[0][2]}
        says_so = frames[0].raises and frames[0].where.rpartition(":")[0] in paths
        if not says_so and kind not in {*_IMPORT_ERRORS, "SpikeSortingError"}:
            pieces[number] = piece[: piece.rfind("Traceback (most recent call last):")]
    return _HANDLED.join(pieces)


def says_nothing(kind: str, message: str) -> bool:
    """Whether an exception only tells that a sorter failed, not why."""
    return kind == "SpikeSortingError" or _SAYS_NOTHING.search(message) is not None


def parse_errors(text: str) -> list[tuple[str, str]]:
    """Return type (without its module) and first message line of each exception in a text.

    A message that begins with another exception is that exception too.
    """
    found = []
    for line in _ERROR_LINE.finditer(text):
        match: re.Match[str] | None = line
        while match is not None:
            message = (match["message"] or "").rstrip()
            found.append((match["dotted"] or match["plain"], message))
            match = re.match(_ERROR, message)
    return found


def parse_frames(text: str) -> Iterator[tuple[str, str, list[Frame]]]:
    """Yield each exception that has frames: type, message, frames from the innermost outward."""
    begin = 0
    for line in _ERROR_LINE.finditer(text):
        found = list(_FRAME.finditer(text, begin, line.start()))
        begin = line.end()
        kind = line["dotted"] or line["plain"]
        source = (found[-1]["source"] or "").lstrip() if found else ""
        raises = kind == "AssertionError" or source.startswith(("raise ", "assert "))
        frames = [
            Frame(
                f"{each['path'].replace(chr(92), '/')}:{each['function']}",
                raises and each is found[-1],
            )
            for each in reversed(found)
            if not _COMPREHENSION.fullmatch(each["function"])
        ]
        if frames:
            yield kind, (line["message"] or "").rstrip(), frames
