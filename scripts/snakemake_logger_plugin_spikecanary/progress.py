"""Progress of a batch, in recordings instead of jobs."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from spikecanary.sentinel import Record, read_if_readable
from spikecanary.texts import duration, shorten

#: Running jobs that are named.
NAMED = 3
KINDS = ("canary", "sort")


@dataclass
class _Job:
    """A job that runs."""

    kind: str
    recording: str
    record: Path | None


@dataclass
class Progress:
    """What a run has done, by the jobs that began and ended."""

    n_canaries: int = 0  # planned
    n_sorts: int = 0  # the most that there may be
    done: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    running: dict[int, _Job] = field(default_factory=dict)
    began_s: dict[str, float] = field(default_factory=dict)  # the first job of each kind

    def plan(self, n_canaries: int, n_sorts: int) -> None:
        """Take the numbers of planned jobs; only the first ones count sorts that may be."""
        self.n_canaries, self.n_sorts = n_canaries, max(n_sorts, n_canaries)

    def begin(self, job: int, rule: str, recording: str, outputs: Iterable[str]) -> None:
        """Note that a job of a rule for a recording begins."""
        kind = next((each for each in KINDS if rule.endswith(each)), rule)
        record = next((Path(path) for path in outputs if path.endswith(f"{kind}.json")), None)
        self.began_s.setdefault(kind, time.monotonic())
        self.running[job] = _Job(kind, recording, record)

    def end(self, job: int, *, failed: bool = False) -> bool:
        """Note that a job has ended; return whether it was a canary or a sort."""
        ended = self.running.pop(job, None)
        if ended is None or ended.kind not in KINDS:
            return False
        self.done["failed" if failed else ended.kind] += 1
        path = None if failed else ended.record
        if path is not None and (record := read_if_readable(Record, path)):
            self.outcomes[record.outcome] += 1
            self.n_sorts -= ended.kind == "canary" and record.verdict == "stop"
        return True

    def line(self) -> str:
        """Return one line for people."""
        parts = [f"canaries {self._of('canary', self.n_canaries)}"]
        parts += [f"{n} {x}" for x in ("stopped", "unexpected") if (n := self.outcomes[x])]
        begun = self.done["sort"] + sum(job.kind == "sort" for job in self.running.values())
        # Behind a gate that is made again there are more than the first plan can tell.
        parts.append(f"sorts {self._of('sort', max(self.n_sorts, begun), 'at most ')}")
        parts += [f"{self.done['failed']} failed"] if self.done["failed"] else []
        running = sorted(self.running.values(), key=lambda job: job.kind not in KINDS)
        names = [f"{job.kind} {job.recording}" for job in running]
        parts += [f"running: {shorten(names, NAMED)}"] if names else []
        return "; ".join(parts)

    def _of(self, kind: str, n: int, most: str = "") -> str:
        """Count jobs that are done, and tell about how long the others take while any runs."""
        done = self.done[kind]
        left_s = (time.monotonic() - self.began_s.get(kind, 0.0)) * (n - done) / (done or 1)
        left = f" (about {duration(left_s)} left)" if 0 < done < n and self.running else ""
        return f"{done} of {most}{n}{left}"
