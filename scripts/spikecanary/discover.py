"""Write the recordings table: recognise recordings in folders, read their headers, add rows."""

import argparse
import itertools
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from spikecanary import config as configuration
from spikecanary import plan
from spikecanary.config.pathtypes import LONGEST_ID, not_readable
from spikecanary.recording import reader_function, remedy_of
from spikecanary.recording.formats import (
    RUN,
    Recognised,
    describe_layout,
    find_runs,
    list_streams,
    name_sessions,
    names_in,
    walk,
)
from spikecanary.recording.integrity import LEAST_RATE_HZ, NO_ELECTRODES
from spikecanary.recording.probes import differ_by_number
from spikecanary.table import COLUMNS, RESERVED_IDS, GrowingTable, Recording
from spikecanary.texts import count, shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spikeinterface.core import BaseRecording

#: Streams and channels without electrodes, beside those of :data:`NO_ELECTRODES`.
NO_PROBE = re.compile(
    r"(?i)nidq|\bobx|ni-?daq|[-_]adc$|\badc|\baux|\bstim|dc amplifier|analog (in|data)|^(ai|fp)\b"
    r"|\blfp?\b|lfp?$|^ecu$"
)
NO_PROBE_CHANNEL = re.compile(
    r"(?i)([a-h]\d*[-_])?(aux|adc|accel|din|dig|analog|ainp)[a-z]*[-_ ]?\d*|acc[-_ ]?[xyz]"
)
#: Properties by which channels are grouped.
GROUPS = ("group", "group_name", "tetrode", "shank")
#: What no path in a table can hold: it ends fields, lines or paths, or is not UTF-8.
ODD_PATH = re.compile(r'[\x00-\x1f\x85\u2028\u2029;\ud800-\udfff]|^"|^\s|\s$')
#: A tetrode has so many channels, the converters of Neuropixels 1.0 so many bits.
N_TETRODE, NEUROPIXELS1_BITS = 4, 10
#: Readers of microelectrode arrays.
MEAS = ("maxwell", "biocam", "mcsh5", "mcsraw")
#: Columns that tell apart what is in one folder.
CUT = ("start_s", "end_s")
#: The settings of a working directory.
CONFIG = Path("config/config.yaml")


@dataclass(frozen=True)
class Found(Recognised):
    """A row, or (with ``reason``) what is none: a stream, or a path that cannot be opened."""

    stream: str = ""
    row: dict[str, str] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    of: tuple[str, ...] = ()  #: the same of CatGT's output and of its raw data
    is_catgt: bool = False
    is_joined: bool = False

    def place(self) -> tuple[str, ...]:
        """Return what runs of one probe have in common."""
        rest = {k: v for k, v in self.row.items() if k not in ("recording", "path", *CUT)}
        where = self.path if self.row.keys() & {*CUT} else RUN.sub("", self.path)
        return where, self.stream, json.dumps(rest)


def inspect(recognised: Recognised, split: str, sorter: str = "") -> list[Found]:
    """Read the headers of a path: a row for each of what ``split`` names, and what is none.

    Presets are proposed for the sorter; none, if it is empty.
    """
    path, reader = recognised.path, recognised.reader
    found: list[Found] = []
    one = Found(**asdict(replace(recognised, path=ODD_PATH.sub("?", path))))
    if reader and one.path != path:
        return [replace(one, reason="a name of its path cannot be in a table", failed=True)]
    if one.reason:
        return [one]
    if why := not_readable(path):
        return [replace(one, reason=why, failed=True)]
    try:
        streams = list(list_streams(path, reader))
    except Exception as err:  # noqa: BLE001 - whatever it is, it is this path's
        return [_fail(one, err)]
    has_raw = any(re.match(r"(?i)(wb|raw)\b", name) for name, _ in streams)
    for name, fields in streams:
        one = Found(path, reader, stream=name, row={"path": path, "reader": reader} | fields)
        is_copy = has_raw and name.casefold().startswith(("spk", "spike"))  # Plexon, Alpha Omega
        if reason := "the raw signal, filtered" if is_copy else one.row.pop("reason", ""):
            found.append(replace(one, reason=reason))
            continue
        try:
            found += _inspect_stream(one, split, sorter)
        except Exception as err:  # noqa: BLE001 - or this stream's
            found.append(_fail(one, err))
    return found or [replace(one, reason="holds no signals of electrodes")]


def _fail(one: Found, error: Exception) -> Found:
    """Return what cannot be opened, and why."""
    remedy = describe_layout(one.path, one.reader) or remedy_of(error)
    return replace(one, reason=plan.describe_problem(error, remedy), failed=True)


def _inspect_stream(one: Found, split: str, sorter: str) -> Iterator[Found]:
    """Open one stream; yield its rows with their headers, or why it has none."""
    if NO_ELECTRODES.search(one.stream) or NO_PROBE.search(one.stream):
        yield replace(one, reason="no electrodes (synchronisation, auxiliary or field potential)")
        return
    as_row = _as_recording(one.row)
    options = as_row.reader_options | ({"stream_id": as_row.stream_id} if as_row.stream_id else {})
    opened = reader_function(one.reader)(one.path, **options)
    opened = opened[0] if isinstance(opened, tuple) else opened  # of simulated data
    rate_hz = opened.get_sampling_frequency()
    if rate_hz < LEAST_RATE_HZ:
        yield replace(one, reason=f"sampled at {rate_hz:g} Hz: a field potential")
        return
    ids, labels = opened.channel_ids, opened.get_property("channel_name")
    electrodes = [
        not any(NO_PROBE_CHANNEL.fullmatch(str(name)) for name in both)
        for both in zip(ids, ids if labels is None else labels, strict=True)
    ]
    if not any(electrodes):
        yield replace(one, reason="no electrodes (auxiliary channels)")
        return
    if left_out := [name for name, is_one in zip(ids, electrodes, strict=True) if not is_one]:
        yield replace(one, reason=f"no electrodes, by their names: channels {shorten(left_out)}")
    unused = opened
    for channels in _split(opened, np.array(electrodes), split):
        for part in _parts(opened, one):
            row = part.row | ({"channels": channels} if channels else {})
            header = plan.read_header(_as_recording(row), unused)
            unused = None  # it may convert a probe's units in place, which it notes once
            reason = header.get("problem", "")
            read = replace(part, row=row, header=header, reason=reason, failed=bool(reason))
            presets = _propose_presets(opened, read, sorter) if sorter and not reason else {}
            yield replace(read, row=row | presets)


def _propose_presets(opened: "BaseRecording", one: Found, sorter: str) -> dict[str, str]:
    """Propose entries of the config's preprocessing_of and params_of, by probe and sorter."""
    is_tetrode = one.header["n_channels"] <= N_TETRODE
    if sorter.startswith("kilosort"):  # it filters, references and whitens by itself
        is_known = is_tetrode and sorter == "kilosort4"
        return {"params": "kilosort4_tetrodes"} if is_known else {}
    if one.is_catgt:  # it has aligned, filtered and referenced the samples
        return {}
    if "inter_sample_shift" in opened.get_property_keys() and opened.has_probe():
        depth = opened.get_probes()[0].annotations.get("adc_bit_depth")
        return {"preprocessing": "neuropixels1" if depth == NEUROPIXELS1_BITS else "neuropixels2"}
    is_unsigned = opened.get_dtype().kind == "u"
    if one.reader in MEAS:
        return {"preprocessing": "mea_unsigned" if is_unsigned else "mea"}
    return {"preprocessing": "tetrodes"} if is_tetrode and not is_unsigned else {}


def _split(opened: "BaseRecording", electrodes: "NDArray[np.bool_]", split: str) -> Iterator[str]:
    """Yield column channels of each group; empty where all channels are one."""
    labels = _labels(opened, split)
    for label in dict.fromkeys(labels.tolist()):
        chosen = (labels == label) & electrodes
        if chosen.all():
            yield ""
        elif chosen.any():
            yield _name_channels(opened, chosen)


def _labels(opened: "BaseRecording", split: str) -> "NDArray[Any]":
    """Return of each channel the group that ``split`` means."""
    if split in ("probe", "shank") and opened.has_probe():
        contacts = opened.get_probegroup().to_numpy(complete=True)  # in the order of the channels
        names = ["probe_index", "shank_ids"] if split == "shank" else ["probe_index"]
        known = [name for name in names if name in contacts.dtype.names]
        return np.array([str(each) for each in contacts[known]])
    for _, labels in _find_groups(opened) if split not in ("probe", "none") else ():
        if len({*labels}) > 1:
            return labels
    return np.zeros(opened.get_num_channels())


def _find_groups(opened: "BaseRecording") -> "Iterator[tuple[str, NDArray[Any]]]":
    """Yield the properties by which channels are grouped, and their values as texts."""
    for name in GROUPS:
        if (values := opened.get_property(name)) is not None:
            yield name, np.array([str(value) for value in values])


def _name_channels(opened: "BaseRecording", chosen: "NDArray[np.bool_]") -> str:
    """Name channels by a property that they alone have, else by ranges of ids."""
    for name, labels in _find_groups(opened):
        label = labels[chosen][0]
        if ((labels == label) == chosen).all() and not re.search("[,;]", label):
            return f"{name}={label}"
    edges = np.flatnonzero(np.diff(np.r_[0, chosen.astype(int), 0]))
    ids = [str(name) for name in opened.channel_ids]
    runs = (ids[a:b] for a, b in edges.reshape(-1, 2).tolist())
    return ",".join(map(partial(_name_run, ids), runs))


def _name_run(ids: Sequence[str], run: Sequence[str]) -> str:
    """Name channels that follow each other: a range, where its numbers tell no others."""
    first, last = run[0], run[-1]
    is_list = len(run) == 1 or differ_by_number(ids, first, last)
    return ",".join(run) if is_list else f"{first}-{last}"


def _parts(opened: Any, one: Found) -> Iterator[Found]:
    """Yield the gates that SpikeGLX's reader joins because their files are in one folder."""
    if one.reader != "spikeglx":
        yield one
        return
    rate_hz = opened.get_sampling_frequency()
    runs = find_runs(opened)
    for (run, is_catgt), (start, end, info) in runs.items():
        meta = info["meta"]
        # CatGT keeps the time of its input apart.
        created = meta.get("fileCreateTime_original", meta.get("fileCreateTime", ""))
        cut = {"start_s": str(start / rate_hz)} if start else {}
        cut |= {"end_s": str(end / rate_hz)} if len(runs) > 1 else {}
        if run.parent == Path(one.path):
            header = created, meta.get("imDatPrb_sn", "")
            same = (run.name, *header, one.stream, *_subject_and_session(one.path))
            yield replace(one, row=one.row | cut, of=same, is_catgt=is_catgt)


def _group(found: Iterable[Found], key: Callable[[Found], Any]) -> list[list[Found]]:
    """Group what has the same key, in the order of the first ones."""
    groups: dict[Any, list[Found]] = {}
    for one in found:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())


def group_reasons(found: Iterable[Found]) -> list[Found]:
    """Join the streams of a path that are left out for the same reason."""
    left_out = [one for one in found if one.reason]
    return [
        replace(group[0], stream=shorten(list(dict.fromkeys(one.stream for one in group))))
        for group in _group(left_out, lambda one: (one.path, one.reason, one.failed))
    ]


def leave_out_raw(found: Sequence[Found]) -> list[Found]:
    """Leave out the raw data of what CatGT has filtered."""
    filtered = {one.of: one.path for one in found if one.is_catgt and not one.reason}
    what = "CatGT's output of it is in"
    return [
        replace(
            one, reason=f"{what} {filtered[one.of]} (if it has a row, remove that)", failed=False
        )
        if one.of in filtered and not one.is_catgt
        else one
        for one in found
    ]


def join(found: Sequence[Found]) -> list[Found]:
    """Join the runs of one probe and rate to one row each; those that do not fit stay apart."""
    joined = []
    for group in _group(found, lambda one: (one.place(), one.header["sampling_frequency_hz"])):
        paths = ";".join(dict.fromkeys(one.path for one in group))
        end = {name: text for name, text in group[-1].row.items() if name == "end_s"}
        row = {name: text for name, text in group[0].row.items() if name != "end_s"}
        row |= {"path": paths} | end
        header = plan.read_header(_as_recording(row)) if len(group) > 1 else {"problem": ""}
        if header.get("problem"):
            sys.stderr.write(f"not joined: {header['problem']}\n")
        both = replace(group[0], path=paths, row=row, header=header, is_joined=True)
        joined += group if "problem" in header else [both]
    return joined


def _as_recording(row: dict[str, str]) -> Recording:
    """Return a row as a recording."""
    return Recording.model_validate(
        {"id": "x"} | {COLUMNS[k]: value for k, value in row.items() if k in COLUMNS and value}
    )


def _subject_and_session(path: str) -> tuple[str, str]:
    """Return subject and session of a path, by the names of NeuroBlueprint and BIDS."""
    subjects, sessions = (
        re.findall(rf"(?:^|[/\\_]){key}-([A-Za-z0-9]+)", path) for key in ("sub", "ses")
    )
    return (subjects or [""])[-1], (sessions or [""])[-1]


def name_rows(
    found: Sequence[Found], taken: Iterable[str], known: Iterable[tuple[str, str, str]] = ()
) -> list[Found]:
    """Give each row an id of its own, and the columns that path and header tell.

    ``taken``: ids; ``known``: subject, session and path of rows that have them already.
    """
    runs = []
    for path, one in ((one.path.split(";")[0], one) for one in found):
        subject = one.row.get("subject") or _subject_and_session(path)[0]
        runs.append((subject, path, one.of[0] if one.of else path))
    sessions = name_sessions(runs, known)
    named, used = [], {name.casefold() for name in (*taken, *RESERVED_IDS)}
    n_rows = Counter(one.path for one in found)
    proposed = [[_propose(one, n_rows[one.path], depth) for depth in range(4)] for one in found]
    often = [Counter(map(str.casefold, names)) for names in zip(*proposed, strict=True)]
    for one, depths, of_run in zip(found, proposed, sessions, strict=True):
        names = [name for name, n in zip(depths, often, strict=True) if n[name.casefold()] == 1]
        numbered = (f"{depths[0]}-{number}" for number in itertools.count(2))
        free = itertools.chain(names, depths[:1], numbered)
        name = next(name for name in free if name.casefold() not in used)
        used.add(name.casefold())
        path = one.path.split(";")[0]
        subject, session = _subject_and_session(path)
        probe = re.search(
            r"(?i)(?<=\.)probe[a-z0-9]+|(?<![a-z])(imec|well)\d+", f"{one.stream} {path}"
        )
        columns = {"subject": subject, "session": session or of_run}
        columns["probe_name"] = probe[0] if probe else ""
        named.append(replace(one, row={"recording": name} | columns | one.row))
    return named


def _propose(one: Found, n_rows: int, depth: int) -> str:
    """Propose an id: subject, session, folders above, run, experiment, stream and group."""
    path = one.path.split(";")[0]
    labels = zip(("sub", "ses"), _subject_and_session(path), strict=True)
    is_one_gate = one.row.keys() & {*CUT} and not one.is_joined
    names = names_in(path)[-1 - depth :] + list(one.of[:1] if is_one_gate else ())
    names += [part for part in Path(path).parts if re.match(r"experiment\d|Record.?Node", part)]
    text = "_".join(dict.fromkeys(names))
    if n_rows > 1:
        stream = re.sub(r"(?i)^.*#|^.*/|[._-]ap$", "", one.stream)
        more = [stream * (stream not in text), one.row.get("channels", "")]
        text = "_".join([text, *filter(None, more)])
    before = [f"{key}-{value}" for key, value in labels if value and f"{key}-{value}" not in text]
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join([*before, text])).strip("._-")
    text = re.sub(r"(.+?)\1{9,}", r"\1", text)  # Snakemake takes it for a wildcard without end
    return text[-LONGEST_ID + 10 :].strip("._-") or "recording"


def _sort_key(one: Found) -> list[Any]:
    parts = re.split(
        r"(\d+)", f"{one.path} {one.row.get('stream_id', '')} {one.row.get('channels')}"
    )
    return [int(part) if part.isdecimal() else part for part in parts]


def find(
    folders: Iterable[str], split: str, sorter: str, n_workers: int, seen: set[str]
) -> list[Found]:
    """Find all streams of all recordings in some folders, in the order of their paths.

    ``seen`` as of :func:`~spikecanary.recording.formats.walk`.
    """
    every = [each for folder in folders for each in walk(folder, seen)]
    # A link to a file that is there too is no second recording.
    every.sort(key=lambda one: not Path(one.path).is_symlink())
    files = {(os.path.realpath(one.path), one.reader, one.reason): one for one in every}
    walked = list(files.values())
    results = plan.map_in_processes(partial(inspect, split=split, sorter=sorter), walked, n_workers)
    found: list[Found] = []
    for at, one in enumerate(walked):
        crashed = Found(one.path, one.reader, reason=f"{one.reader} crashed on it", failed=True)
        found += results.get(at, [crashed])
    return leave_out_raw(sorted(found, key=_sort_key))


def main(arguments: list[str] | None = None) -> int:
    """Write the table from the command line; exit status 1 where something cannot be opened."""
    parser = argparse.ArgumentParser(
        prog="python -m spikecanary.discover",
        description="Find recordings in folders, read their headers, add rows to the table.",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="where to look")
    parser.add_argument(
        "--out", type=Path, help="the table to write (default: the config's `recordings`)"
    )
    parser.add_argument(
        "--split-by",
        choices=("probe", "group", "shank", "tetrode", "none"),
        default="probe",
        help="what gets a row of its own (default: %(default)s)",
    )
    parser.add_argument("--concatenate", action="store_true", help="join runs of one probe")
    parser.add_argument("--configfile", type=Path, help=f"the config (default: {CONFIG})")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="how many processes read headers"
    )
    options = parser.parse_args(arguments)
    try:
        settings: Any = {}  # as Snakemake merges them
        for file in filter(None, (CONFIG if CONFIG.exists() else None, options.configfile)):
            loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
            settings = configuration.merge(settings, loaded or {})
        config = configuration.load(settings)
        table = GrowingTable(options.out or Path(config.recordings))
    except (OSError, ValueError, yaml.YAMLError) as err:
        sys.stderr.write(f"{err}\n")
        return 2
    sorter = "" if config.preprocessing else config.sorter.name  # whose steps are for all rows
    known = {path for path, *_ in table.known if Path(path).is_file()}
    seen = set(known)
    found = find(options.folders, options.split_by, sorter, max(1, options.jobs), seen)
    rows = [one for one in found if not one.reason]
    are_new = table.select_new([one.row for one in rows])
    new = [one for one, is_new in zip(rows, are_new, strict=True) if is_new]
    n_known = len(rows) - len(new)
    new = name_rows(join(new) if options.concatenate else new, table.ids, table.sessions)
    left_out = group_reasons(found)
    reasons = [(one.path, one.stream, one.reason) for one in left_out]
    try:
        looked_at = (seen - known) | {os.path.realpath(one.path) for one in found}
        table.add([one.row for one in new], reasons, looked_at)
    except OSError as err:
        sys.stderr.write(f"the table cannot be written: {err}\n")
        return 2
    _report(new, left_out, config, table.path, n_known)
    return int(any(one.failed for one in left_out))


def _report(
    new: Sequence[Found], left_out: Sequence[Found], config: Any, out: Path, n_known: int
) -> None:
    """Print what was added, with the plan's problems, and what was not, with the reasons."""
    recordings = [_as_recording(one.row) for one in new]
    headers = {one.row["recording"]: one.header for one in new}
    planned = plan.make(config, recordings, Path("results"), 1, headers) if new else None
    lines = []
    for row in planned.to_dict("records") if planned is not None else ():
        shown = f"{row['duration_s']:.1f} s, {count(row['n_channels'], 'channel')}"
        lines.append(f"{row['recording']}: {shown}")
        lines += [f"  {problem}" for problem in row["problems"].split("; ") if problem]
    for failed, title in ((False, "Left out:"), (True, "Not opened:")):
        listed = [one for one in left_out if one.failed is failed]
        lines += ["", title] * bool(listed)
        lines += [f"  {' '.join(filter(None, (o.path, o.stream)))}: {o.reason}" for o in listed]
    lines += ["", f"{count(len(new), 'recording')} added to {out}, {n_known} known before"]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
