"""Signatures: texts and frames that tell a failure, read from ``signatures.yaml``."""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from spikecanary import failures
from spikecanary.failures import ClassifiedSortFailure
from spikecanary.failures.tracebacks import Frame, clean, parse_errors, parse_frames, says_nothing

TABLE = Path(__file__).with_suffix(".yaml")


class Number(BaseModel):
    """A number of the text, and its limits; of several groups, the first over the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: re.Pattern[str]
    least: float = -math.inf
    most: float = math.inf

    def holds(self, text: str) -> bool:
        """Whether the text has that number, within the limits."""
        match = self.pattern.search(text)
        if match is None:
            return False
        first, *others = map(float, match.groups())
        by = math.prod(others)
        return by > 0 and self.least <= first / by <= self.most


def _find_class(name: Any) -> type[ClassifiedSortFailure]:
    """Return the failure class of a name."""
    if (found := failures.all_classes().get(str(name))) is None:
        msg = f"no failure class is called {name}"
        raise ValueError(msg)
    return found


class Signature(BaseModel):
    """One entry of the table; ``signatures.yaml`` explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failure: Annotated[type[ClassifiedSortFailure], BeforeValidator(_find_class)] = Field(
        alias="class"
    )
    reason: str
    pattern: re.Pattern[str] | None = None
    frames: re.Pattern[str] | None = None
    within: bool = False
    example: str
    source: str
    errors: tuple[str, ...] = ()
    goes_with: tuple[str, ...] = ()
    numbers: tuple[Number, ...] = ()
    evidence: dict[str, str] = {}
    remedy: str = ""

    @field_validator("pattern", "frames", mode="before")
    @classmethod
    def _join_alternatives(cls, patterns: Any, info: ValidationInfo) -> str | None:
        """Make one expression of them: at the beginning of a line, or of a part of a path."""
        if patterns is None:
            return None
        joined = "|".join(map(str, patterns)) if isinstance(patterns, list) else patterns
        return f"(?m)^(?:{joined})" if info.field_name == "pattern" else f"(?:.*/)?(?:{joined})"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.pattern is None) == (self.frames is None):
            msg = "an entry has either a pattern or frames"
            raise ValueError(msg)
        pattern = self.pattern or self.frames
        if pattern and any(map(pattern.match, ("", "x"))) and set(self.errors) <= {"*"}:
            msg = "the pattern matches any text, and so every failure"
            raise ValueError(msg)
        named = {*self.evidence, *(pattern.groupindex if pattern else ())}
        unknown = sorted(named - set(self.failure.evidence_fields()))
        if unknown:
            msg = f"{self.failure.__name__} has no evidence {', '.join(unknown)}"
            raise ValueError(msg)
        return self

    def match(self, text: str, errors: Sequence[tuple[str, str]]) -> re.Match[str] | None:
        """Look for this signature in a text, and in type and message of the exceptions in it."""
        if self.pattern is None or (self.numbers and not any(n.holds(text) for n in self.numbers)):
            return None
        if self.goes_with:
            telling = {kind for kind, message in errors if not says_nothing(kind, message)}
            if telling and telling.isdisjoint(self.goes_with):
                return None
        if not self.errors and (at_line := self.pattern.search(text)) is not None:
            return at_line
        for kind, message in errors:
            if not self.errors or kind in self.errors or self.errors == ("*",):
                match = self.pattern.match(message)
                if match is not None:
                    return match
        return None

    def match_frame(self, kind: str, frame: Frame) -> re.Match[str] | None:
        """Look whether an exception of that type in that function tells this failure."""
        if self.frames is None or not (frame.raises or self.within):
            return None
        if self.errors and kind not in self.errors:
            return None
        return self.frames.fullmatch(frame.where)

    def example_text(self) -> str:
        """Return the example as the text of a traceback."""
        kind = self.errors[0] if self.errors and self.pattern is not None else ""
        kind = {"": "", "*": "ValueError: "}.get(kind, f"some.module.{kind}: ")
        return f"Traceback (most recent call last):\n{kind}{self.example}"

    def matches_example(self) -> bool:
        """Whether this entry matches its own example."""
        text = clean(self.example_text())
        if self.frames is None:
            return self.match(text, parse_errors(text)) is not None
        return any(
            self.match_frame(kind, frame) is not None
            for kind, _, frames in parse_frames(text)
            for frame in frames
        )


@functools.cache
def load_signatures(path: Path = TABLE) -> tuple[Signature, ...]:
    """Read a table of signatures, in its order.

    Raises ValueError, which names file, entry and field, where entries are wrong, or one does not
    match its own example.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        found = TypeAdapter(tuple[Signature, ...]).validate_python(entries)
    except yaml.YAMLError as err:
        msg = f"{path} is no YAML: {' '.join(str(err).split())}"
        raise ValueError(msg) from err
    except ValidationError as err:
        msg = f"{path}, {'; '.join(map(_describe, err.errors()))}"
        raise ValueError(msg) from err
    for number, row in enumerate(found, start=1):
        if path != TABLE and not row.matches_example():  # ours is tested
            name = "frames" if row.pattern is None else "pattern"
            msg = f"{path}, entry {number}: {name}: does not match the entry's own example"
            raise ValueError(msg)
    return found


def _describe(error: Mapping[str, Any]) -> str:
    if not error["loc"]:
        return "no list of entries"
    number, *field = error["loc"]
    return f"entry {number + 1}: {'.'.join(map(str, field)) or 'entry'}: {error['msg']}"
