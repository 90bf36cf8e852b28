"""Stands in for scripts/canary.py: writes the verdict that world.json gives, and sorts nothing."""

import json
from pathlib import Path

recording, sentinel = snakemake.wildcards.recording, Path(snakemake.output.sentinel)
world = json.loads(Path("world.json").read_text())
with Path("order.log").open("a") as file:
    file.write(f"canary {recording}\n")
wanted = world.get(recording, "passed")
if wanted == "killed" and snakemake.resources.attempt == 1:
    raise SystemExit(137)
if wanted == "interrupted":
    raise SystemExit(143)
stopped = wanted in ("biological", "environment", "resource")
params = snakemake.params
record = {
    "schema_version": 1,
    "recording": recording,
    "verdict": "stop" if stopped else "proceed",
    "outcome": "stopped" if stopped else "passed",
    "reason": wanted,
    "failure": {"class": "X", "category": wanted, "message": "m", "remedy": "r"}
    if stopped
    else None,
    "sorter": {"name": "stub", "params_digest": "0"},
    "n_units": 3,
    "attempt": params.attempt,
    "settings": {name: params[name] for name in ("task", "data", "settings")},
    "started_at": "2026-01-01T00:00:00+00:00",
    "finished_at": "2026-01-01T00:00:01+00:00",
}
sentinel.write_text(json.dumps(record))
with sentinel.with_name("attempts.jsonl").open("a") as journal:
    journal.write(json.dumps({"kind": "canary", **record}) + "\n")
