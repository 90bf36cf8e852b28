"""Failure classes: those of the design, their evidence."""

import pytest
from pydantic import ValidationError

from spikecanary import failures

DESIGN = {
    "biological": "InsufficientActivityError NoGoodChannelsError SaturatedSignalError "
    "NonFiniteSignalError EmptyWaveformMetricsError",
    "environment": "ConcurrentSortError HDF5PluginMissingError ContainerEnvironmentError "
    "SorterUnavailableError GPUUnavailableError MatlabRuntimeError ModelLoadingError "
    "FolderNotWritableError DependencyError RecordingUnreadableError RecordingLayoutError "
    "PreprocessingError SorterParameterError SettingsError",
    "resource": "GPUOutOfMemoryError SorterTimeoutError DiskExhaustionError IOStallError "
    "HostMemoryWatchdogError GpuMemoryWatchdogError GpuThermalWatchdogError "
    "CapacityForecastError",
}


@pytest.mark.parametrize("category", DESIGN)
def test_classes_of_the_design(category):
    named = {n for n, c in failures.all_classes().items() if c.category == category}
    assert named == set(DESIGN[category].split())


@pytest.mark.parametrize("cls", failures.all_classes().values())
def test_every_class_has_a_remedy_of_one_line(cls):
    assert cls.remedy.endswith(".")
    assert "\n" not in cls.remedy
    assert cls.__doc__


def test_evidence_is_typed():
    failure = failures.InsufficientActivityError("too few", n_spikes="3")
    assert failure.evidence == {"n_spikes": 3}
    assert str(failure) == "too few"
    with pytest.raises(KeyError, match="spikes"):
        failures.InsufficientActivityError("too few", spikes=3)
    with pytest.raises(ValidationError):
        failures.ContainerEnvironmentError("docker", reason="bad mood")
