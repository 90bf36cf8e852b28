"""Stands in for the scripts of outputs: writes what is declared."""

from pathlib import Path

recording, rule = snakemake.wildcards.recording, snakemake.rule
with Path("order.log").open("a") as file:
    file.write(f"{rule} {recording}\n")
for path in map(Path, snakemake.output):
    if path.suffix in (".tsv", ".npz") or path.name == ".exported":
        path.write_text("unit\tlabel\n")
    elif path.suffix == ".png":
        path.write_bytes(b"")
    else:
        path.mkdir()
        (path / "a.png").write_bytes(b"")
