"""A sorter plugin: SpikeInterface's Spyking Circus 2, with a bug in short recordings.

Its canary fails in a way that nobody knows: the verdict is *proceed*, marked
*unexpected*, and the full sort goes well.
"""

from spikeinterface.sorters.internal.spyking_circus2 import Spykingcircus2Sorter

SHORT_S = 30.0


class CrashingSorter(Spykingcircus2Sorter):
    """Sorts as `spykingcircus2` does, but raises in recordings of less than SHORT_S."""

    sorter_name = "crashing"

    @classmethod
    def _run_from_folder(cls, sorter_output_folder, params, verbose):
        recording = cls.load_recording_from_folder(sorter_output_folder.parent)
        if recording.get_total_duration() < SHORT_S:
            msg = "list index out of range, says the demo's crashing sorter"
            raise IndexError(msg)
        super()._run_from_folder(sorter_output_folder, params, verbose)
