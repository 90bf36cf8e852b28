"""Bad input is found before any job runs, all of it together, with exit status 1."""

import re
import shutil
import subprocess
import sys

import pytest

from engine import Engine
from workbench import ROOT


def test_everything_wrong_is_reported_together(project):
    project.add("good")
    project.add("good")
    project.add("../x")
    project.add("typo", reader="spikeglxx")
    project.add("json", reader_options="{no json")
    project.add("backwards", start_s="5", end_s="2")
    project.add("negative", start_s="-1")
    project.add("hd", sorter="kilosrt4")
    project.config["canry"] = {}
    project.config["canary"] = {"windw_s": 3}
    project.config["sorter"] = {"name": "spykingcircus2", "params": {"detecion": {}}}
    project.config["analysis"] = {"extensions": {"wavforms": {}}}
    run = project.run()
    assert run.returncode == 1
    for expected in (
        "config: canry: unknown key (did you mean 'canary'?)",
        "config: canary.windw_s: unknown key (did you mean 'window_s'?)",
        "config: analysis.extensions: unknown extension 'wavforms' (did you mean 'waveforms'?)",
        "spykingcircus2 has no parameter 'detecion' (did you mean 'detection'?)",
        "recordings.tsv, line 3: recording 'good' is already in line 2",
        "line 4 (recording '../x'), column recording: use letters, digits",
        "line 6 (recording 'json'), column reader_options: not JSON",
        "line 7 (recording 'backwards'): end_s 2 s is not after start_s 5 s",
        "line 8 (recording 'negative'), column start_s: Input should be greater than or equal to 0",
    ):
        assert expected in run.output
    assert not project.result().exists()
    assert not re.search(r"Traceback|Error|\.smk|line \d+,? in", run.output), run.output


def test_names_that_spikeinterface_does_not_have(project):
    project.add("a", reader="spikeglxx", reader_options="")
    project.add("b", reader_options='{"sampling_frequency": 1, "dtyp": "int16"}')
    project.add("c", sorter="kilosrt4")
    project.config["sorter"] = {
        "name": "spykingcircus2",
        "params": {"detecion": {}},
        "params_of": {"kilosort4": {"nblock": 0}},
    }
    project.config["preprocessing"] = {
        "bandpas_filter": {},
        "common_reference": {"operater": 1},
        "highpass_filter": {"freq_minn": 1},  # takes further arguments of a filter
    }
    project.config["canary"]["force"] = ["aa"]
    run = project.run("-n")
    assert run.returncode == 1
    for expected in (
        "line 2 (recording 'a'): unknown reader 'spikeglxx' (did you mean 'spikeglx'?)",
        "(recording 'b'): reader 'binary' has no option 'dtyp' (did you mean 'dtype'?)",
        "(recording 'b'): reader 'binary' needs reader_options with dtype, num_channels",
        "recording 'c': sorter: unknown sorter 'kilosrt4' (did you mean 'kilosort4'?)",
        "spykingcircus2 has no parameter 'detecion' (did you mean 'detection'?)",
        "kilosort4 has no parameter 'nblock' (did you mean 'nblocks'?)",
        "config: preprocessing: unknown step 'bandpas_filter' (did you mean 'bandpass_filter'?)",
        "preprocessing.common_reference: unknown parameter 'operater' (did you mean 'operator'?)",
        "preprocessing.highpass_filter: unknown parameter 'freq_minn' (did you mean 'freq_min'?)",
        "config: canary.force: the table has no recording 'aa' (known: a, b, c",
    ):
        assert expected in run.output


def test_wrong_types(project):
    project.add("good")
    project.config["canary"] = {"window_s": "long", "stop_on": ["biologic"]}
    project.config["gate"] = {"wave_size": 0}
    run = project.run()
    assert run.returncode == 1
    assert "config: canary.window_s: takes a number, got" in run.output
    assert "unknown value 'biologic' (did you mean 'biological'?)" in run.output
    assert "config: gate.wave_size: Input should be greater than 0, got 0" in run.output
    project.config = {"recordings": ["a.tsv"]}
    run = project.run()
    assert "1 problem in the configuration or the table:" in run.output
    assert "config: recordings: takes a text; put it in quotes, got ['a.tsv']" in run.output


def test_missing_column_and_missing_table(project):
    project.add("good")
    del project.rows[0]["path"]
    run = project.run()
    assert run.returncode == 1
    assert "recordings.tsv: column 'path' is missing" in run.output
    project.config["recordings"] = "elsewhere.tsv"
    run = project.run()
    assert "elsewhere.tsv: cannot read the recordings table" in run.output


def test_plugin_that_does_not_register_the_sorter_is_a_verdict(project):
    project.add("good", sorter="mysorter_of_2026")
    run = project.run()
    assert run.returncode == 1, run.output
    verdict = project.sentinel("good")
    assert verdict["failure"]["class"] == "SorterUnavailableError"
    assert "kilosort4" in verdict["failure"]["evidence"]["known"]


def test_target_of_an_unknown_recording(project):
    project.add("session_one")
    run = project.run("results/session_on/canary.json")
    assert run.returncode == 1
    assert "no recording 'session_on' in recordings.tsv (did you mean 'session_one'?)" in run.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"canary: {window_s: [1\njob: 3\n", r'in "config/config.yaml", line 2, column 4'),
        (b"canary:\n\t window_s: 1\n", r'in "config/config.yaml", line 2, column 1'),
        (b"\xff\xfe", "can't decode byte 0xff in position 0: invalid start byte: save it as UTF-8"),
        (b"job:\n  x: 2024-13-45\n", 'month must be in 1..12  in "config/config.yaml", line 2'),
        (b"- 1\n", "config/config.yaml: Config file must be given as JSON or YAML with keys"),
        (b"pathvars: [results]\n", "config/config.yaml: pathvars: takes names and folders"),
        (b"pathvars: {results: 3}\n", "config/config.yaml: Pathvars have to be a mapping"),
        (b"pathvars: {Results: x}\n", "config/config.yaml: Pathvars have to be a mapping"),
        (b"pathvars: {results: <results>}\n", "config/config.yaml: Cyclic pathvar reference"),
        (b"canary: &a {x: *a}\n", "config/config.yaml: Circular reference"),
        (b"pathvars: {logs: config.yaml/x}\n", "pathvars: logs: config.yaml/x does not exist: par"),
        (b"pathvars: {results: " + b"ab" * 150 + b"}\n", "cannot be read (File name too long)"),
    ],
)
def test_config_that_is_no_yaml(project, text, expected):
    project.add("a")
    project.write()
    project.result("..", "config").mkdir(parents=True)
    (project.folder / "config/config.yaml").write_bytes(text)
    run = project.run("-n", write=False)
    assert run.returncode == 1
    assert expected in run.output
    assert not re.search(r"Traceback|Snakefile|\.smk", run.output), run.output


@pytest.mark.parametrize("is_link", [False, True])
def test_config_that_is_not_there(tmp_path, is_link):
    if is_link:
        (tmp_path / "config").mkdir()
        (tmp_path / "config/config.yaml").symlink_to(tmp_path / "gone.yaml")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "-n"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "config/config.yaml cannot be read: create it, or name another" in run.stderr
    assert not re.search(r"Traceback|Snakefile|\.smk", run.stdout + run.stderr)


@pytest.mark.medium
def test_records_that_cannot_be_read_cost_their_own_recordings(tmp_path):
    engine = Engine(tmp_path, "a b c d")
    assert engine.run().status == 0
    engine.result("a/canary.json").write_text('{"schema_ver')
    engine.result("b/sort.json").unlink()
    engine.result("b/sort.json").mkdir()
    engine.result("c/sort.json").write_bytes(b"\xff\xfe")
    engine.result("gates/2.tsv").write_bytes(b"\xff")
    ended = engine.run("--keep-going")
    assert ended.done() == "exit 1"
    assert "Traceback" not in ended.output
    for name in ("a/canary.json", "b/sort.json", "c/sort.json"):
        assert f"results/{name} is not a Spike Canary record" in ended.output
    assert "3 recordings need attention" in ended.output
    shutil.rmtree(engine.result("b/sort.json"))
    for name in ("a/canary.json", "c/sort.json", "gates/2.tsv"):
        engine.result(name).unlink()
    assert engine.run("--keep-going").done() == "sort: b c; exit 0"


ODD_SORTER = """
import sys
sys.path.insert(0, {tests!r})
from quick_sorter import QuickSorter
class Quick2(QuickSorter):
    sorter_name = "quick2"
class Odd(QuickSorter):
    sorter_name = "odd"
    @classmethod
    def _run_from_folder(cls, sorter_output_folder, params, verbose):
        print("\\x1b[31mred", flush=True)
        raise RuntimeError("=1+1 \\ud800 \\x1b[31m\\u202e " + "x" * 131_073)
"""


@pytest.mark.medium
def test_text_that_breaks_tables_and_terminals_costs_its_own_recording(project):
    (project.folder / "odd.py").write_text(ODD_SORTER.format(tests=str(ROOT / "tests")))
    project.config["sorter"] = {"name": "quick2", "plugin": "odd.py"}
    project.add("good")
    project.add("odd", sorter="odd", note="=1+1\x1b[31m")
    run = project.run("--keep-going")
    assert run.returncode == 1
    told = re.sub(r"Logfile .+?={9}.+?={9}", "", run.output, flags=re.DOTALL)  # Snakemake's
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", told)
    summary = project.summary()
    assert summary["sort"].to_dict() == {"good": "sorted", "odd": "failed"}
    assert r"=1+1 \ud800 \x1b[31m\u202e xxx" in summary.loc["odd", "reason"]
    assert len(summary.loc["odd", "reason"]) <= 500
    assert summary.loc["odd", "note"] == r"'=1+1\x1b[31m"
    page = project.result("report.html").read_text()
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)
    assert "x" * 131_073 in (project.folder / "logs/canary/odd.log").read_text()
