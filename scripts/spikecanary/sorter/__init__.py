"""Run one sorter once through SpikeInterface: what is sorted, with what, and how."""

import contextlib
import gc
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict

from spikecanary import sentinel, signals
from spikecanary.config import Config, SorterSettings, Steps, as_set
from spikecanary.failures import SorterParameterError
from spikecanary.recording import (
    cut_window,
    describe_header,
    is_plain,
    open_recording,
    preprocess,
)
from spikecanary.sorter import registry, sorteroutput
from spikecanary.table import Recording
from spikecanary.texts import as_yaml

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording

#: A window must have at least so many batches: one alone fails as NaN data do.
LEAST_BATCHES = 2.5
#: Lines of a sorter's own log that are read, from its end.
MOST_LOG_LINES = 2000
#: What sorters without batches are taken to need of activity, in s.
LEARN_S = 2.0


class NoGoodUnitsError(RuntimeError):
    """A sort ended well, and all its units are to be left out: no word of the data."""


class SortTask(BaseModel):
    """All that decides whether a sort can start, and what comes out of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: Recording
    sorter: SorterSettings
    preprocessing: Steps = {}
    silence_bad_periods: bool = False
    n_jobs: int = 1
    window_s: tuple[float, float] | None = None  # of a canary's clone, in s; nothing else differs

    def as_set(self) -> dict[str, Any]:
        """Return what a user set, as plain data; the sorter's name always."""
        # As records have it, which are compared: steps are there also where there are none.
        found = {"preprocessing": [], **as_set(self, exclude={"n_jobs", "window_s"})}
        return found | {"sorter": {**found.get("sorter", {}), "name": self.sorter.name}}

    @property
    def n_readers(self) -> int:
        """How many processes read: one at a URL, since forked ones would share its connections."""
        return 1 if self.row.is_remote else self.n_jobs

    @property
    def suspects(self) -> str:
        """What to look at where the sorter misses activity, and nothing explains it."""
        values = ", ".join(f"{name}: {value}" for name, value in self.sorter.params.items())
        params = f"the parameters that are set ({values})" if values else "the sorter's parameters"
        return f"Look at {params}, the probe and the gain."

    def learn_s(self, rate_hz: float) -> float:
        """Length in s of what the sorter first learns from: a batch, or what is taken for one."""
        return self.batch_s(rate_hz) or LEARN_S

    def batch_s(self, rate_hz: float) -> float | None:
        """Length in s of what one batch is read from; None for sorters without batches."""
        if self.sorter.name not in registry.BATCHES:
            return None
        size, every = (
            self._number(param, default) for param, default in registry.BATCHES[self.sorter.name]
        )
        return size * every / self.handed(0, rate_hz)[1]

    def handed(self, n_samples: int, rate_hz: float) -> tuple[int, float]:
        """Return how many samples the sorter is handed of so many, and their rate in Hz."""
        handed_hz = rate_hz
        for step, params in self.preprocessing.items():
            if step == "resample":
                handed_hz = params.get("resample_rate", handed_hz)
            elif step == "decimate":
                handed_hz /= params.get("decimation_factor", 1)
        return round(n_samples * handed_hz / rate_hz), handed_hz

    def _number(self, param: str, default: int) -> int:
        """Return a parameter that is a whole number; its default where it is none (null, [9])."""
        try:
            return int(self.sorter.params[param]) or default
        except (KeyError, TypeError, ValueError, OverflowError):
            return default

    def check_length(self, n_samples: int, rate_hz: float) -> SorterParameterError | None:
        """Return why a recording is too short for its sorter, whose sort is certain to fail.

        Kilosort 4.1.7 drops a last batch of under ``nt`` samples, reads every
        ``batch_downsampling``-th batch, and whitens by all of them but the last (get_whitening):
        of one alone comes NaN. Tried: 60,060 samples fail and 60,061 do not.
        """
        name = self.sorter.name
        if name != "kilosort4" or self.sorter.params.get("skip_kilosort_preprocessing"):
            return None
        n_samples, _ = self.handed(n_samples, rate_hz)
        batch, every = (self._number(*each) for each in registry.BATCHES[name])
        param = registry.BATCHES[name][0][0]
        if n_samples >= (2 * every - 1) * batch + self._number("nt", 61):
            return None
        smaller = int(n_samples / every / LEAST_BATCHES)
        remedy = f"Set {self.alone(param, smaller)}. Or remove its row from the table."
        if smaller < registry.MEMORY_KNOBS[name][-1]:
            remedy = f"It is too short for any {param}: remove its row from the table."
        msg = (
            f"{n_samples:,} samples are fewer than two batches of {name} ({param}: {batch:,} each)"
        )
        return SorterParameterError(msg, remedy=remedy, sorter=name, parameter=param)

    def alone(self, param: str, value: Any) -> str:
        """Say how to set a parameter of the sorter for this recording alone."""
        entry = as_yaml(self.row.params or self.row.id)
        return (
            f"params_of: {{{entry}: {{{param}: {value}}}}} in the config, and {entry} in its "
            "column params"
        )

    def with_less_memory(self, factor: float) -> "SortTask | None":
        """Clone this task with smaller batches; None where the sorter has no such parameter."""
        if self.sorter.name not in registry.MEMORY_KNOBS:
            return None
        param, default, multiple, least = registry.MEMORY_KNOBS[self.sorter.name]
        now = self._number(param, default)
        smaller = max(least, int(now * factor) // multiple * multiple)
        if smaller >= now:
            return None
        params = {**self.sorter.params, param: smaller}
        return self.model_copy(update={"sorter": self.sorter.model_copy(update={"params": params})})

    def digest(self) -> str:
        """Digest of the sorter, its parameters and the preprocessing (16 hex of SHA-256)."""
        decisive = {name: value for name, value in self.as_set().items() if name != "row"}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def make_task(row: Recording, config: Config) -> SortTask:
    """Return the full sort of one recording by the config."""
    # No part of a sort, or in it by another name.
    elsewhere: dict[str, Any] = {"metadata": {}} | dict.fromkeys(
        ("line", "sorter", "preprocessing", "params")
    )
    settings = settings_for(row.sorter or config.sorter.name, config.sorter)
    if row.params:
        params = settings.params | config.params_of[row.params]
        settings = settings.model_copy(update={"params": params})
    named = config.preprocessing_of
    return SortTask(
        row=row.model_copy(update=elsewhere),
        sorter=settings,
        preprocessing=named[row.preprocessing] if row.preprocessing else config.preprocessing,
        silence_bad_periods=config.canary.bad_periods == "silence",
    )


def settings_for(name: str, settings: SorterSettings) -> SorterSettings:
    """Return the settings of one of the batch's sorters.

    ``params`` belong to the config's sorter, ``params_of`` to the others, the plugin to
    sorters that SpikeInterface does not have.
    """
    params = settings.params if name == settings.name else settings.params_of.get(name, {})
    plugin = None if name in registry.BUILT_IN else settings.plugin
    update = {
        "name": name,
        "params": params,
        "params_of": {},
        "plugin": plugin,
        "keep_output": SorterSettings().keep_output,  # of the files, not of what comes out
    }
    return settings.model_copy(update=update)


def sort(
    task: SortTask, folder: Path, tell: Callable[..., None], finished: Path | None = None
) -> dict[str, Any]:
    """Sort one recording, or a window of it; for a supervised child process.

    The one function behind the canary and the full sort. Leaves a SpikeInterface
    sorting folder in ``folder/sorting`` and the sorter's own folder in ``folder/sorter``.

    ``folder`` exists and is empty. ``tell`` takes each stage as it begins, and facts that are
    wanted even if the sort fails. Where ``finished`` names a folder that
    :mod:`~spikecanary.sorter.sorteroutput` keeps, what a sorter wrote for this very task, that is
    read, and nothing is sorted.

    Returns
    -------
    dict
        ``n_units`` and ``n_spikes``; ``n_before`` and ``n_beyond``: spikes out of the recording.
    """
    tell(stage="load")
    from spikeinterface.core import set_global_job_kwargs
    from spikeinterface.sorters import read_sorter_folder

    set_global_job_kwargs(n_jobs=task.n_readers, progress_bar=False)
    parts: list[sentinel.Part] = []
    recording = open_recording(task.row, parts=parts if task.window_s is None else None)
    tell(header=describe_header(recording), parts=parts)
    if task.sorter.plugin:
        registry.load_plugin(task.sorter.plugin)
    work = folder / "sorter"
    if finished is None:
        _run_sorter(task, recording, work, tell)
    else:
        params = {**registry.defaults_of(task.sorter.name), **task.sorter.params}
        wanted = params.get(sorteroutput.KEEP_GOOD_ONLY)
        sorteroutput.lay_out(finished, work, keep_good_only=wanted)
    tell(n_samples_after=open_recording(task.row).get_num_samples())
    tell(stage="read")
    ran_with = (work / "spikeinterface_params.json").read_text(encoding="utf-8")
    # With defaults; infinity as a text.
    params = json.loads(ran_with, parse_constant=str).get("sorter_params") or {}
    tell(sorter_params=params)
    # Registering a recording fails, as saving does, where Kilosort's reader has no units.
    sorting = cast("Any", read_sorter_folder(work, register_recording=False))
    tell(stage="save")
    n_units = len(sorting.get_non_empty_unit_ids()) if len(sorting.unit_ids) else 0
    if not n_units:
        if params.get(sorteroutput.KEEP_GOOD_ONLY) and not len(sorting.unit_ids):
            msg = (
                f"SpikeInterface finds nothing to read in what {task.sorter.name} wrote: "
                "keep_good_only is true, and no unit is labelled good. Set sorter.params: "
                "keep_good_only: false"
            )
            raise NoGoodUnitsError(msg)
        sorteroutput.save_empty(folder / "sorting", recording.get_sampling_frequency())
        return {"n_units": 0, "n_spikes": 0}
    sorting.save(folder=folder / "sorting")
    samples = sorting.to_spike_vector()["sample_index"]
    sorted_ = recording if task.window_s is None else cut_window(recording, *task.window_s)
    n_handed, _ = task.handed(sorted_.get_num_samples(), recording.get_sampling_frequency())
    return {
        "n_units": n_units,
        "n_spikes": len(samples),
        "n_before": int((samples < 0).sum()),
        "n_beyond": int((samples >= n_handed).sum()),
    }


def prepare(recording: "BaseRecording", task: SortTask) -> "BaseRecording":
    """Cut out the task's window, preprocess, and silence bad periods if that is wished, lazily."""
    start_s, window = 0.0, recording
    if task.window_s is not None:
        start_s, window = task.window_s[0], cut_window(recording, *task.window_s)
    prepared = preprocess(window, task.preprocessing)
    if prepared.is_binary_compatible() and not is_plain(prepared):
        prepared = prepared.frame_slice(0, prepared.get_num_samples())  # of which a copy is made
    if not task.silence_bad_periods:
        return prepared
    return signals.silence(
        prepared,
        signals.check(recording, whole=False, remote=task.row.is_remote).bad_periods,
        start_s,
    )


def _run_sorter(task: SortTask, recording: Any, folder: Path, tell: Callable[..., None]) -> None:
    """Preprocess and sort; the sorter leaves its files in a folder."""
    from spikeinterface.sorters import run_sorter

    tell(stage="preprocess")
    recording = prepare(recording, task)
    if not recording.is_binary_compatible():
        tell(copied_mb=recording.get_total_memory_size() / 1e6)
    tell(stage="sort")
    settings = task.sorter
    cls = registry.sorter_class(settings.name, container=settings.container is not None)
    params = registry.with_device(registry.defaults_of(settings.name), settings)
    params.pop("verbose", None)  # herdingspikes has one of its own, which is set below
    with contextlib.suppress(Exception):  # every sorter has its own way, and its own errors
        tell(sorter_version=str(cls.get_sorter_version()))
    # SpikeInterface collects garbage after each second that it copies for the sorter: with torch
    # and numba in memory 0.2 s each time, unless what is there by now is left out.
    gc.freeze()
    try:
        with _time_of_compilation(tell):
            run_sorter(
                settings.name,
                recording,
                folder=str(folder),
                verbose=True,
                with_output=False,
                **container_arguments(settings),
                **params,
            )
    except Exception:
        tell(sorter_log=_read_sorter_log(folder))
        with contextlib.suppress(ImportError, LookupError, TypeError):  # of another Kilosort
            tell(out_of_range=registry.find_out_of_range(settings))
        raise
    tell(sorter_ended_well=True)


def _time_of_compilation(tell: Callable[..., None]) -> contextlib.AbstractContextManager[Any]:
    """Tell how long numba compiled, unless the sorter does without it here."""
    try:
        from numba.core import event
    except ImportError:
        return contextlib.nullcontext()
    return event.install_timer("numba:compile", lambda time_s: tell(compile_s=time_s))


def _read_sorter_log(folder: Path) -> str:
    """Return the last lines of what SpikeInterface kept of the sorter's own log."""
    try:
        log = json.loads((folder / "spikeinterface_log.json").read_text(encoding="utf-8"))
        return "\n".join(log["runtime_trace"][-MOST_LOG_LINES:])
    except (OSError, ValueError, KeyError):
        return ""


def container_arguments(settings: SorterSettings) -> dict[str, bool | str]:
    """Return ``run_sorter``'s arguments for the container."""
    if settings.container is None:
        return {}
    return {f"{settings.container}_image": settings.image or True}
