"""Rule demo_recordings: write the demo's recordings, seeded, with their ground truth."""

from pathlib import Path

from spikecanary.supervise import log

N_CHANNELS = 16
N_UNITS = 8
RATE_HZ = 30_000.0
NOISE_UV = 5.0
#: Recordings with spikes: seed and length in s.
ACTIVE = {"healthy": (7, 60.0), "short": (13, 18.0), "crashing": (9, 60.0)}
SILENT_S = 60.0


if __name__ == "__main__":
    log.configure(snakemake.log[0], rule="demo_recordings")
    from spikeinterface.core import set_global_job_kwargs
    from spikeinterface.generation import (
        NoiseGeneratorRecording,
        generate_ground_truth_recording,
    )

    set_global_job_kwargs(progress_bar=False)

    recordings = Path(snakemake.output.recordings)
    truth = Path(snakemake.output.truth)
    noise = {"noise_levels": NOISE_UV, "strategy": "on_the_fly"}
    for name, (seed, duration_s) in ACTIVE.items():
        recording, sorting = generate_ground_truth_recording(
            durations=[duration_s],
            sampling_frequency=RATE_HZ,
            num_channels=N_CHANNELS,
            num_units=N_UNITS,
            generate_unit_locations_kwargs={"minimum_distance": 15.0, "margin_um": 5.0},
            noise_kwargs=noise,
            seed=seed,
        )
        recording.save(folder=recordings / name, dtype="int16")
        sorting.save(folder=truth / name)
    silent = NoiseGeneratorRecording(
        num_channels=N_CHANNELS,
        sampling_frequency=RATE_HZ,
        durations=[SILENT_S],
        dtype="float32",
        seed=10,
        **noise,
    )
    silent.set_probegroup(recording.get_probegroup())
    silent.save(folder=recordings / "silent", dtype="int16")
