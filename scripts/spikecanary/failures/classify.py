"""From how a sort ended to a classified failure, or none.

Exception types tell first, texts second. Nothing matches by a bare word: a text that
only mentions CUDA, memory or docker is a bug in some code and stays unclassified.

As a command, for people with a log in hand: ``python -m spikecanary.failures.classify LOG...``.
"""

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from spikecanary import failures
from spikecanary.failures import (
    ClassifiedSortFailure,
    DependencyError,
    InsufficientActivityError,
    PreprocessingError,
    RecordingUnreadableError,
)
from spikecanary.failures.signatures import Signature, load_signatures
from spikecanary.failures.tracebacks import (
    clean,
    parse_errors,
    parse_frames,
    says_nothing,
    without_handled_imports,
)
from spikecanary.texts import abridge

#: Our own failures that are raised whatever a library raised: what that was may say more.
WRAPPERS = (RecordingUnreadableError, PreprocessingError)
#: The last line of a canary's log.
OWN_VERDICT = re.compile(
    r" INFO \S+: (?P<verdict>stop|proceed) \((?P<outcome>\w+)\): (?P<reason>.+)"
)
#: What a sorter says of the spikes that it found, and how many are no lack of them: noise alone has
#: 300 such peaks in 30 s of 384 channels (``activity.NOISE_PER_S``).
_FOUND = re.compile(
    r"\b(\d[\d,]*) (?:peaks|spikes|events) (?:were )?(?:found|detected|extracted)"
    r"|\b(?:[Ff]ound|[Dd]etected|[Ee]xtracted|[Kk]ept|[Ll]oaded) (\d[\d,]*) "
    r"(?:peaks|spikes|events|threshold crossings)"
)
MANY_SPIKES = 5_000
#: What an exception said is cut to so many characters.
LONGEST_SAID = 200
#: Packages whose frames tell a stage: the innermost frame of one of them decides.
_KNOWN = re.compile(
    r"(?:.*/)?(?:neo|probeinterface|kilosort|mountainsort\d|spikecanary|"
    r"spikeinterface/(?!core/)\w+)/[\w/]+\.py:\S+"
)
#: Errors that no frame explains: of memory, storage, the network, other processes, numbers.
_NOT_OF_FRAME = re.compile(
    r"\w*(?:MemoryError|OutOfMemory\w*|SpikeSortingError|Timeout\w*|timeout|Connection\w*|URLError|"
    r"HTTPError|gaierror|SSL\w*|Client\w*Error|BrokenProcessPool|BrokenPipeError|InterruptedError|"
    r"BlockingIOError|ChildProcessError|\w*LinAlgError)"
)
#: ... and of the system, but those that tell that a path is wrong, or of writing.
_NOT_OF_PATH = re.compile(
    r"(?:\[Errno |.*\berrno = )(?!(?:1|2|13|20|21|36|40)\b)|\[WinError (?!(?:2|3)\b)"
    r"|(?:Can't|Unable to) (?:synchronously )?(?:write|create|flush) [\w' ]+ \("
)
#: Errors of code that computes: what a log says of the machine beside them is not the cause.
_OF_CODE = re.compile(
    r"_?(?:Arithmetic|Assertion|Attribute|Index|Key|LinAlg|Name|Type|UnboundLocal|Value|"
    r"ZeroDivision)Error"
)
#: ... and what PyTorch says of shapes and of kernels that read astray.
_NATIVE = re.compile(
    r"CUDA error: (?:an illegal|device-side|misaligned|invalid (?:argument|configuration))"
    r"|.*(?:[Ss]izes? of tensor|\bshapes?\b|dimension|out of (?:bounds|range)|must match|same d)"
)
#: Before what a sorter in MATLAB ends with, SpikeInterface prints a rule.
_ENDS_MATLAB = re.compile(r"\A[\s\S]*^(?=-{20,}[^\s-])", flags=re.MULTILINE)


def classify(
    error: Mapping[str, Any], log: str = "", signatures: Path | None = None
) -> ClassifiedSortFailure | None:
    """Tell the failure behind an exception; None where nothing known matches.

    ``error`` is what :func:`spikecanary.supervise.child.describe_error` returned, ``log`` the
    sorter's, or its end; a lab's own table of ``signatures`` is asked first.
    """
    own = None  # what this package itself raised in the child
    if (found := error.get("failure")) is not None:
        cls = failures.all_classes()[found["class"]]
        own = cls(found["message"], remedy=found["remedy"], **found["evidence"])
        if not isinstance(own, WRAPPERS):
            return own
    by_rules: ClassifiedSortFailure | None
    if error["name"] == "ModuleNotFoundError":
        match = re.match(r"No module named '([\w.]+)'", error["message"])
        by_rules = DependencyError(error["message"], module=match and match[1])
    else:
        by_rules = by_text(error["text"], log, signatures)
    if own is None or by_rules is None:
        return own or by_rules
    # What our own failure says of the library's words stays beside the class.
    remedy = own.remedy if own.remedy != type(own).remedy else by_rules.remedy
    if type(by_rules) is type(own):
        return type(own)(str(own), remedy=remedy, **{**by_rules.evidence, **own.evidence})
    step = isinstance(own, PreprocessingError) and by_rules.category != "resource"
    if step or by_rules.category == "biological":  # no sample was sorted yet
        return own
    return type(by_rules)(f"{by_rules} ({own})", remedy=by_rules.remedy, **by_rules.evidence)


def by_text(
    text: str, log: str = "", signatures: Path | None = None
) -> ClassifiedSortFailure | None:
    """Tell the failure from a traceback's text and a log, by the table of signatures.

    An exception that is only in the log (a module that was missed and done without) is no
    cause, unless the traceback itself says nothing; nor is a line of it about the machine beside
    an error of code, or before MATLAB's own error. Nor are there too few spikes where the log tells
    of many. What a text says refines what a frame says. A lab's own table of ``signatures`` is
    asked first.
    """
    own = load_signatures(signatures) if signatures else ()
    rows = own + load_signatures()
    text, log = without_handled_imports(clean(text)), clean(log)
    errors = parse_errors(text)
    told_by = text
    telling = [error for error in errors if not says_nothing(*error)]
    native = [message for kind, message in telling if not _OF_CODE.fullmatch(kind)]
    of_code = bool(telling) and all(map(_NATIVE.match, native))
    ended = _ENDS_MATLAB.sub("", log, count=1)
    log_of = {
        "environment": "" if of_code else ended,
        "resource": "" if of_code and native else ended,
        "biological": log,
    }
    read_for = {category: f"{text}\n{part}" for category, part in log_of.items()}
    if not telling:
        errors += parse_errors(ended)
        told_by = f"{text}\n{log}"
    counts = [int((a or b).replace(",", "")) for a, b in _FOUND.findall(f"{text}\n{log}")]
    contradicted = InsufficientActivityError if max(counts, default=0) >= MANY_SPIKES else None
    for signature in rows:
        if signature.failure is contradicted and signature not in own:
            continue
        match = signature.match(read_for[signature.failure.category], errors)
        if match is not None:
            of_error = signature.errors and signature.failure.category == "environment"
            return _make(signature, match, match.string if of_error else "")
    return _by_frames(told_by, rows)


def _by_frames(text: str, rows: Sequence[Signature]) -> ClassifiedSortFailure | None:
    """Tell the failure from where the exceptions of a chain were raised, the first that tells."""
    if re.search(r"^(?:KeyboardInterrupt|SystemExit)\b", text, flags=re.MULTILINE):
        return None
    for kind, message, frames in parse_frames(text):
        of_result = any(frame.where.endswith("get_result_from_folder") for frame in frames)
        if kind == "SpikeSortingError" or of_result:  # it is sorted by then
            continue
        if _NOT_OF_FRAME.fullmatch(kind) or _NOT_OF_PATH.match(message):
            return None
        for frame in frames:
            for signature in rows:
                match = signature.match_frame(kind, frame)
                if match is not None:
                    return _make(signature, match, f"{kind}: {message}")
            if _KNOWN.fullmatch(frame.where):
                break
    return None


def _make(signature: Signature, match: re.Match[str], detail: str = "") -> ClassifiedSortFailure:
    """Return the failure that a signature tells, with the detail of an exception beside it."""
    evidence = {**signature.evidence, **match.groupdict()}
    detail = abridge(detail, LONGEST_SAID)
    message = f"{signature.reason}: {detail}" if detail else signature.reason
    return signature.failure(message, remedy=signature.remedy, **evidence)


def draft(text: str, source: str) -> str:
    """Return an entry for a lab's own table, to be completed, of a log that nothing tells."""
    text = clean(text)
    errors = [error for error in parse_errors(text) if error[1] and not says_nothing(*error)]
    # What a canary's log ends with is our own verdict: of such a log what has no time in front.
    is_ours = r"\d{4}-\d\d-\d\d " if OWN_VERDICT.search(text) else r"(?!)"
    lines = [line for line in re.findall(r"\S.*", text) if not re.match(is_ours, line)]
    kind, message = errors[-1] if errors else ("", lines[-1].rstrip() if lines else "")
    if not message:
        return f"# {source}: there is nothing to draft an entry of\n"
    pattern = re.sub(r"'[^']*/[^']*'", "'[^']*'", re.escape(message).replace("\\ ", " "))
    entry = {
        "class": "",
        "reason": "",
        **({"errors": [kind]} if kind else {}),
        "pattern": re.sub(r"\d+", r"\\d+", pattern),
        "remedy": "",
        "example": message,
        "source": source,
    }
    classes = textwrap.fill(
        ", ".join(failures.all_classes()), 96, initial_indent="# class: one of "
    )
    row: str = yaml.safe_dump([entry], sort_keys=False, width=96)
    return classes.replace("\n", "\n#   ") + "\n" + row


def _classify_lines(path: Path, signatures: Path | None) -> None:
    """Print one JSON line for each record of a JSON-lines file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                record = json.loads(line)
                text = record.get("chain_text") or ""
                if not parse_errors(text) and record.get("exception_type"):
                    text += f"\n{record['exception_type'].rsplit(' ', 1)[-1]}"
                failure = by_text(text, record.get("log_text") or "", signatures)
                described = failure.describe() if failure else {"class": None, "category": None}
                described = {"id": record.get("id"), **described}
                sys.stdout.write(json.dumps(described) + "\n")


def _describe(text: str, signatures: Path | None) -> dict[str, Any]:
    """Describe what a log tells; of a canary's log its verdict, and of biology that alone."""
    failure, own = by_text(text, signatures=signatures), OWN_VERDICT.search(text)
    failed = own is None or own["outcome"] in ("stopped", "unexpected")
    if failure and failed and (own is None or failure.category != "biological"):
        return failure.describe()
    if own is None or own["outcome"] == "unexpected":
        return {}
    return {name: own[name] for name in ("verdict", "reason")}


def main(arguments: list[str] | None = None) -> int:
    """Classify logs from the command line; exit status 1 where one is not recognised.

    2 where a file cannot be read.
    """
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
    parser.add_argument(
        "--signatures", type=Path, metavar="FILE", help="your own table, as in the config"
    )
    parser.add_argument(
        "--draft", action="store_true", help="print an entry for such a table, to be completed"
    )
    options = parser.parse_args(arguments)
    if not options.logs and options.jsonl is None:
        parser.error("name a LOG, or --jsonl FILE")
    unknown = False
    try:
        if options.jsonl is not None:
            _classify_lines(options.jsonl, options.signatures)
        for path in options.logs:
            text = path.read_text(encoding="utf-8", errors="replace")
            described = _describe(text, options.signatures)
            unknown |= not described
            if options.draft and not described:
                sys.stdout.write(draft(text, str(path)))
                continue
            lines = [f"  {name}: {value}" for name, value in described.items() if value]
            sys.stdout.write("\n".join([str(path), *(lines or ["  unclassified"])]) + "\n")
    except (OSError, ValueError) as err:
        sys.stderr.write(f"{err}\n")
        return 2
    return int(unknown)


if __name__ == "__main__":
    sys.exit(main())
