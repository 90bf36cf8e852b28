"""Bad input of a hundred kinds: one clear line for each problem, before any job, no traceback."""

import json
from pathlib import Path

import pytest

from spikecanary import inputcheck
from spikecanary.config import BadInputError

OPTIONS = {"sampling_frequency": 30000, "dtype": "int16", "num_channels": 4}
ROW = {"recording": "a", "path": "a.raw", "reader": "binary", "reader_options": json.dumps(OPTIONS)}
PLAIN = "\t".join(ROW) + "\n" + "\t".join(ROW.values()) + "\n"


def options(**changed):
    """Return a row whose options of its reader are changed."""
    return {"reader_options": json.dumps(OPTIONS | changed)}


#: Columns of a row, and what is said of them.
ROWS = {
    "id of 240 letters": ({"recording": "ab" * 120}, "more than 150 characters"),
    "id that repeats itself": ({"recording": "a" * 60}, "repeats itself too often"),
    "id history": ({"recording": "history"}, "is the name of a file or folder of the results"),
    "id summary.tsv": ({"recording": "summary.tsv"}, "is the name of a file or folder"),
    "id report.html": ({"recording": "report.html"}, "is the name of a file or folder"),
    "id plan.tsv": ({"recording": "plan.tsv"}, "is the name of a file or folder"),
    "id Gates": ({"recording": "Gates"}, "is the name of a file or folder"),
    "id logs": ({"recording": "logs"}, "is the name of a file or folder"),
    "id .snakemake": ({"recording": ".snakemake"}, "a letter or digit first"),
    "id with a slash": ({"recording": "../x"}, "use letters, digits"),
    "id with a wildcard": ({"recording": "a{b}"}, "use letters, digits"),
    "sorter with a wildcard": ({"sorter": "my{s}"}, "a sorter has letters, digits and"),
    "id that turns its text": ({"recording": "a\u202eb"}, r"got 'a\u202eb'"),
    "id empty": ({"recording": ""}, "column recording: is empty"),
    "path empty": ({"path": " ; "}, "column path: is empty"),
    "path with a control character": ({"path": "a\x0bb"}, r"the control character '\x0b'"),
    "end after 2 ns": ({"end_s": "2e-9"}, "less than 0.1 s; they are in seconds"),
    "end before start": ({"start_s": "5", "end_s": "2"}, "end_s 2 s is not after start_s 5 s"),
    "start negative": ({"start_s": "-1"}, "column start_s: Input should be greater than"),
    "end NaN": ({"end_s": "nan"}, "column end_s: Input should be a finite number"),
    "end infinite": ({"end_s": "1e400"}, "column end_s: Input should be a finite number"),
    "comma for a point": ({"start_s": "1,5"}, "column start_s: Input should be a valid number"),
    "rate negative": (options(sampling_frequency=-1), "sampling_frequency: Input should be gre"),
    "rate NaN": (options(sampling_frequency=float("nan")), "sampling_frequency: Input should be"),
    "rate a text": (options(sampling_frequency="30k"), "sampling_frequency: Input should be a"),
    "no channels": (options(num_channels=0), "num_channels: Input should be greater than 0"),
    "4.5 channels": (options(num_channels=4.5), "num_channels: Input should be a valid integer"),
    "offset negative": (options(file_offset=-3), "file_offset: Input should be greater"),
    "gain a text": (options(gain_to_uV="x"), "gain_to_uV: Input should be a valid number"),
    "gain NaN": (options(gain_to_uV=float("nan")), "gain_to_uV: Input should be a finite number, "),
    "gain 0": (options(gain_to_uV=0), "gain_to_uV is 0, so all samples"),
    "gain 0 of a channel": (options(gain_to_uV=[1.0, 0]), "gain_to_uV is 0, so all samples"),
    "two streams": (options(stream_id="1") | {"stream_id": "0"}, "another one is in reader_opt"),
    "axis 7": (options(time_axis=7), "time_axis: Input should be 0 or 1"),
    "type of objects": (options(dtype="object"), "no type of numbers: dtype 'object'"),
    "option with half a pair": (options(x="\ud800"), r"can't encode character '\ud800'"),
    "option misspelt": (options(dtyp="int16"), "no option 'dtyp' (did you mean 'dtype'?)"),
    "options no JSON": ({"reader_options": "{no"}, "column reader_options: not JSON"),
    "options a list": ({"reader_options": "[1]"}, "Input should be a valid dictionary"),
    "options nested deeply": ({"reader_options": "[" * 90_000}, "not JSON: maximum recursion"),
    "options of 5,000 digits": ({"reader_options": "1" * 5_000}, "not JSON: Exceeds the limit"),
    "field of 131,073 characters": ({"note": "x" * 131_073}, "field larger than field limit"),
    "reader in capitals": ({"reader": "spikeGLX"}, "unknown reader 'spikeGLX' (did you mean 'spik"),
    "reader of two kinds": ({"reader": "openephys"}, "'openephysbinary' or 'openephyslegacy'?"),
    "reader and a space": ({"reader": "binary {}"}, "unknown reader 'binary {}'"),
    "column stream": ({"stream": "0"}, "column 'stream' is not read (did you mean 'str"),
    "column probe_file": ({"probe_file": "x"}, "(did you mean 'probe'?)"),
    "column start": ({"start": "1"}, "(did you mean 'start_s'?)"),
    "column stop_s": ({"stop_s": "1"}, "(did you mean 'end_s'?)"),
    "column t_start": ({"t_start": "1"}, "(did you mean 'start_s'?)"),
    "column sorter_params": ({"sorter_params": "x"}, "(did you mean 'params'?)"),
    "column sorter_name": ({"sorter_name": "x"}, "(did you mean 'sorter'?)"),
    "column stream_name": ({"stream_name": "x"}, "(did you mean 'stream_id'?)"),
    "column channel_ids": ({"channel_ids": "x"}, "(did you mean 'channels'?)"),
    "column end_sec": ({"end_sec": "1"}, "(did you mean 'end_s'?)"),
    "column start (s)": ({"start (s)": "1"}, "(did you mean 'start_s'?)"),
    "column probefile": ({"probefile": "x"}, "(did you mean 'probe'?)"),
    "column sorters": ({"sorters": "x"}, "(did you mean 'sorter'?)"),
    "column Channels": ({"Channels": "x"}, "(did you mean 'channels'?)"),
    "sorter misspelt": ({"sorter": "kilosrt4"}, "(did you mean 'kilosort4'?)"),
    "time of NWB": ({"session_start_time": "noon"}, "NWB: Invalid isoformat string: 'noon'"),
    "species for NWB": (
        {"species": "mouse"},
        "http://purl.obolibrary.org/obo/NCBITaxon_[0-9]+' (Species of subject. Use latin name)",
    ),
    "sex for NWB": ({"sex": "male"}, "(recording 'a'): NWB: Subject: sex: 'male' is not one of"),
    "type of a comma": (options(dtype=","), "no type of numbers: dtype ','"),
    "type of fields": (options(dtype="i4,(2"), "no type of numbers: dtype"),
    "type too large": (options(dtype="2147483648i4"), "no type of numbers: dtype"),
    "params without an entry": ({"params": "fast"}, "not in the config's params_of: 'fast'"),
}
#: Tables as bytes.
TABLES = {
    "table empty": (b"", "is empty; its first line names the columns"),
    "table of comments": (b"# none\n", "is empty; its first line names the columns"),
    "spaces for tabs": (b"recording    path    reader\na    b    c\n", "separated by tabs"),
    "commas for tabs": (b"recording,path,reader\na,b,c\n", "separated by tabs"),
    "row without tabs": (PLAIN.encode() + b"b  b.raw  binary\n", "line 3: no tab"),
    "column missing": (b"recording\tpath\na\tb\n", "column 'reader' is missing"),
    "column misspelt": (PLAIN.replace("path", "pth").encode(), "'path' is missing (did you mean"),
    "column twice": (b"recording\tpath\treader\treader\na\tb\tc\td\n", "'reader' appears twice"),
    "field too many": (PLAIN.encode().rstrip() + b"\tmore\n", "5 fields, but the header has 4"),
    "id twice": (PLAIN.encode() * 1 + PLAIN.encode().split(b"\n")[1], "'a' is already in line 2"),
    "ids that differ in case": (
        PLAIN.encode() + PLAIN.encode().split(b"\n")[1].replace(b"a\ta", b"A\ta"),
        "recording 'A' is already in line 2",
    ),
    "stray quote": (PLAIN.encode().replace(b"\na\t", b'\n"a\t'), "a quote that is not closed"),
    "quoted newline": (PLAIN.encode().replace(b"a.raw", b'"a\nb"'), "a line break in a field"),
    "UTF-16": (PLAIN.encode("utf-16"), "save it as text with tabs"),
    "UTF-16 without its mark": (PLAIN.encode("utf-16-le"), "it holds NUL: save it as text"),
    "Latin 1": (PLAIN.replace("a.raw", "\xe9").encode("latin-1"), "save it as text with tabs"),
    "NUL": (PLAIN.replace("a.raw", "a\0").encode(), "it holds NUL"),
    "no text": (b"\x89PNG\r\n\x1a\n\xff", "save it as text with tabs"),
}
#: Settings, and what is said of them.
SETTINGS = {
    "folder with a dot": ({"pathvars": {"results": "./res"}}, "pathvars.results: write res, got"),
    "folder with a slash": ({"pathvars": {"logs": "l//x/"}}, "pathvars.logs: write l/x, got"),
    "this folder": ({"pathvars": {"results": "."}}, "pathvars.results: write a folder in it, got"),
    "folder by a variable": ({"pathvars": {"results": "$HOME/x"}}, "pathvars.results: takes a fol"),
    "scratch with a zero byte": ({"job": {"scratch": "a\0b"}}, "job.scratch: takes a folder"),
    "key misspelt": ({"canary": {"windw_s": 3}}, "unknown key (did you mean 'window_s'?)"),
    "section misspelt": ({"canry": {}}, "unknown key (did you mean 'canary'?)"),
    "key a number": ({1: 2}, "config: 1: Keys should be strings"),
    "key true": ({True: 2}, "Keys should be strings"),
    "section a text": ({"sorter": "kilosort4"}, "sorter: takes keys and values"),
    "text for a list": ({"outputs": "units"}, "outputs: takes a list"),
    "output misspelt": ({"outputs": ["unit"]}, "value 'unit' (did you mean 'units'?)"),
    "window of a microsecond": ({"canary": {"window_s": 1e-6}}, "a window is at least 0.1 s"),
    "number infinite": ({"watchdogs": {"silence_times": float("inf")}}, "a finite number"),
    "number NaN": ({"forecast": {"safety": float("nan")}}, "safety: Input should be a finite"),
    "number negative": ({"job": {"threads": -1}}, "Input should be greater than 0, got -1"),
    "number with a unit": ({"job": {"mem_mb": "24GB"}}, "takes a whole number, got '24GB'"),
    "memory in GB": (
        {"job": {"mem_mb": 24}},
        "mem_mb: Input should be greater than or equal to 100",
    ),
    "number 1.5": ({"gate": {"wave_size": 1.5}}, "takes a whole number, got 1.5"),
    "number null": ({"gate": {"wave_size": None}}, "wave_size: takes a whole number, got null"),
    "list of true": ({"canary": {"force": True}}, "got true"),
    "switch a number": ({"preflight": {"strict": 2}}, "strict: takes true or false, got 2"),
    "scratch empty": ({"job": {"scratch": ""}}, "job.scratch: is empty, got ''"),
    "number true": ({"canary": {"window_s": True}}, "window_s: takes no true or false"),
    "steps of a list": ({"analysis": {"preprocessing": [3]}}, "takes keys and values"),
    "Bombcell a number": ({"curation": {"bombcell": 3}}, "curation.bombcell: takes keys"),
    "table without a name": ({"recordings": ""}, "recordings: is empty, got ''"),
    "percent of 400": ({"watchdogs": {"gpu_memory_abort_percent": 400}}, "less than or equal"),
    "half a surrogate pair": ({"sorter": {"image": "\ud800"}}, r"can't encode character '\ud800'"),
    "pathvar misspelt": (
        {"pathvars": {"resutls": "x"}},
        "pathvars.resutls: unknown value 'resutls' (did",
    ),
    "pathvar a wildcard": ({"pathvars": {"results": "{x}"}}, "takes a folder, without"),
    "pathvar of two lines": ({"pathvars": {"results": "a\nb"}}, "takes a folder, without"),
    "device in capitals": ({"sorter": {"device": "CUDA"}}, "(did you mean 'cuda'?)"),
    "folder of nobody": ({"sorter": {"plugin": "~nobody-here/x.py"}}, "~nobody-here/x.py does not"),
    "sorter in capitals": ({"sorter": {"name": "Kilosort4"}}, "(did you mean 'kilosort4'?)"),
    "sorter that acts on terminals": ({"sorter": {"name": "\x1b[31m"}}, r"not '\x1b[31m'"),
    "plugin a folder": ({"sorter": {"plugin": "/tmp"}}, "/tmp is a folder, not a file"),
    "plugin without end": ({"sorter": {"plugin": "/dev/zero"}}, "/dev/zero is no file"),
    "plugin at home": ({"sorter": {"plugin": "~/no.py"}}, f"{Path.home()}/no.py does not exist"),
    "plugin of 300 letters": ({"sorter": {"plugin": "ab" * 150}}, "plugin: "),
    "signatures nowhere": ({"signatures": "no.yaml"}, "signatures: no.yaml does not exist"),
    "table a folder": ({"recordings": "/tmp"}, "/tmp: cannot read the recordings table"),
    "table without end": ({"recordings": "/dev/zero"}, "/dev/zero is no file or folder"),
    "sorter's parameter": ({"sorter": {"params": {"nblock": 0}}}, "(did you mean 'nblocks'?)"),
    "parameter NaN": ({"sorter": {"params": {"Th_universal": float("nan")}}}, "takes a number"),
    "step misspelt": ({"preprocessing": {"bandpas_filter": {}}}, "'bandpass_filter'?)"),
    "named step misspelt": (
        {"preprocessing_of": {"x": {"bandpas_filter": {}}}},
        "preprocessing_of.x: unknown step 'bandpas_filter' (did you mean",
    ),
    "forced recording": ({"canary": {"force": ["aa"]}}, "the table has no recording 'aa'"),
    "Bombcell of no labels": (
        {"curation": {"label_by": "bombcell", "bombcell": {}}},
        "config: curation: label_by is bombcell, but bombcell is off: set bombcell to true\n",
    ),
    "threshold of nothing": (
        {"curation": {"thresholds": {"snr": {"greater": 5, "less": 1}}}},
        "nothing is at least `greater` and at most `less`",
    ),
}
#: Settings of the steps after the sort.
LATE = {
    "model without a file": (
        {"curation": {"unitrefine": {"sua_mua": "/dev"}}},
        "curation.unitrefine.sua_mua: /dev holds no .skops file",
    ),
    "unit's place": (
        {"analysis": {"extensions": {"unit_locations": {"optimizer": "foo"}}}},
        'analysis.extensions.unit_locations: AssertionError: assert optimizer in ("least_square"',
    ),
    "sparsity that needs more": (
        {"analysis": {"sparsity": {"method": "by_property"}}},
        "config: analysis.sparsity: AssertionError: For the 'by_property' method, 'by_property' ne",
    ),
    "step's band": (
        {"analysis": {"preprocessing": {"bandpass_filter": {"freq_min": 6000, "freq_max": 300}}}},
        "config: analysis.preprocessing: step 'bandpass_filter' cannot be applied: ValueError: Wn",
    ),
    "lag": (
        {"analysis": {"extensions": {"template_similarity": {"max_lag_ms": -1}}}},
        "template_similarity.max_lag_ms is -1, less than 0",
    ),
    "no such method": (
        {"analysis": {"sparsity": {"method": "xyz"}}},
        "analysis.sparsity: AssertionError: method=xyz is not available for `estimate_sparsity()`",
    ),
    "no such mode": (
        {"analysis": {"extensions": {"principal_components": {"mode": "xyz"}}}},
        "analysis.extensions.principal_components: AssertionError: Invalid mode!",
    ),
    "bins of no width": (
        {"analysis": {"extensions": {"correlograms": {"bin_ms": 0}}}},
        "analysis.extensions.correlograms: ZeroDivisionError",
    ),
    "extension": ({"analysis": {"extensions": {"wavforms": {}}}}, "(did you mean 'waveforms'?)"),
    "waveforms": (
        {"analysis": {"extensions": {"waveforms": {"ms_befor": 1}}}},
        "analysis.extensions.waveforms: unknown parameter 'ms_befor' (did you mean 'ms_before'?)",
    ),
    "noise levels": (
        {"analysis": {"extensions": {"noise_levels": {"metod": "mad"}}}},
        "unknown parameter 'metod' (did you mean 'method'?)",
    ),
    "locations": (
        {"analysis": {"extensions": {"unit_locations": {"method": "monopolar"}}}},
        "analysis.extensions.unit_locations: ValueError: Wrong method for unit_locations",
    ),
    "locations of spikes": (
        {"analysis": {"extensions": {"spike_locations": {"method": "center_of_mas"}}}},
        "analysis.extensions.spike_locations: AssertionError: Method center_of_mas is not sup",
    ),
    "negative": ({"analysis": {"extensions": {"waveforms": {"ms_before": -1}}}}, "less than 0"),
    "operators": (
        {"analysis": {"extensions": {"templates": {"operators": ["avrage"]}}}},
        "extensions.templates: ValueError: You have entered an operator avrage in your `operators`",
    ),
    "metric": (
        {"analysis": {"extensions": {"quality_metrics": {"metric_names": ["snrr"]}}}},
        "extensions.quality_metrics: ValueError: Metric snrr not in available metrics",
    ),
    "metric's parameter": (
        {"analysis": {"extensions": {"quality_metrics": {"metric_params": {"snr": {"x": 1}}}}}},
        "quality_metrics.metric_params.snr: unknown parameter 'x'",
    ),
    "sparsity": (
        {"analysis": {"sparsity": {"radius": 50}}},
        "analysis.sparsity: unknown parameter 'radius' (did you mean 'radius_um'?)",
    ),
    "sparsity's method": (
        {"analysis": {"sparsity": {"method": "radiuss"}}},
        "are 'radius'",
    ),
    "threshold": ({"curation": {"thresholds": {"snrr": {"less": 1}}}}, "(did you mean 'snr'?)"),
    "threshold of what is not computed": (
        {"curation": {"thresholds": {"d_prime": {"greater": 1}}}},
        "no column of metrics.tsv 'd_prime'",
    ),
    "Bombcell's label": ({"curation": {"bombcell": {"nois": {}}}}, "(did you mean 'noise'?)"),
    "Bombcell's metric": ({"curation": {"bombcell": {"mua": {"snrr": {}}}}}, "'snr'?)"),
    "Bombcell's limit": (
        {"curation": {"bombcell": {"mua": {"snr": {"grater": 3}}}}},
        "unknown parameter 'grater' (did you mean 'greater'?)",
    ),
    "operators a text": (
        {"analysis": {"extensions": {"templates": {"operators": "average"}}}},
        "extensions.templates: AssertionError: assert isinstance(operators, list)",
    ),
    "metrics a number": (
        {"analysis": {"extensions": {"quality_metrics": {"metric_names": 3}}}},
        "extensions.quality_metrics: TypeError: Value after * must be an iterable, not int",
    ),
    "metrics' parameters a number": (
        {"analysis": {"extensions": {"quality_metrics": {"metric_params": 3}}}},
        "quality_metrics.metric_params: takes keys and values (name: value), got 3",
    ),
    "metric's parameters a number": (
        {"analysis": {"extensions": {"quality_metrics": {"metric_params": {"snr": 3}}}}},
        "quality_metrics.metric_params.snr: takes keys and values",
    ),
    "sparsity of a text": (
        {"analysis": {"sparsity": {"radius_um": "9"}}},
        "analysis.sparsity: ",
    ),
    "step of a text": (
        {"analysis": {"preprocessing": {"highpass_filter": {"freq_min": "x"}}}},
        "analysis.preprocessing: step 'highpass_filter' cannot be applied: TypeError",
    ),
    "step's type": (
        {"analysis": {"preprocessing": {"highpass_filter": {"dtype": "flot32"}}}},
        "'highpass_filter' cannot be applied: TypeError: data type 'flot32' not understood",
    ),
    "Phy's folder": ({"exports": {"phy": {"output_folder": "x"}}}, "parameter 'output_folder'"),
    "Phy": ({"exports": {"phy": {"copy_binry": True}}}, "(did you mean 'copy_binary'?)"),
    "NWB's section": ({"exports": {"nwb": {"NWBfile": {}}}}, "(did you mean 'NWBFile'?)"),
    "NWB's field": (
        {"exports": {"nwb": {"Subject": {"spcies": "x"}}}},
        "exports.nwb.Subject: unknown field 'spcies' (did you mean 'species'?)",
    ),
    "NWB's time": (
        {"exports": {"nwb": {"NWBFile": {"session_start_time": "noon"}}}},
        "NWB: Invalid isoformat string: 'noon'",
    ),
    "NWB's text": (
        {"exports": {"nwb": {"Subject": {"age": 3}}}},
        "exports.nwb: NWB: Subject: age: 3 is not of type 'string'",
    ),
}


def problems(table, settings=None):
    """Write a table; return what is said of it and of settings."""
    Path("t.tsv").write_bytes(table)
    with pytest.raises(BadInputError) as caught:
        inputcheck.check_inputs({"recordings": "t.tsv"} | (settings or {}))
    told = caught.value.problems
    assert all(line.isprintable() and len(line) <= 1_000 for line in told)
    return "\n".join(told)


@pytest.mark.parametrize("kind", ROWS)
def test_row(kind, held):
    columns, expected = ROWS[kind]
    row = ROW | columns
    lines = [
        "\t".join(row),
        "\t".join(f'"{v.replace(chr(34), chr(34) * 2)}"' for v in row.values()),
    ]
    assert expected in problems("\n".join(lines).encode())
    held()


@pytest.mark.parametrize("kind", TABLES)
def test_table(kind, held):
    table, expected = TABLES[kind]
    assert expected in problems(table)
    held()


@pytest.mark.parametrize(
    ("sessions", "said"),
    [
        ((("a_b", "c"), ("a", "b_c")), "recordings 'r0', 'r1': columns subject, session: diff"),
        ((("M\u00fcller", "1"), ("M\u00f6ller", "1")), "one name of a file, 'm-ller_1'"),
        ((("m", "x"), ("M", "x")), "one name of a file, 'm_x'"),
        ((("m", "ab" * 150),), "has more than 150 characters"),
        ((("m", "0" * 40),), "repeats itself too often"),
        ((("m", "1"), ("m", "1"), ("n", "1")), ""),
        ((("m", "1", ""), ("m", "1", "m"), ("", "1", "m")), ""),
        ((("m", "1", "a"), ("m", "1", "b")), "different sessions have one name"),
    ],
)
def test_sessions_that_cannot_be_files_of_their_own(sessions, said, held):
    names = "\t".join([*ROW, *("subject", "session", "subject_id")[: len(sessions[0])]])
    values = [ROW | {"recording": f"r{n}"} for n in range(len(sessions))]
    lines = ["\t".join([*row.values(), *own]) for row, own in zip(values, sessions, strict=True)]
    table = "\n".join([names, *lines]).encode()
    settings = {"exports": {"nwb": {"by": "session"}}, "outputs": ["nwb"]}
    if said:
        assert said in problems(table, settings)
    else:
        Path("t.tsv").write_bytes(table)
        inputcheck.check_inputs({"recordings": "t.tsv"} | settings)
    held()


def test_problems_of_all_rows_are_told_together(held):
    """A row that is no TSV, or not valid, hides nothing of the others, nor unknown names."""
    told = problems(b'recording\tpath\treader\n"x\na\tx\tbinry\nb\t\tspikeglx\nc\tx\t\n')
    for expected in (
        "line 2: a quote",
        "line 3 (recording 'a'): unknown reader 'binry'",
        "line 4 (recording 'b'), column path: is empty",
        "line 5 (recording 'c'), column reader: is empty",
    ):
        assert expected in told
    held()


def test_problems_of_one_section_are_told_together(held):
    settings = {
        "analysis": {
            "redundant_units": 5,
            "sparsity": {"methd": 1},
            "extensions": {"wavforms": {}},
        },
        "exports": {
            "unit_pages": -1,
            "phy": {"copy_binry": 1},
            "nwb": {"NWBFile": {"labb": 1}, "Subject": {"sex": "male"}},
        },
        "sorter": {"device": "gpu", "params": {"nblock": 1}},
    }
    told = problems(PLAIN.encode(), settings)
    for expected in (
        "analysis.redundant_units: ",
        "'methd' (did you mean 'method'?)",
        "'wavforms' (did you mean",
        "exports.unit_pages: ",
        "'copy_binry' (did you mean",
        "'labb' (did you mean 'lab'?)",
        "sex: 'male' is not one of",
        "unknown value 'gpu'",
        "'nblock' (did you mean 'nblocks'?)",
    ):
        assert expected in told
    held()


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings(kind, held):
    settings, expected = SETTINGS[kind]
    assert expected in problems(PLAIN.encode(), settings) + "\n"
    held()


@pytest.mark.parametrize("kind", LATE)
def test_settings_of_late_steps(kind, held):
    settings, expected = LATE[kind]
    assert expected in problems(PLAIN.encode(), settings)
    held()


def test_what_depends_on_the_recording_is_not_refused(held):
    """Its channels, its rate, its signal, and the number of its spikes are not known."""
    steps = {
        "bandpass_filter": {"freq_max": 20_000.0},
        "common_reference": {"reference": "single", "ref_channel_ids": ["AP7"]},
        "highpass_spatial_filter": {},
        "interpolate_bad_channels": {"bad_channel_ids": ["AP3"]},
    }
    extensions = {
        "principal_components": {"n_components": 50},
        "waveforms": {"ms_before": 0.3, "ms_after": 0.5},
        "amplitude_scalings": {},
        "valid_unit_periods": {},
    }
    sparsity = {"method": "amplitude", "threshold": 900, "n_jobs": 64}
    settings = {"preprocessing": steps, "extensions": extensions, "sparsity": sparsity}
    Path("t.tsv").write_text(PLAIN)
    depth = {"thresholds": {"depth_um": {"less": 1000}}}
    inputcheck.check_inputs({"recordings": "t.tsv", "analysis": settings, "curation": depth})
    held()


@pytest.mark.parametrize(
    "table",
    [
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.encode().replace(b"options\n", b"options\tnote\n").replace(b"}\n", b'}\t5" x\n'),
        PLAIN.encode().replace(b"options\n", b"options\tprobe_name\tregion\tsession\n"),
        PLAIN.encode().replace(b"\na\t", b"\n001\t"),
        PLAIN.encode().replace(b"\na\t", b"\nNA\t"),
        PLAIN.encode().replace(b"\na\t", b"\n1e5\t"),
    ],
)
def test_no_false_alarm(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("t.tsv").write_bytes(table)
    _, (row,) = inputcheck.check_inputs({"recordings": "t.tsv"})
    assert row.id in ("a", "001", "NA", "1e5")
