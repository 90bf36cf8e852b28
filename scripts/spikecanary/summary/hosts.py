"""Hosts of a cluster that fail as others do not."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spikecanary.supervise import folders

#: Failures of the environment that are the same on every host.
NOT_OF_HOST = ("RecordingLayoutError", "SettingsError", "SorterParameterError")
#: Failures that may be of the recording: a file that is away, a format that nobody can read. They
#: tell of a host on which so many recordings or more, and all of a sorter, fail for one.
OF_DATA = ("HDF5PluginMissingError", "PreprocessingError", "RecordingUnreadableError")
LEAST_OF_DATA = 5


def describe(results: Path, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name the hosts that fail as others do not, each in a line with what leaves it out.

    On such a host most sorts of a sorter, two at least, failed for one reason of the environment or
    were killed, five times as often as on others, where some ended well. ``rows`` are recordings as
    :func:`spikecanary.summary.describe` returns them.
    """
    # How often those of a sorter ended how, by host: with a failure, killed, or well (empty).
    by_sorter: dict[str, dict[str, Counter[str]]] = {}
    for row in rows:
        found = [(host, "killed") for host in folders.find_killed(results / row["recording"])]
        works = row["sort"] == "sorted" or (row["sort"], row["outcome"]) == ("pending", "passed")
        if works or (row["category"] == "environment" and row["failure"] not in NOT_OF_HOST):
            found.append((row["host"], "" if works else row["failure"]))
        ends = by_sorter.setdefault(row.get("sorter", ""), {})
        for host, how in found:
            ends.setdefault(host, Counter())[how] += 1
    lines = {}
    for ends in by_sorter.values():
        for host, here in ends.items():
            others = sum(ends.values(), Counter[str]()) - here
            n_here, n_others = here.total(), others.total()
            for how in here.keys() - {""} if others[""] else ():
                needed = max(LEAST_OF_DATA, n_here) if how in OF_DATA else max(2, n_here / 2)
                if here[how] >= needed and here[how] * n_others > 5 * others[how] * n_here:
                    lines[host, how] = (
                        f"Host {host} fails as others do not: {how}, {here[how]} of {n_here} "
                        f"sorts and canaries, and {others[how]} of {n_others} elsewhere. To leave "
                        "it out with Slurm, in the profile's default-resources: "
                        f"slurm_extra: \"'--exclude={host.partition('.')[0]}'\""
                    )
    return [*lines.values()]
