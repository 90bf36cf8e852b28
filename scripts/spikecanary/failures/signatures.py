"""Signatures: texts that tell a failure, read from ``signatures.yaml``."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from spikecanary import failures
from spikecanary.failures import ClassifiedSortFailure

TABLE = Path(__file__).with_suffix(".yaml")


class Signature(BaseModel):
    """One entry of the table; ``signatures.yaml`` explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    class_name: str = Field(alias="class")
    reason: str
    pattern: re.Pattern[str]
    example: str
    source: str
    errors: tuple[str, ...] = ()
    evidence: dict[str, str] = {}
    remedy: str = ""

    @field_validator("pattern", mode="before")
    @classmethod
    def _join_alternatives(cls, given: str | list[str]) -> str:
        return given if isinstance(given, str) else "|".join(given)

    @field_validator("class_name")
    @classmethod
    def _check_class(cls, name: str) -> str:
        if name not in failures.all_classes():
            msg = f"no failure class is called {name}"
            raise ValueError(msg)
        return name

    @functools.cached_property
    def failure(self) -> type[ClassifiedSortFailure]:
        """The failure's class."""
        return failures.by_name(self.class_name)

    @functools.cached_property
    def _at_line(self) -> re.Pattern[str]:
        return re.compile(f"^(?:{self.pattern.pattern})", flags=re.MULTILINE)

    def match(self, text: str, errors: Iterable[tuple[str, str]]) -> re.Match[str] | None:
        """Look for this signature in a text and the exceptions found in it.

        Parameters
        ----------
        text : str
            Traceback and log.
        errors : iterable of (str, str)
            Type (without its module) and message of each exception in the text.
        """
        if not self.errors:
            return self._at_line.search(text)
        for error_type, message in errors:
            if error_type in self.errors or self.errors == ("*",):
                match = self.pattern.match(message)
                if match is not None:
                    return match
        return None


@functools.cache
def load_signatures(path: Path = TABLE) -> tuple[Signature, ...]:
    """Read a table of signatures, in its order.

    Raises
    ------
    ValueError
        An entry is wrong; the message names file, entry and field.
    """
    entries: list[Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    found = []
    for number, entry in enumerate(entries, start=1):
        try:
            found.append(Signature.model_validate(entry))
        except ValidationError as err:
            wrong = "; ".join(
                f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in err.errors()
            )
            msg = f"{path}, entry {number}: {wrong}"
            raise ValueError(msg) from err
    return tuple(found)
