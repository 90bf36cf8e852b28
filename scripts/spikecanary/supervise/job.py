"""What a canary and a full sort have in common: where they log, how they are watched."""

import time
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from spikecanary import sentinel
from spikecanary.config import ForecastSettings, PreflightSettings, RetrySettings, WatchdogSettings
from spikecanary.sorter import SortTask
from spikecanary.supervise.run import Supervision
from spikecanary.supervise.watchdogs import make_watchdogs

#: A job ends itself this much before its time limit, so that it can say why: at most s, and share.
MARGIN = (60.0, 0.05)


def job_limit(requested: float | None, most: float) -> float | None:
    """Return what a sort may use: with a batch system what its job requested, else the most.

    A request is a forecast, and no reason to end a sort that the machine can bear.
    """
    return requested if sentinel.is_job_of_scheduler() else max(requested or 0, most)


@dataclass(frozen=True)
class Job:
    """What a job is given besides its task; settings may be plain data."""

    log: Path
    preflight: PreflightSettings = field(default_factory=PreflightSettings)
    watchdogs: WatchdogSettings = field(default_factory=WatchdogSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)
    forecast: ForecastSettings = field(default_factory=ForecastSettings)
    signatures: Path | None = None  # the laboratory's own table of failures
    mem_mb: float | None = None  # that the job asked for; None: no limit
    runtime_min: float | None = None  # ... from ``started`` on; None: no limit
    scratch: str | None = None  # where to work; None: in the results folder
    attempt: int = 1  # Snakemake's number of this try at the job
    recorded_settings: dict[str, Any] = field(default_factory=dict)  # noted in the record
    started: float = field(default_factory=time.monotonic)

    def supervision(self, task: SortTask, folder: Path, inactivity_s: float | None) -> Supervision:
        """Return how this job's next child process is watched, for a recording's results folder.

        ``inactivity_s`` is the longest time without a sign of life; None: no limit.
        """
        return Supervision(
            log=self.log,
            threads=task.n_jobs,
            watchdogs=make_watchdogs(
                self.watchdogs,
                inactivity_s=inactivity_s,
                wall_s=self.left_s(),
                mem_mb=self.mem_mb,
            ),
            folders=[folder.absolute()],
            with_containers=task.sorter.container == "docker",
            signatures=self.signatures,
        )

    def left_s(self) -> float | None:
        """Return the time left for this job, less a margin to end well."""
        if self.runtime_min is None:
            return None
        runtime_s = 60 * self.runtime_min
        longest_s, share = MARGIN
        spent_s = time.monotonic() - self.started
        return max(1.0, runtime_s - min(longest_s, share * runtime_s) - spent_s)
