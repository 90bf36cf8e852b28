"""What is looked at before a sort, in one child process: header, node, signal."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spikecanary import preflight, signals
from spikecanary.config import CanarySettings, PreflightSettings
from spikecanary.recording import describe_header, open_recording
from spikecanary.sorter import LEAST_BATCHES, SortTask


def look(
    task: Mapping[str, Any],
    folder: str,
    limits: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
    tell: Callable[..., None],
) -> dict[str, Any]:
    """Open a recording, check the node, and for a canary the signal too.

    Parameters
    ----------
    task : dict
        A dumped :class:`SortTask`.
    folder : str
        Where results go.
    limits : dict
        A dumped :class:`PreflightSettings`.
    settings : dict or None
        A dumped :class:`CanarySettings`; None: of a full sort, for which the signal is not
        looked at, and nothing is too short.

    Returns
    -------
    dict
        ``header``; ``skip``: why there is no canary, or None; ``window_s``: the length of
        the window; ``preflight``: checks that found something; ``signals``: the
        :class:`spikecanary.signals.SignalReport`. What was not looked at is missing.

    Raises
    ------
    RecordingUnreadableError
        The recording cannot be opened.
    """
    what = SortTask.model_validate(task)
    recording = open_recording(what.row)
    header = describe_header(recording)
    tell(header=header)
    found: dict[str, Any] = {"header": header, "skip": None}
    canary = None if settings is None else CanarySettings.model_validate(settings)
    if canary is not None:
        found |= _fit_window(what, canary, header)
        if found["skip"]:
            return found
    checks = preflight.run(what, Path(folder), PreflightSettings.model_validate(limits), header)
    found["preflight"] = checks
    if canary is not None and not any(check["level"] == "fail" for check in checks):
        found["signals"] = asdict(signals.check(recording, canary.signals))
    return found


def _fit_window(task: SortTask, settings: CanarySettings, header: dict[str, Any]) -> dict[str, Any]:
    """Decide on the window's length, or why there is no canary.

    A window of one batch of the sorter is no evidence (it fails as NaN data do), so it is
    made longer.
    """
    duration_s = header["duration_s"]
    window_s = settings.window_s
    name = "the canary's window"
    batch_s = task.batch_s(header["sampling_frequency_hz"])
    if batch_s is not None and window_s < LEAST_BATCHES * batch_s:
        window_s = LEAST_BATCHES * batch_s
        name = f"{LEAST_BATCHES:g} batches of {task.sorter.name}"
    for needed_s, what in ((window_s, name), (settings.min_recording_s, "canary.min_recording_s")):
        if duration_s < needed_s:
            return {"skip": f"no canary: {duration_s:.2f} s are less than {what}, {needed_s:g} s"}
    return {"window_s": window_s}
