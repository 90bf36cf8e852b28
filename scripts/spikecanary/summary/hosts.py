"""Hosts of a cluster that fail as others do not."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spikecanary.supervise import folders

#: Failures of the environment that are the same on every host.
NOT_OF_HOST = ("RecordingLayoutError", "SettingsError", "SorterParameterError")
#: Failures that may be of the recording: a file that is away, a format that nobody can read. They
#: tell of a host on which so many recordings or more, and all, fail for one, whatever the sorter.
OF_DATA = ("HDF5PluginMissingError", "PreprocessingError", "RecordingUnreadableError")
LEAST_OF_DATA = 5

#: What tells apart failures that are alike: names, paths, numbers.
OF_ONE = re.compile(r"'[^']*'|\"[^\"]*\"|\S*/\S*|\d+")

#: How a sort or a canary ended: a failure, ``killed``, or well (empty), and its words without those
#: of one recording. How often those of each host ended so.
How = tuple[str, str]
Ends = dict[str, Counter[How]]
WELL = ("", "")


def describe(results: Path, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name the hosts that fail as others do not, each in a line with what leaves it out.

    On such a host most sorts of a sorter, two at least, failed for one reason of the environment or
    were killed, five times as often as on others, where some ended well.

    Parameters
    ----------
    results : Path
        The results folder.
    rows : iterable of dict
        Recordings, as :func:`spikecanary.summary.describe` returns them.
    """
    by_sorter: dict[str, Ends] = {}
    of_all: Ends = {}
    for row in rows:
        killed = folders.find_killed(results / row["recording"])
        found: list[tuple[str, How]] = [(host, ("killed", "")) for host in killed]
        works = row["sort"] == "sorted" or (row["sort"], row["outcome"]) == ("pending", "passed")
        if works or (row["category"] == "environment" and row["failure"] not in NOT_OF_HOST):
            words = OF_ONE.sub("", str(row.get("reason", "")).replace(row["recording"], ""))
            found.append((row["host"], WELL if works else (row["failure"], words)))
        for ends in (of_all, by_sorter.setdefault(row.get("sorter", ""), {})):
            for host, how in found:
                ends.setdefault(host, Counter())[how] += 1
    lines: dict[tuple[str, How], tuple[int, str]] = {}
    for ends in (of_all, *by_sorter.values()):
        for host, how, others in _find_odd(ends, of_data=ends is of_all):
            here = ends[host]
            line = (
                f"Host {host} fails as others do not: {how[0]}, {here[how]} of {here.total()} "
                f"sorts and canaries, and {others[how]} of {others.total()} elsewhere. To leave "
                "it out with Slurm, in the profile's default-resources: "
                f"slurm_extra: \"'--exclude={host.partition('.')[0]}'\""
            )
            lines[host, how] = max(lines.get((host, how), (0, "")), (here[how], line))
    return [line for _, line in lines.values()]


def _find_odd(ends: Ends, *, of_data: bool) -> Iterator[tuple[str, How, Counter[How]]]:
    """Yield hosts and how most of theirs fail, as on others, where some ended well, few do.

    Besides, how those of all others ended.
    """
    for host, here in ends.items():
        others = sum(ends.values(), Counter[How]()) - here
        for how in here.keys() - {WELL} if others[WELL] else ():
            is_most = here[how] >= max(2, here.total() / 2)
            if of_data:
                is_most = here[how] == here.total() >= LEAST_OF_DATA
            is_odd = here[how] * others.total() > 5 * others[how] * here.total()
            if is_most and is_odd and of_data == (how[0] in OF_DATA):
                yield host, how, others
