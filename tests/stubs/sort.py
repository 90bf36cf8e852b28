"""Stands in for scripts/sort.py: obeys the sentinel, fails where world.json says so."""

import json
from pathlib import Path

recording, path = snakemake.wildcards.recording, Path(snakemake.output.record)
world, params = json.loads(Path("world.json").read_text()), snakemake.params
canary = json.loads(Path(snakemake.input.sentinel).read_text())
with Path("order.log").open("a") as file:
    file.write(f"sort {recording}\n")
if canary["verdict"] == "stop" and not params.batch["forced"]:
    raise SystemExit(f"{recording}: its canary says stop")
wanted = world.get(recording, "sorted")
record = {
    **canary,
    "outcome": wanted if wanted == "unsortable" else "sorted",
    "verdict": "proceed",
    "n_units": 0 if wanted == "unsortable" else 3,
    "forced": params.batch["forced"],
    "settings": {name: params[name] for name in ("version", "task", "data")},
    "canary_settings": {**canary["settings"], "attempt": canary["attempt"]},
}
if wanted == "fails":
    with path.with_name("attempts.jsonl").open("a") as journal:
        journal.write(json.dumps({**record, "kind": "sort", "outcome": "failed"}) + "\n")
    raise SystemExit(f"{recording}: failed")
Path(snakemake.log[0]).write_text(f"{snakemake.resources.runtime} min")
Path(snakemake.output.sorting).mkdir()
path.write_text(json.dumps(record))
