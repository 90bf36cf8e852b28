"""Check how the demo's recordings ended: ``python config/demo/verdicts.py DEMO``.

`make demo` ends with this, since snakemake itself ends with 1: `missing` needs attention, which is
missing on purpose. Exit status 1 where a recording did not end as it should.
"""

import csv
import sys
from pathlib import Path

#: Of each recording: the canary's verdict and outcome, and how the sort ended.
EXPECTED = {
    "healthy": ["proceed", "passed", "sorted"],
    "silent": ["stop", "stopped", "stopped"],
    "missing": ["stop", "stopped", "stopped"],
    "short": ["proceed", "skipped", "sorted"],
    "crashing": ["proceed", "unexpected", "sorted"],
}

with Path(sys.argv[1], "results/summary.tsv").open(encoding="utf-8") as file:
    rows = list(csv.DictReader(file, delimiter="\t"))
ended = {row["recording"]: [row["verdict"], row["outcome"], row["sort"]] for row in rows}
if ended != EXPECTED:
    sys.exit(f"The demo did not end as it should: {ended}")
print("\nEach recording ended as it should (`missing` is missing on purpose).")
