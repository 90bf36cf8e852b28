"""Paths in the config: as people write them, and as Snakemake takes them."""

import os
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints


def expand(path: str) -> str:
    """Return a path with ``~`` as the home folder; of a user that is not known as it is."""
    return os.path.expanduser(path)  # noqa: PTH111 - pathlib raises


#: A path as a person writes it.
UserPath = Annotated[str, Field(min_length=1), AfterValidator(expand)]


def _as_plain(folder: str) -> str:
    """Refuse a folder that Snakemake compares with others as a text, and would not find."""
    if folder == "." or folder != os.path.normpath(folder):
        msg = f"write {'a folder in it' if folder == '.' else os.path.normpath(folder)}"
        raise ValueError(msg)
    return folder


#: A folder as Snakemake takes it: ~ is not expanded, and what is in brackets is a pattern.
Folder = Annotated[
    str,
    StringConstraints(pattern=r"^[^~${}<>\x00-\x1f][^${}<>\x00-\x1f]*$"),
    AfterValidator(_as_plain),
]
