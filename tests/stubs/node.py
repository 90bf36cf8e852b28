"""Stands in for scripts/node.py: a machine that can run a sorter, or cannot, as the world says."""

import json
import sys
from pathlib import Path

sorter = snakemake.wildcards.sorter
with Path("order.log").open("a") as file:
    file.write(f"node {sorter}\n")
if json.loads(Path("world.json").read_text()).get(sorter) == "environment":
    sys.exit(1)
Path(snakemake.output.record).write_text("{}")
