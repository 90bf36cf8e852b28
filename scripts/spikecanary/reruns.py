"""What makes a finished job run again: versions, and settings beside those on record.

Snakemake runs a job again when a value in its ``params`` changes. These are the values: what the
user set, the stamps of the recording's files, and a version for each kind of result. A version is
bumped by hand when what comes out changes; an edited docstring sorts nothing again.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from spikecanary import gate, outputs, sentinel, sorter
from spikecanary.config import Config, as_set
from spikecanary.recording import stamps
from spikecanary.sentinel import Essentials, RecordError, UnreachableRecordError, read_if_any
from spikecanary.sorter import SortTask
from spikecanary.table import Recording
from spikecanary.texts import shorten

#: Bump this when a canary may come to another verdict: what is not sorted is tested again.
CANARY_VERSION = 5
#: Bump this when a sorter is handed other traces or parameters: every recording is sorted again.
SORT_VERSION = 1
#: Bump one of these when that kind of output becomes another: it is made again from the sortings.
OUTPUT_VERSIONS = {
    "analyze": 1,
    "curate": 2,
    "figures": 3,
    "canary_figure": 3,
    "phy": 2,
    "nwb": 2,
    "npz": 2,
    "mat": 2,
    "report": 1,
    "summary": 3,
    "page": 3,
}
#: Recordings that are named for each reason.
NAMED = 3
#: What is made again, where it is not the canary or the sort: files, by the reason.
REMADE = {
    "analyzed with other settings": ["metrics.tsv"],
    "curated with other settings": ["units.tsv"],
}
#: And for other disagreements: the first of these that is there (of a wave, its table itself).
FIRST = ["", "canary.json", "sort.json"]
#: What all sorts of a run have to share, as far as it reads the same on all machines.
OF_ALL_SORTS: Any = {
    "sorter": {"name", "params", "params_of", "device", "container", "image"},
    "canary": {"bad_periods"},
    **dict.fromkeys(("preprocessing", "preprocessing_of", "params_of"), True),
}
#: Its digest when this run of snakemake began: an environment variable, for its jobs.
RUN_SETTINGS = "SPIKECANARY_RUN_SETTINGS"
#: Settings of the forecast by which a canary goes.
OF_A_CANARY = {"max_mem_mb", "max_runtime_min"}


def limits_of(config: Config) -> dict[str, Any]:
    """Return what a sort goes by, but what does not decide its result: other limits run nothing."""
    return {
        "preflight": as_set(config.preflight),
        "watchdogs": as_set(config.watchdogs),
        "retry": as_set(config.retry),
        "forecast": as_set(config.forecast),
        "keep_output": config.sorter.keep_output,
        "scratch": config.job.scratch,
        **as_set(config, include={"signatures"}),
    }


def digest(**values: Any) -> dict[str, str]:
    """Return digests of long values (16 hex digits of SHA-256), to be compared instead of them."""
    texts = {name: json.dumps(value).encode() for name, value in values.items()}
    return {name: hashlib.sha256(text).hexdigest()[:16] for name, text in texts.items()}


def compare_with_run(config: Config, *, begins: bool) -> str:
    """Say that the settings of sorts are not those with which this run began; else nothing.

    Jobs of a cluster read the configuration again. ``begins``: this process began the run. Where
    jobs do not have its environment, nothing is compared.
    """
    now = digest(settings=as_set(config, include=OF_ALL_SORTS))["settings"]
    if begins:
        os.environ[RUN_SETTINGS] = now
    if os.environ.get(RUN_SETTINGS, now) == now:
        return ""
    return (
        "the configuration (sorter, preprocessing) was changed while snakemake runs: this job "
        "would sort with other settings than those before it. Change it back, or end snakemake, "
        "wait for its jobs, and start it again"
    )


@dataclass
class State:
    """One recording's records beside the settings of now; each is read when it is first needed."""

    config: Config
    row: Recording
    folder: Path  #: its results folder
    #: A dry run does not stamp recordings without records, whose stamps decide nothing yet.
    dry: bool = field(default=False, kw_only=True)
    _problems: list[RecordError] = field(default_factory=list, init=False)

    @cached_property
    def task(self) -> SortTask:
        """The recording's full sort."""
        return sorter.make_task(self.row, self.config)

    @property
    def named_row(self) -> dict[str, Any]:
        """Its row with its further columns that are not empty, which NWB names."""
        return {**self.sort_settings["task"]["row"], "metadata": self.row.filled}

    @cached_property
    def sentinel(self) -> Essentials | None:
        """What its canary wrote, as far as it decides what runs."""
        return self._read("canary.json")

    @cached_property
    def sort(self) -> Essentials | None:
        """What its full sort wrote, as far as it decides what runs."""
        return self._read("sort.json")

    def _read(self, name: str) -> Essentials | None:
        """Read a record; one that cannot be read is as none, since it must not cost the others."""
        try:
            return read_if_any(Essentials, self.folder / name)
        except RecordError as err:
            self._problems.append(err)
            return None

    @cached_property
    def attempts(self) -> int:
        """How many of its canary's stops have been tested again since, or will be.

        The journal counts them; where it was lost, or its disk was full, the sentinel is one more.
        """
        counted = sentinel.count_retestable(self.folder / "attempts.jsonl")
        found = self.sentinel
        return max(counted, found.attempt + 1) if found and _waits(found) else counted

    @property
    def problem(self) -> str | None:
        """Why one of its records cannot be read; None where all can, or are not there."""
        _ = (self.sentinel, self.sort)  # read by now
        return str(self._problems[0]) if self._problems else None

    @property
    def is_unreachable(self) -> bool:
        """Whether one of its records cannot be read for now: what it says may be worth hours."""
        is_found = self._is_open and self.problem
        return bool(is_found) and any(isinstance(x, UnreachableRecordError) for x in self._problems)

    @property
    def _is_open(self) -> bool:
        return self.folder.is_dir() and os.access(self.folder, os.R_OK | os.X_OK)

    @property
    def is_usable(self) -> bool:
        """Whether its results folder can be worked in, or is not there.

        Snakemake would end the run of all recordings, or sort anew what is sorted. A folder that
        may not be written is needed only where something is to be done.
        """
        if not os.path.lexists(self.folder):
            return True
        if not self._is_open or self.is_unreachable:
            return False
        may_write = self.dry or os.access(self.folder, os.W_OK)
        return may_write or self.is_done or not self.may_proceed

    @cached_property
    def data(self) -> dict[str, Any] | None:
        """The stamps of its files, as its records have noted them where they are the same.

        While files of a sorted recording are away, or of one that is stopped for good, they are.
        """
        if self.dry and self.sentinel is None and self.sort is None:
            return None
        found = stamps.of_recording(self.row, self.task.sorter.plugin)
        # Of names in upper case earlier versions saw no file.
        if (
            self.row.reader == "neuralynx"
            and self.sort
            and self.sort.settings.get("data", 0) is None
        ):
            return None
        tested = self.sentinel
        is_final = tested is not None and tested.category == "biological"
        for record, is_ended in ((self.sort, True), (tested, is_final)):
            noted: dict[str, Any] | None = record.settings.get("data") if record else None
            if noted and stamps.are_noted(found, noted, some_away=is_ended):
                return noted
        return found

    @cached_property
    def sort_settings(self) -> dict[str, Any]:
        """All that decides what its full sort gives; as it is on record, where that is the same.

        Snakemake compares texts: 5 and 5.0 differ.
        """
        version = {"sort": SORT_VERSION}
        now = {"version": version, "task": self.task.as_set(), "data": self.data}
        return self.sort.settings if self.sort and self.sort.settings == now else now

    @cached_property
    def sort_stands(self) -> bool:
        """Whether a finished sort has the settings of now."""
        return self.sort is not None and self.sort.settings == self.sort_settings

    @property
    def is_doubtful(self) -> bool:
        """Whether its finished sort found no units where its canary did, or saw activity."""
        sort, canary = self.sort, self.sentinel
        if sort is None or sort.n_units or not self.sort_stands:
            return False
        was_active = sort.failure is not None and sort.category is None
        return was_active or (canary is not None and bool(canary.n_units))

    @property
    def changes(self) -> str:
        """What differs from the settings of a finished sort that does not stand."""
        if self.sort is None or self.sort_stands:
            return ""
        was, now = self.sort.settings, self.sort_settings
        task, task_now = was.get("task") or {}, now["task"]
        try:
            names = [name for name in _differing(task, task_now) if name != "row"]
            names += _differing(task.get("row") or {}, task_now["row"])
            changes = [stamps.describe_changes(was.get("data"), now["data"])]
        except (AttributeError, LookupError, TypeError):  # a record that somebody edited
            return "other settings or data"
        changes += [f"other settings: {', '.join(names)}"] if names else []
        changes += ["another version of the sort"] if was.get("version") != now["version"] else []
        return "; ".join(filter(None, changes))

    @property
    def lacks_sentinel(self) -> bool:
        """Whether its finished sort stands, and its sentinel was removed."""
        return self.sort_stands and not (self.folder / "canary.json").exists()

    @cached_property
    def canary_settings(self) -> dict[str, Any]:
        """All that decides its canary's verdict, and the attempts so far.

        A sorted recording's canary is not asked again: its settings are those that the sort's
        record holds. They are not read from the sentinel, since Snakemake removes a job's own
        outputs, and a job on a cluster that is started again reads the rules after that.
        """
        noted = self.sort.canary_settings if self.sort and self.sort_stands else None
        if noted and {"task", "data", "settings", "attempt"} <= {*noted}:
            return noted
        config, tested = self.config, self.sentinel
        file = config.signatures
        own = {"signatures": stamps.digest(Path(file))} if file and Path(file).is_file() else {}
        now = {
            "task": self.sort_settings["task"],
            "data": self.data,
            "settings": {
                "version": {"canary": CANARY_VERSION, **self.sort_settings["version"], **own},
                "canary": as_set(config.canary, exclude={"force"}),
                "preflight": as_set(config.preflight),
                "watchdogs": as_set(config.watchdogs),
                "forecast": as_set(config.forecast, include=OF_A_CANARY),
                # Absent where nothing is set, as in the records of versions without them.
                **as_set(config, include={"retry", "signatures"}),
            },
        }
        recorded = tested.settings if tested and tested.settings == now else now
        return {**recorded, "attempt": self.attempts}

    @property
    def canary_is_due(self) -> bool:
        """Whether its canary will run: no sentinel, other settings, or a verdict to test again."""
        found = self.sentinel
        if found is None:  # a finished sort does without
            return not self.sort_stands
        if found.settings != _recorded(self.canary_settings):
            return True
        return _waits(found) and not self.sort_stands

    @property
    def may_proceed(self) -> bool:
        """Whether a plan counts it as sorted: forced, proceeding, or tested (again)."""
        return self.may_sort or self.canary_is_due

    @property
    def may_sort(self) -> bool:
        """Whether it is forced, or its sentinel, if any, says proceed."""
        forced = self.row.id in self.config.canary.force
        return forced or self.sentinel is None or self.sentinel.verdict == "proceed"

    @property
    def is_silent(self) -> bool:
        """Whether it is stopped for a biological reason, which will not be tested again."""
        found = self.sentinel
        return not self.may_proceed and found is not None and found.category == "biological"

    @property
    def is_done(self) -> bool:
        """Whether it is sorted with the settings of now, and all that there is to be is there."""
        names = outputs.all_files(self.config.outputs)
        are_there = all((self.folder / name).exists() for name in names)
        settings = outputs.settings_of(self.config)
        is_other = outputs.find_other_settings(self.folder, settings)
        return self.sort_stands and are_there and not is_other

    @property
    def expected(self) -> dict[str, Any]:
        """What its records should say, for :func:`disagreement`."""
        forced = self.row.id in self.config.canary.force
        settings = {"canary": self.canary_settings, "sort": self.sort_settings}
        return settings | {"outputs": outputs.settings_of(self.config), "forced": forced}

    @property
    def disagreement(self) -> str | None:
        """How its records disagree with the settings of now; None where they do not."""
        return self.problem or disagreement(self.folder, self.sentinel, self.sort, self.expected)


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the keys whose values differ."""
    return [name for name in dict.fromkeys([*was, *now]) if was.get(name) != now.get(name)]


def disagreement(
    folder: Path, canary: Essentials | None, sort: Essentials | None, expected: Mapping[str, Any]
) -> str | None:
    """Say how a recording's records disagree with what they should say; None where they do not."""
    tested = canary is not None and canary.settings == _recorded(expected["canary"])
    stopped = tested and canary is not None and canary.verdict == "stop"
    if sort is not None and (expected["forced"] or not stopped):
        if sort.settings != expected["sort"]:
            return "sorted with other settings or data"
        return outputs.find_other_settings(folder, expected["outputs"])
    if canary is None:
        return None
    if not tested:
        return "tested with other settings or data"
    again = canary.attempt >= expected["canary"]["attempt"]
    return "not tested again" if _waits(canary) and not again else None


def _recorded(canary_settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a canary's settings as its sentinel records them: the attempt apart."""
    return {name: value for name, value in canary_settings.items() if name != "attempt"}


def _waits(canary: Essentials) -> bool:
    """Whether a sentinel stops for a reason that may be gone by now."""
    return canary.verdict == "stop" and canary.category in sentinel.RETESTED


def compare(
    results: Path,
    expected: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, Collection[str]],
) -> str:
    """Say which recordings disagree with their settings, and the command that runs them again.

    ``expected`` holds the :attr:`State.expected` of recordings, ``tables`` the recordings that a
    wave's tables should name. Empty where nothing disagrees.
    """
    reasons: dict[str, list[str]] = {}
    unreadable = []
    for id_, settings in expected.items():
        folder = results / id_
        try:
            canary = read_if_any(Essentials, folder / "canary.json")
            sort = read_if_any(Essentials, folder / "sort.json")
            reason = disagreement(folder, canary, sort, settings)
        except RecordError as err:
            unreadable.append(str(err))
            continue
        if reason:
            reasons.setdefault(reason, []).append(id_)
    if stale := list(gate.find_stale(results, tables)):
        reasons["of the tables of waves with other recordings or verdicts, or unreadable"] = stale
    if not reasons:
        return "; ".join(unreadable[:NAMED])
    named = [f"{len(ids)} {reason} ({shorten(ids, NAMED)})" for reason, ids in reasons.items()]
    # A canary alone where there is one: its sort follows, or stays where the canary now stops.
    remade = (
        next(filter(Path.is_file, (results / id_ / name for name in REMADE.get(reason, FIRST))), "")
        for reason, ids in reasons.items()
        for id_ in ids
    )
    disagree = (
        f"records disagree with the config or the table: {'; '.join(named)}. Snakemake's own notes "
        "of them (.snakemake) are lost, or say otherwise. To run them again, add to your command: "
        f"--forcerun {shlex.join(str(path) for path in remade if path)}"
    )
    return "; ".join([*unreadable[:NAMED], disagree])
