"""Bad input is found before any job runs, all of it together, with exit status 1."""


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
    assert "Traceback" not in run.output


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
        "config: canary.force: the table has no recording 'aa' (did you mean",
    ):
        assert expected in run.output


def test_wrong_types(project):
    project.add("good")
    project.config["canary"] = {"window_s": "long", "stop_on": ["biologic"]}
    project.config["gate"] = {"wave_size": 0}
    run = project.run()
    assert run.returncode == 1
    assert "config: canary.window_s: Input should be a valid number" in run.output
    assert "got 'biologic'" in run.output
    assert "config: gate.wave_size: Input should be greater than 0, got 0" in run.output
    project.config = {"recordings": ["a.tsv"]}
    run = project.run()
    assert "1 problem in the configuration or the table:" in run.output
    assert "config: recordings: Input should be a valid string, got ['a.tsv']" in run.output


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
