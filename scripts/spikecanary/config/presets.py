"""Preprocessing by name, which rows of the recordings table can choose."""

from typing import Any

#: Named preprocessing. Neuropixels: as in SpikeInterface's tutorial of Neuropixels and
#: aind-ephys-pipeline (samples aligned to one instant; slow waves and what all channels share taken
#: out). The four channels of a tetrode see the same spikes, so what they share stays.
PREPROCESSING: dict[str, dict[str, dict[str, Any]]] = {
    "neuropixels1": {
        "phase_shift": {},
        "highpass_filter": {"freq_min": 300.0},
        "common_reference": {},
    },
    "neuropixels2": {
        "phase_shift": {},
        "bandpass_filter": {"freq_min": 300.0, "freq_max": 6000.0},
        "common_reference": {},
    },
    "tetrodes": {"bandpass_filter": {"freq_min": 300.0, "freq_max": 6000.0}},
    "mea": {"bandpass_filter": {"freq_min": 300.0, "freq_max": 6000.0}, "common_reference": {}},
    "mea_unsigned": {
        "unsigned_to_signed": {},
        "bandpass_filter": {"freq_min": 300.0, "freq_max": 6000.0},
        "common_reference": {},
    },
    "none": {},
}
