"""A stranger's workflow imports ours with a prefix, other folders and its own last rule."""

import shutil

import yaml

from workbench import ROOT, snakemake


def test_imported_as_a_module(project):
    project.add("good")
    project.add("silent", sorter="silent_always")
    project.write()
    for name in ("Snakefile", "env.yaml"):
        shutil.copy(ROOT / "tests/workflow/importer" / name, project.folder)
    config = {"spikecanary": project.config}
    (project.folder / "config.yaml").write_text(yaml.safe_dump(config))

    plan = snakemake(project.folder, "-n")
    assert plan.returncode == 0, plan.output
    assert plan.jobs()["sc_canary"] == plan.jobs()["sc_sort"] == 2
    run = snakemake(project.folder)
    assert run.returncode == 0, run.output
    assert run.jobs() == {
        "sc_canary": 2,
        "sc_gate": 2,
        "sc_sort": 1,
        "sc_wave_summary": 2,
        "sc_summary": 1,
        "count_units": 1,
    }
    assert (project.folder / "counts/good.txt").read_text() == "4\n"
    assert (project.folder / "sorted/logs/sort/good.log").exists()
    assert not project.result().exists()
    assert snakemake(project.folder).nothing_to_do
