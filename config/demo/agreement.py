"""Check the demo's verdicts, and print how well its sortings agree with the ground truth.

``python config/demo/agreement.py DEMO`` with the demo's folder, after ``make demo``. Exit status 1
where a recording did not end as it should; snakemake itself ends with 1, since `missing`, which is
missing on purpose, needs somebody.
"""

import sys
from pathlib import Path

import pandas as pd
from spikeinterface.comparison import compare_sorter_to_ground_truth
from spikeinterface.core import load

#: Of each recording: the canary's verdict and outcome, and how the sort ended.
EXPECTED = {
    "healthy": ["proceed", "passed", "sorted"],
    "silent": ["stop", "stopped", "stopped"],
    "missing": ["stop", "stopped", "stopped"],
    "short": ["proceed", "skipped", "sorted"],
    "crashing": ["proceed", "unexpected", "sorted"],
}


def main(demo: Path) -> None:
    """Check, and print the table; well detected means an accuracy of 0.8 or more."""
    summary = pd.read_csv(demo / "results/summary.tsv", sep="\t", dtype=str, keep_default_na=False)
    ended = summary.set_index("recording")[["verdict", "outcome", "sort"]].T.to_dict("list")
    if ended != EXPECTED:
        sys.exit(f"The demo did not end as it should: {ended}")
    print("\nEach recording ended as it should (`missing` is missing on purpose).")
    print("\nAgreement with the ground truth (compare_sorter_to_ground_truth):")
    rows = []
    for recording in summary.loc[summary["sort"] == "sorted", "recording"]:
        truth = load(demo / "truth" / recording)
        sorting = load(demo / "results" / recording / "sorting")
        comparison = compare_sorter_to_ground_truth(truth, sorting, exhaustive_gt=True)
        accuracy = comparison.get_performance()["accuracy"].astype(float)
        rows.append(
            {
                "recording": recording,
                "sorter": summary.set_index("recording").loc[recording, "sorter"],
                "true units": len(truth.unit_ids),
                "units": len(sorting.unit_ids),
                "well detected": int((accuracy >= 0.8).sum()),
                "median accuracy": round(accuracy.median(), 3),
            }
        )
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
