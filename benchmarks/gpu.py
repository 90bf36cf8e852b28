"""Check the whole path with Kilosort 4 on an NVIDIA GPU, and print a table to send.

Beside machine.py's recordings one is sorted with so little GPU memory that smaller batches have
to be tried. Takes ten minutes.

    python benchmarks/gpu.py
"""

import argparse
import json
import sys

from machine import Machine, check

SETTINGS = {"name": "kilosort4", "device": "cuda", "params": {"nblocks": 0}}
#: The share of the memory, beyond what PyTorch holds anyway, that the narrow sort may use.
SHARE = 0.6
PLUGIN = """
from spikeinterface.sorters.external.kilosort4 import Kilosort4Sorter


class LittleMemory(Kilosort4Sorter):
    sorter_name = "kilosort4_little_memory"

    @classmethod
    def _run_from_folder(cls, sorter_output_folder, params, verbose):
        import torch

        total = torch.cuda.get_device_properties(0).total_memory / 1e6
        torch.cuda.set_per_process_memory_fraction({allowed_mb} / total)
        super()._run_from_folder(sorter_output_folder, params, verbose)
"""


def sort_with_little_memory(machine: Machine) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Sort once more with less GPU memory than it took."""
    results = machine.folder / "results"
    used_mb = json.loads((results / "healthy/sort.json").read_text())["measured"]["peak_vram_mb"]
    if not used_mb:
        return {}, ["healthy: no GPU memory was measured; was the GPU used?"]
    (machine.folder / "plugin.py").write_text(PLUGIN.format(allowed_mb=SHARE * used_mb))
    narrow = {"plugin": "plugin.py", "params_of": {"kilosort4_little_memory": SETTINGS["params"]}}
    machine.config["sorter"] |= narrow
    machine.add("little_memory", "healthy", "kilosort4_little_memory")
    row = machine.run()["little_memory"]
    retried = row["sort"] == "sorted" and "memory was not enough" in row["warnings"]
    wrong = [] if retried else [f"little_memory: no retry with smaller batches: {row['reason']}"]
    return {"little_memory": row}, wrong


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.exit(check(SETTINGS, sort_with_little_memory))
