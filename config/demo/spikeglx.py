"""Write the tutorial's raw data: a SpikeGLX run of a Neuropixels 1.0 probe with seeded spikes.

python config/demo/spikeglx.py FOLDER
"""

import sys
from pathlib import Path

N_CHANNELS = 16
N_UNITS = 8
RATE_HZ = 30_000
DURATION_S = 70
RUN = "m1_day1"
#: What one step of the converter is: 1.2 V in 1,024 steps, amplified 500 times.
UV_PER_STEP = 1.2e6 / 1024 / 500

META = """acqApLfSy=384,384,1
fileCreateTime={created}
fileName=D:/{name}.bin
fileSizeBytes={size}
fileTimeSecs={seconds}
firstSample=0
imAiRangeMax=0.6
imAiRangeMin=-0.6
imDatPrb_pn=PRB_1_4_0480_1_C
imDatPrb_port=1
imDatPrb_slot=2
imDatPrb_sn=22176116182
imDatPrb_type=0
imMaxInt=512
imSampRate={rate}
nSavedChans={saved}
snsApLfSy={counts}
snsSaveChanSubset={subset},768
syncSourceIdx=0
typeThis=imec
~imroTbl=(0,384){sites}
~snsChanMap=(384,384,1){names}(SY0;768:{channels})
"""


def describe(
    name: str, n_samples: int, n_channels: int, created: str, size: int | None = None
) -> str:
    """Return the header of a file of SpikeGLX, of its AP band, or LF by its name, and SYNC."""
    is_lf = name.endswith("lf")
    first, kind, rate_hz = (384, "LF", 2_500) if is_lf else (0, "AP", RATE_HZ)
    return META.format(
        name=name,
        created=created,
        size=n_samples * (n_channels + 1) * 2 if size is None else size,
        seconds=n_samples / rate_hz,
        rate=rate_hz,
        saved=n_channels + 1,
        counts=f"0,{n_channels},1" if is_lf else f"{n_channels},0,1",
        subset=",".join(str(first + n) for n in range(n_channels)),
        sites="".join(f"({site} 0 0 500 250 1)" for site in range(384)),
        names="".join(f"({kind}{n};{n}:{n})" for n in range(n_channels)),
        channels=n_channels,
    )


def main(folder: Path) -> None:
    """Write one run of one probe below a folder."""
    import numpy as np
    from probeinterface import read_spikeglx
    from spikeinterface.generation import generate_ground_truth_recording

    place = folder / f"{RUN}_g0" / f"{RUN}_g0_imec0"
    place.mkdir(parents=True)
    name = f"{RUN}_g0_t0.imec0.ap"
    n_samples = DURATION_S * RATE_HZ
    meta = place / f"{name}.meta"
    meta.write_text(describe(name, n_samples, N_CHANNELS, "2026-01-02T03:04:05"))
    recording, _ = generate_ground_truth_recording(
        durations=[DURATION_S],
        sampling_frequency=RATE_HZ,
        probe=read_spikeglx(meta),
        num_units=N_UNITS,
        generate_unit_locations_kwargs={"minimum_distance": 15.0, "margin_um": 5.0},
        noise_kwargs={"noise_levels": 8.0, "strategy": "on_the_fly"},
        seed=4,
    )
    with meta.with_suffix(".bin").open("wb") as file:
        for start in range(0, n_samples, RATE_HZ):
            pieces = recording.get_traces(start_frame=start, end_frame=start + RATE_HZ)
            steps = np.round(pieces / UV_PER_STEP).clip(-512, 511)
            np.pad(steps, ((0, 0), (0, 1))).astype("int16").tofile(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
