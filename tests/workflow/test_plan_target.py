"""`snakemake plan`: a target of its own that runs nothing else."""

import pandas as pd
import pytest

pytestmark = pytest.mark.medium


def test_plan(project):
    project.add("good", duration_s=9.0)
    project.add("missing", path="/no/such.raw")
    run = project.run("plan")
    assert run.returncode == 0, run.output
    assert run.jobs() == {"plan": 1}
    assert "/no/such.raw does not exist" in run.output
    assert "2 recordings: 1 canary + sort, 1 canary" in run.output
    table = pd.read_csv(project.result("plan.tsv"), sep="\t", index_col="recording")
    assert table.loc["good", "action"] == "canary + sort"
    assert sorted(path.name for path in project.result().iterdir()) == ["plan.tsv"]
    assert project.run().returncode == 1
    assert project.run("plan").returncode == 0
    table = pd.read_csv(project.result("plan.tsv"), sep="\t", index_col="recording")
    assert table["action"].to_dict() == {"good": "done", "missing": "canary"}
