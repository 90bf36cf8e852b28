"""Progress of a batch, in recordings and hours instead of jobs."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from spikecanary import sentinel
from spikecanary.sentinel import Record, RecordError

#: Running jobs that are named.
NAMED = 3


@dataclass
class _Job:
    """A job that runs."""

    kind: str
    recording: str
    record: Path | None
    began: float


@dataclass
class Progress:
    """What a run has done, by the jobs that began and ended.

    Parameters
    ----------
    n_canaries, n_sorts : int
        Canaries that are planned, and sorts that may be.
    clock : callable
        Returns the time in s.
    """

    n_canaries: int = 0
    n_sorts: int = 0
    clock: Callable[[], float] = time.monotonic
    done: dict[str, int] = field(default_factory=lambda: {"canary": 0, "sort": 0})
    failed: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    running: dict[int, _Job] = field(default_factory=dict)
    forecast_s: dict[str, float] = field(default_factory=dict)
    widest: int = 1

    def plan(self, n_canaries: int, n_sorts: int) -> None:
        """Take the numbers of planned jobs; only the first ones count sorts that may be."""
        self.n_canaries, self.n_sorts = n_canaries, max(n_sorts, n_canaries)

    def begin(self, job: int, rule: str, recording: str, outputs: Iterable[str]) -> None:
        """Note that a job of a rule for a recording begins."""
        kind = next((each for each in ("canary", "sort") if rule.endswith(each)), rule)
        record = next((Path(path) for path in outputs if path.endswith(f"{kind}.json")), None)
        self.running[job] = _Job(kind, recording, record, self.clock())
        self.widest = max(self.widest, len(self.sorting()))

    def end(self, job: int, *, failed: bool = False) -> bool:
        """Note that a job has ended; return whether it was a canary or a sort."""
        ended = self.running.pop(job, None)
        if ended is None or ended.kind not in self.done:
            return False
        self.done[ended.kind] += not failed
        self.failed += failed
        record = _read(ended.record) if not failed else None
        if record is not None:
            self.outcomes[record.outcome] = self.outcomes.get(record.outcome, 0) + 1
        if ended.kind == "canary":
            self.n_sorts -= record is not None and record.verdict == "stop"
            if record is not None and record.forecast and record.verdict == "proceed":
                self.forecast_s[ended.recording] = record.forecast["wall_s"].likely
        else:
            self.forecast_s.pop(ended.recording, None)
        return True

    def sorting(self) -> list[_Job]:
        """Return the canaries and sorts that run now."""
        return [job for job in self.running.values() if job.kind in self.done]

    def left_h(self) -> float:
        """Return the hours that are left, by the forecasts of canaries; NaN without any.

        Recordings without a forecast are taken to be as the others; as many sorts run at a
        time as have so far.
        """
        known = list(self.forecast_s.values())
        if not known:
            return math.nan
        n_left = max(len(known), self.n_sorts - self.done["sort"] - self.failed)
        now = self.clock()
        spent = math.fsum(
            min(now - job.began, self.forecast_s.get(job.recording, 0.0))
            for job in self.running.values()
            if job.kind == "sort"
        )
        return (math.fsum(known) / len(known) * n_left - spent) / self.widest / 3600

    def line(self) -> str:
        """Return one line for people."""
        parts = [f"canaries {self.done['canary']} of {self.n_canaries}"]
        told = {name: self.outcomes.get(name, 0) for name in ("stopped", "unexpected")}
        parts += [f"{n} {name}" for name, n in told.items() if n]
        parts.append(f"sorts {self.done['sort']} of at most {self.n_sorts}")
        parts += [f"{self.failed} failed"] if self.failed else []
        names = [f"{job.kind} {job.recording}" for job in self.sorting()]
        more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
        parts += [f"running: {', '.join(names[:NAMED])}{more}"] if names else []
        hours = self.left_h()
        parts += [] if math.isnan(hours) else [f"about {max(hours, 0.0):.1f} h left by forecast"]
        return "; ".join(parts)


def _read(path: Path | None) -> Record | None:
    try:
        return sentinel.read_record_if_any(path) if path is not None else None
    except RecordError:
        return None
