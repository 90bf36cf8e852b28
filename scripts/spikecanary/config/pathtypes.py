"""Paths in config and table: as people write them, as Snakemake takes them, what can be read."""

import os
import re
import stat
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

#: File systems allow names of 255 bytes, and temporary files add to them.
LONGEST_ID = 150


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


def not_a_name(text: str) -> str:
    """Say why a text cannot be a part of files' names; nothing where it can."""
    if len(text) > LONGEST_ID:
        return f"has more than {LONGEST_ID} characters; choose a shorter one"
    # Snakemake takes it for a wildcard without end.
    is_periodic = re.search(r"(.+)\1{19}", text) is not None
    return "repeats itself too often; choose another one" if is_periodic else ""


def not_readable(path: str | Path) -> str:
    """Say why a path is no file or folder that can be read; nothing where it is one.

    A FIFO, a socket or a device would keep its reader waiting.
    """
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        if Path(path).is_symlink():
            return f"{path} is a link to '{Path(path).readlink()}', which does not exist"
        return f"{path} does not exist"
    except NotADirectoryError:
        return f"{path} does not exist: part of it is a file, no folder"
    except (OSError, ValueError) as err:  # a loop of links, a name that no file can have
        return f"{path} cannot be read ({getattr(err, 'strerror', None) or err})"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return f"{path} is no file or folder"
    return "" if os.access(path, os.R_OK) else f"{path} cannot be read (Permission denied)"
