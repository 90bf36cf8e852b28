"""A batch, as the rules see it: its waves, what its jobs are told, and what is asked for.

Paths are below the results folder.
"""

import functools
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from spikecanary import forecast, gate, inputcheck, outputs, report, reruns, sentinel, summary
from spikecanary.config import Config
from spikecanary.config.pathtypes import not_readable
from spikecanary.outputs import phy
from spikecanary.preflight import node
from spikecanary.reruns import OUTPUT_VERSIONS, State
from spikecanary.table import RESERVED_IDS, Recording
from spikecanary.texts import as_yaml, count, did_you_mean, shorten

#: The first attempt at an output requests so many minutes.
OUTPUT_MIN = 240
#: Snakemake's checkpoints of an import of all rules, and how it names them, by the results folder.
IMPORTED: dict[Path, tuple[Any, Callable[[str], str]]] = {}
#: What a rule takes for a param or a resource: a function of a job's wildcards, and of its attempt.
Asked = Callable[..., Any]


def signed(function: Asked) -> Asked:
    """Note a function's signature in it: Snakemake asks for it three times a job."""
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


def check_places(places: Mapping[str, Path]) -> str:
    """Say why results, logs or benchmarks cannot be where they shall; nothing where they can."""
    for name, place in places.items():
        if re.search(r"^\.?$|^~|[{}<>]", str(place)):
            return f"pathvars: {name}: takes a folder, without ~, {{, }}, < and >, got {place}"
        why = not_readable(place)
        if why and not why.endswith("does not exist"):
            return f"pathvars: {name}: {why}; choose another folder"
        if os.path.lexists(place) and not place.is_dir():
            return f"{place} is no folder: move it, or choose another in pathvars: {name}"
    misplaced = []
    for name in (*RESERVED_IDS, ".checked", summary.ERRORS):
        path, kind = str(places["results"] / name), "file" if "." in name else "folder"
        is_there = os.path.exists(path)  # noqa: PTH110 - of a name too long, too
        if is_there and Path(path).is_dir() == (kind == "file"):
            misplaced.append(f"{path} should be a {kind}")
    return f"{'; '.join(misplaced)}: move it away" if misplaced else ""


@dataclass
class Batch:
    """The recordings of a table beside the settings of now, and what is in the results folder."""

    config: Config
    recordings: Sequence[Recording]
    results: Path
    dry: bool = False
    #: Whether this is a job's own process, on a cluster, which reads the rules anew.
    is_job: bool = False
    #: Whether this machine is tried before many canaries run on it; known once the DAG is built.
    tries_nodes: Callable[[], bool] = lambda: False
    #: Whether no job is to run (--report, --summary, --delete-all-output); known by then, too.
    reads_only: Callable[[], bool] = lambda: False
    #: Whether finished sorts are to be made again: then only those that pass.
    forces_sorts: Callable[[], bool] = lambda: False
    #: States are read once; not where other rules may make the recordings in this run.
    remembers: bool = True
    #: Returns the table of a wave's gate, as soon as it is written; no dry run asks for one.
    gate_of: Callable[[str], Path] | None = None
    _states: dict[str, State] = field(default_factory=dict, init=False)
    _waiting: dict[str, set[str]] = field(default_factory=dict, init=False)

    @cached_property
    def rows(self) -> dict[str, Recording]:
        """Those of its recordings that have a results folder to work in, by their ids.

        In a job all: its own was looked at before it was submitted, and others do not matter.
        """
        return {row.id: row for row in self.recordings if self.is_job or self._look(row).is_usable}

    @cached_property
    def left_out(self) -> str:
        """Which recordings are left out, and why; empty where none is."""
        unusable = [self._look(row) for row in self.recordings if row.id not in self.rows]
        problems = [str(state.problem) for state in unusable if state.is_unreachable]
        named = [state.row.id for state in unusable if not state.is_unreachable]
        folders = (
            f"{self.results} has no folders of theirs to work in: {named}; move them, or give "
            "yourself the right to read and write them"
        )
        return "; ".join(filter(None, [folders if named else "", shorten(problems, reruns.NAMED)]))

    @cached_property
    def waves(self) -> dict[str, list[str]]:
        """The recordings of each wave, by its name."""
        config = self.config
        blocks = gate.make_waves(self.recordings, config.gate.wave_size, config.sorter.name)
        usable = {wave: [x for x in members if x in self.rows] for wave, members in blocks.items()}
        return {wave: members for wave, members in usable.items() if members}

    @cached_property
    def sessions(self) -> dict[str, list[str]]:
        """The recordings of each session that has a file of its own."""
        return outputs.sessions(self.recordings, self.config)

    @cached_property
    def whole_sessions(self) -> list[str]:
        """Those no recording of which is left out for now: the files of others stay as they are."""
        return [one for one, members in self.sessions.items() if self.rows.keys() >= {*members}]

    def state_of(self, recording: str) -> State:
        """Return a recording's records beside the settings of now."""
        if recording not in self.rows:
            hint = did_you_mean(recording, self.rows)
            unknown = f"no recording {recording!r} in {self.config.recordings}{hint}"
            raise SystemExit(self.left_out if recording in self.numbered else unknown)
        return self._look(self.rows[recording])

    def _look(self, row: Recording) -> State:
        """Look at a recording's records; they are read when they are first needed."""
        if row.id in self._states:
            return self._states[row.id]
        state = State(self.config, row, self.results / row.id, dry=self.dry)
        if self.remembers:
            self._states[row.id] = state
        return state

    def sorter_of(self, recording: str) -> str:
        """Return the sorter of a recording."""
        return self.state_of(recording).row.sorter or self.config.sorter.name

    def describe_changes(self) -> str:
        """Say which finished sorts run again, and why; nothing where none does."""
        again = [f"{x} ({why})" for x in self.rows if (why := self.state_of(x).changes)]
        n_sorts = count(len(again), "finished sort runs", "finished sorts run")
        return f"{n_sorts} again, because of what changed: {shorten(again)}" if again else ""

    # What jobs are told, and what they request.

    @cached_property
    def numbered(self) -> dict[str, dict[str, str]]:
        """The further columns of each recording, and its place in the table."""
        return gate.number(self.recordings)

    @cached_property
    def _of_all_jobs(self) -> dict[str, Any]:
        return {
            "names": [*self.rows],
            "waves": [*self.waves],
            "limits": reruns.limits_of(self.config),
            "late": inputcheck.left_to_jobs(self.config),
            "force": self.config.canary.force,
        }

    def place_of(self, names: Sequence[str]) -> dict[str, Any]:
        """Return a job's place in the batch, and what it goes by that decides no result."""
        rows = {each: self.numbered[each] for each in names}
        return self._of_all_jobs | {"rows": rows, "forced": names[0] in self.config.canary.force}

    def setting(self, kind: str, name: str) -> Asked:
        """Return a function of one of the settings that decide a canary, or a sort."""
        settings = f"{kind}_settings"
        return signed(lambda wildcards: getattr(self.state_of(wildcards.recording), settings)[name])

    def version(self, kind: str, pattern: str) -> Asked:
        """Return a function of an output's version, and of the work by hand that it is made of."""
        look = functools.partial(
            phy.look_for_work, pattern=pattern, manual=self.config.curation.manual, dry=self.dry
        )
        version = {kind: OUTPUT_VERSIONS[kind]}
        return signed(lambda wildcards: version | look(self.results / wildcards.recording))

    @property
    def attempt(self) -> dict[str, Asked]:
        """Which attempt a job is, as a resource; a dry run, where each costs time, has none."""
        return {} if self.dry else {"attempt": lambda _, attempt: attempt}

    def times_attempt(self, constant: int) -> Asked | int:
        """Return a request of which each retry gets as much again; a dry run retries nothing."""
        return constant if self.dry else lambda _, attempt: attempt * constant

    def default_request(self, runtime_min: int) -> dict[str, int]:
        """Return what a canary requests, and a sort without a forecast."""
        return forecast.default_request(self.config, self.config.sorter.name, runtime_min)

    def sort_request(self, name: str) -> Asked | int:
        """Return a full sort's request, by its forecast; a dry run takes the least."""
        if self.dry:
            return self.default_request(self.config.job.sort_runtime_min)[name]
        # A job is held to what it was submitted with, before others ended.
        began = sentinel.run_began() if self.is_job else None
        ask = functools.partial(forecast.sort_request, self.config, self.results, began=began)
        return lambda wildcards, attempt: ask(self.state_of(wildcards.recording).task, attempt)[
            name
        ]

    # What is asked for.

    def find_waiting(self, sorter: str) -> set[str]:
        """Return the recordings whose canaries wait until this machine was tried with a sorter.

        None where few canaries of it are to run, or none may stop for a machine. What is forced is
        sorted whatever its canary says.
        """
        canary = self.config.canary
        if not self.tries_nodes() or not canary.window_s or "environment" not in canary.stop_on:
            return set()
        if sorter not in self._waiting:
            due = {x for x in self.rows if self.sorter_of(x) == sorter}
            due = {x for x in due if self.state_of(x).canary_is_due} - {*canary.force}
            self._waiting[sorter] = due if len(due) >= node.LEAST_RECORDINGS else set()
        return self._waiting[sorter]

    def find_trial(self, wave: str) -> str | None:
        """Return the sorter with which this machine is tried before a wave's canaries run."""
        sorter = self.sorter_of(self.waves[wave][0])
        return None if self.find_waiting(sorter).isdisjoint(self.waves[wave]) else sorter

    def sentinels(self, wave: str) -> list[str]:
        """Return the sentinels of a wave that its gate reads.

        A finished sort does without one that was removed: to have it made again would, to
        Snakemake, be an input that was updated, ancient() or not.
        """
        names, all_of_them = self.waves[wave], self.forces_sorts()
        asked = [x for x in names if all_of_them or not self.state_of(x).lacks_sentinel]
        return [f"{x}/canary.json" for x in asked]

    def split(self, wave: str) -> tuple[list[str], list[str]]:
        """Return the recordings of a wave that are sorted, and those whose silence is drawn.

        A dry run cannot pass the checkpoint: it goes by the sentinels that stand, and counts what
        will be tested (again) as sorted. A real run goes by the gate's table, not by the
        sentinels: one that is away, to be made again, passed while the table stands. Where no job
        is to run, what is sorted counts: a gate that is due hides none of it.
        """
        states = {each: self.state_of(each) for each in self.waves[wave]}
        reads_only = self.reads_only()
        if reads_only or self.gate_of is None or self.dry:
            passed = {x for x, s in states.items() if (s.sort if reads_only else s.may_proceed)}
            silent = {x for x, state in states.items() if state.is_silent}
        else:
            sentinels = (self.results / each / "canary.json" for each in states)
            passed, silent = gate.split(self.gate_of(wave), sentinels)
        if not self.forces_sorts():  # a finished sort stands, whatever a later canary came to
            passed |= {each for each, state in states.items() if state.sort_stands}
        passed |= {*self.config.canary.force}
        return [each for each in states if each in passed], sorted(silent - passed)

    def results_of(self, wave: str, names: Sequence[str]) -> list[str]:
        """Return those names of each recording of a wave that is sorted, or its picture.

        Where no job is to run, all that is there: Snakemake's report takes no file that is missing.
        """
        passed, silent = self.split(wave)
        made = [f"{each}/{name}" for each in passed for name in names]
        of_sorted = {self.rows[each].session for each in passed}
        made += [f"sessions/{one}.nwb" for one in self.whole_sessions if one in of_sorted]
        drawn = silent if "figures" in self.config.outputs else []
        made += [f"{each}/{outputs.CANARY_FIGURE}" for each in drawn]
        return [x for x in made if not self.reads_only() or (self.results / x).exists()]

    def missing_of(self, wave: str) -> list[str]:
        """Return a wave's files by name that are missing, so that a removed one is made again.

        Where no job is to run, those that are there, for Snakemake's report and lists.
        What stands, and what is new, is in the DAG by the tables of the waves: these too by name,
        since the summary of a run with errors is made without them.
        """
        names = [f"{kind}/{wave}.tsv" for kind in ("gates", "waves")]
        if self.reads_only() or (self.results / "gates" / f"{wave}.tsv").exists():
            names += self._of_unsorted(wave)
            names += self.results_of(wave, outputs.all_files(self.config.outputs))
        return self._missing(names)

    def missing_of_sorted(self) -> list[str]:
        """Return what finished sorts lack where a trial comes first, whose failure costs none."""
        due = [x for x in self.rows if self.find_waiting(self.sorter_of(x))]
        files = outputs.all_files(self.config.outputs)
        return self._missing(f"{x}/{n}" for x in due if self.state_of(x).sort_stands for n in files)

    def _of_unsorted(self, wave: str) -> list[str]:
        """Return the sentinels of a wave's recordings whose sort does not stand."""
        unsorted = (each for each in self.waves[wave] if not self.state_of(each).sort_stands)
        return [f"{each}/canary.json" for each in unsorted]

    def _missing(self, names: Iterable[str]) -> list[str]:
        """Return those that are missing; where no job is to run, those that are there."""
        is_asked = self.reads_only()
        return [each for each in names if (self.results / each).exists() is is_asked]

    def sorts_of(self, wave: str) -> list[str]:
        """Return the full sorts of a wave, and the sentinels of what is not sorted."""
        passed, _ = self.split(wave)
        names = self._of_unsorted(wave)
        return names + [f"{x}/{name}" for x in passed for name in ("sort.json", "sorting")]

    def named_rows(self, session: str) -> list[dict[str, Any]]:
        """Return the rows of a session with their further columns."""
        return [self.state_of(each).named_row for each in self.sessions[session]]

    def curated_of(self, session: str) -> list[str]:
        """Return the curated sortings of a session."""
        members = {*self.sessions[session]}
        waves = [wave for wave, found in self.waves.items() if not members.isdisjoint(found)]
        return [f"{x}/curated" for wave in waves for x in self.split(wave)[0] if x in members]

    # What needs a person.

    def describe_stopped_sort(self, recording: str, *, is_tested: bool) -> str:
        """Say that a forced sort would be lost; nothing where its canary lets it.

        Snakemake removes a sort before the job that then obeys its sentinel. Where that is tested
        in this run, its gate comes first.
        """
        awaits = is_tested or self.state_of(recording).canary_is_due
        if awaits and self.gate_of is not None and not (self.dry or self.reads_only()):
            self.gate_of(next(wave for wave, x in self.waves.items() if recording in x))
        if State(self.config, self.rows[recording], self.results / recording).may_sort:
            return ""
        hint = f"to sort it all the same: canary: {{force: [{as_yaml(recording)}]}} in the config"
        return f"{recording}: its finished sort would be lost: its canary says stop; {hint}"

    @property
    def errors(self) -> list[str]:
        """The note that the error hook wrote the summary, which is not what its rule makes."""
        return [summary.ERRORS] if (self.results / summary.ERRORS).exists() else []

    @cached_property
    def disagreeing(self) -> dict[str, Any]:
        """What disagrees with the settings of now: records, and tables of waves."""
        states = {each: self.state_of(each) for each in self.rows}
        named = dict[str, list[str]]()
        for wave, members in self.waves.items():
            tested = [each for each in members if not states[each].lacks_sentinel]
            named |= {f"waves/{wave}.tsv": members, f"gates/{wave}.tsv": tested}
        return {
            "expected": {each: x.expected for each, x in states.items() if x.disagreement},
            "tables": gate.find_stale(self.results, named),
        }

    @property
    def needs_check(self) -> bool:
        """Whether something needs attention though nothing may run."""
        doubtful = any(self.state_of(each).is_doubtful for each in self.rows)
        return bool(self.left_out) or doubtful or any(self.disagreeing.values())

    def end(self, jobs: Iterable[Mapping[str, str]], *, failed: bool) -> bool:
        """Print how the recordings of some jobs ended, by their wildcards.

        After errors (``failed``) write summary and report, too. Returns whether a recording needs
        attention.
        """
        of_run = set[str]()
        for wildcards in jobs:
            # Where a machine cannot run a sorter, no canary of it is among the jobs.
            of_wave = self.waves.get(wildcards.get("wave", ""), ())
            of_run |= {wildcards.get("recording", ""), *of_wave}
        further = {name: row.metadata for name, row in self.rows.items()}
        ended = {name: columns for name, columns in further.items() if name in of_run}
        if failed and ended:
            report.write_after_errors(self.results, further, self.config)
        files = outputs.all_files(self.config.outputs) if failed else []
        return summary.print_end(self.results, ended, files)
