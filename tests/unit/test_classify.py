"""The table of signatures, row by row, and what must stay unclassified."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spikecanary.failures import (
    ContainerEnvironmentError,
    DependencyError,
    DiskExhaustionError,
    FolderNotWritableError,
    GPUOutOfMemoryError,
    GPUUnavailableError,
    HostMemoryWatchdogError,
    InsufficientActivityError,
    IOStallError,
    PreprocessingError,
    RecordingUnreadableError,
    SorterParameterError,
    SorterTimeoutError,
    classify,
)
from spikecanary.failures.signatures import load_signatures
from spikecanary.fullsort import SortStoppedError, check_sentinel
from spikecanary.sentinel import write_record
from spikecanary.supervise import child
from workbench import frame, stopped

LINKED = "symbol f, version libb.so.11 not defined in file libb.so.11 with link time reference"


START = "Client Error for http+docker://localhost/v1.43/containers/5f1c/start: Not Found"


OOM = (
    "OCI runtime create failed: runc create failed: container init was OOM-killed (limit too low?)"
)


OPERAND = "TypeError: 'in <string>' requires string as left operand, not dict"


HDF5 = (
    "OSError: Can't synchronously {} failed: time = Sun Nov 29 21:45:32 2026\n, "
    "filename = 'a.h5', file descriptor = 6, errno = {}, error message = '{}', buf = 0x7f"
)


LOST = "\"Unable to synchronously open object (object '{}' doesn't exist)\""


TOO_OLD = (
    "which is too old to be supported by the triton GPU compiler, which is used as the backend."
)


SLURM_JOB = "message: SLURM-job '7' failed, SLURM status is: "


FULL, PYXIS = "No space left on device", "slurmstepd: error: pyxis: couldn't start container"


def described(error):
    """Describe an exception as the child process does."""
    try:
        raise error
    except type(error) as err:
        return child.describe_error(err)


@pytest.mark.parametrize("row", load_signatures(), ids=lambda row: row.example[:40])
def test_every_row_matches_its_example(row):
    assert row.matches_example()
    failure = classify.by_text(row.example_text())
    assert type(failure) is row.failure
    words = f"{row.reason}: " if row.frames or failure.category == "environment" else row.reason
    assert f"{failure}: ".startswith(words)
    assert row.source


@pytest.mark.parametrize(
    "row", [row for row in load_signatures() if row.example], ids=lambda row: row.example[:40]
)
def test_rows_do_not_match_their_words_in_passing(row):
    quoted = f"INFO see the FAQ about '{row.example.splitlines()[-1]}' for help"
    assert classify.by_text(quoted) is None


@pytest.mark.parametrize(
    "text",
    [
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "IndexError: list index out of range in /data/docker/cuda_out_of_memory/run.py",
        "ValueError: the filter is not installed properly",
        "KeyError: 'No CUDA GPUs are available'",
        # a node that was slow, a container that is gone already
        "FATAL:   container creation failed: squashfuse_ll failed to mount /var/rootfs in 10s",
        "Error response from daemon: No such container: 5f1c",
        # what the sort itself keeps open, a limit that is no disk's
        r"PermissionError: [WinError 32] It is being used: 'C:\Temp\x\recording.dat'",
        "OSError: [Errno 28] inotify watch limit reached",
        f"OSError: mkdir /sys/fs/cgroup/memory/docker/5f1c: {FULL.lower()}",
        # a function of the script itself, a container that another one has taken the name of
        "AttributeError: Can't get attribute 'f' on <module '__main__' (built-in)>",
        "docker.errors.APIError: 409 Client Error for http+docker://h/containers/create: Conflict",
        # what passes: a daemon that restarts, a server out of order, a kernel that ran too long
        (
            '  File "/env/docker/api/client.py", line 7, in _post\n    x\n'
            "requests.exceptions.ConnectionError: ('Connection aborted.', RemoteDisconnected('x'))"
        ),
        (
            '  File "/env/kilosort/utils.py", line 1, in cache_template_path\n    x\n'
            "urllib.error.HTTPError: HTTP Error 503: Service Unavailable"
        ),
        (
            '  File "/env/torch/hub.py", line 1, in download_url_to_file\n    x\n'
            "http.client.IncompleteRead: IncompleteRead(1 bytes read, 2 more expected)"
        ),
        "RuntimeError: CUDA error: the launch timed out and was terminated",
        f"KeyError: {LOST.format('clusters_0')}",
        # what ends another program, or takes this one's place for a while
        "Out of memory: Killed process 7 (firefox) total-vm:1kB",
        "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***",
        # many clips, for more templates than any window has
        "ValueError: n_samples=174 should be >= n_clusters=50000.",
        "AssertionError",
        "",
    ],
)
def test_hard_negatives(text):
    assert classify.by_text("Traceback (most recent call last):\n" + text) is None


#: Sites that stay unclassified, by reason; the installed versions' others are classified.
UNCLASSIFIED = {
    "what an external program did is in its log": [
        r"sorters/external/\w+:_run_from_folder:Exception: (.* non-zero|Klusta did|Result file)",
        r"yass:train",
    ],
    "the cause is another exception": [r":SpikeSortingError"],
    "after the sort": [
        r"kilosort4:read_kilosort4_motion",
        r"runsorter:read_sorter_folder",
        r"(phykilosort|spykingcircus)extractors:",
        r"kilosort/utils:log_sorting_summary",
        r"kilosort/io:save_",
    ],
    "an internal check": [
        r"kilosort/io:__setitem__",
        r"utils/shellscript:",
        r"mountainsort5:_run_from_folder:\w+: (Unable|Unexpected)",
        r"probe(group)?:(to_image|get_slice)",
        r"zero_channel_pad:get_traces",
    ],
    "the network": [r"probeinterface/library:(get_all_tags|list_github)"],
    "it may be of the window": [
        r"clustering_qr:run",
        r"deepinterpolation/generators:",
        r"(filter_opencl|silence_periods):get_traces",
        r"resample:_cast_",
        r"preprocessing/motion:(compute_motion|save_motion)",
    ],
}


def test_raise_sites_of_the_installed_versions():
    """What the libraries under a sort raise is classified; a new version shows its new sites."""
    tool = Path(__file__).resolve().parents[3] / "shared/tools/raise_sites.py"
    if not tool.exists():
        pytest.skip(f"no {tool}")
    site_packages = Path(yaml.__file__).parents[1]
    said = subprocess.run(
        [sys.executable, tool, site_packages], check=True, capture_output=True, text=True
    )
    silent, total = [], 0
    for record in map(json.loads, said.stdout.splitlines()):
        total += 1
        text = record["chain_text"]
        if classify.by_text(text) is None:
            where = re.search(r'/site-packages/(.*)\.py", .* in (.*)', text)
            silent.append(":".join([where[1], where[2], text.splitlines()[-1]]))
    reasons = [pattern for patterns in UNCLASSIFIED.values() for pattern in patterns]
    assert [site for site in silent if not any(re.search(each, site) for each in reasons)] == []
    assert len(silent) <= 0.1 * total


SORTING = "Traceback (most recent call last):\n" + frame("spikeinterface/sorters/basesorter:run")


NUMPY = frame("numpy/_core/memmap:__new__", "raise x")


OPENING = SORTING + frame("neo/rawio/tdtrawio:_parse_header") + NUMPY


@pytest.mark.parametrize(
    "text",
    [
        # storage, memory and the network are no fault of the recording's
        OPENING + "OSError: [Errno 4] Interrupted system call",
        OPENING + "ConnectionResetError: gone",
        OPENING + "KeyboardInterrupt",
        # reading samples, a step that computes on the window's samples
        SORTING + frame("neo/rawio/tdtrawio:_get_analogsignal_chunk") + NUMPY + "ValueError: x",
        SORTING + frame("spikeinterface/preprocessing/whiten:__init__") + NUMPY + "ValueError: x",
        # numbers that do not go, a program's own main
        SORTING + frame("spikeinterface/preprocessing/filter:__init__") + "LinAlgError: Singular",
        frame("site-packages/yass/__main__:<module>") + frame("x/y:f") + "ValueError: x",
        # the sorter's own code, although a check of parameters stands further out
        SORTING
        + frame("kilosort/run_kilosort:run_kilosort")
        + frame("kilosort/spikedetect:run", "raise ValueError(x)")
        + "ValueError: x",
        # the sort has ended
        SORTING
        + frame("spikeinterface/sorters/external/klusta:_get_result_from_folder")
        + frame("spikeinterface/extractors/klustaextractors:__init__", "assert x")
        + "AssertionError: no spikes in cluster",
    ],
)
def test_frames_that_tell_nothing(text):
    assert classify.by_text(text) is None


def test_what_fails_while_a_package_is_imported_is_of_the_machine():
    text = frame("site-packages/zarr/core:<module>") + frame("x/abc:g") + "TypeError: x"
    assert isinstance(classify.by_text(SORTING + text), DependencyError)
    inner = frame("site-packages/kilosort/spikedetect:run") + "TypeError: x"
    assert classify.by_text(frame("site-packages/a/b:<module>") + inner) is None


def test_a_comprehension_is_of_the_function_around_it():
    header, inner = "neo/rawio/neuralynxrawio:", frame("python3.11/pathlib:iterdir")
    text = SORTING + frame(f"{header}_parse_header") + frame(f"{header}<listcomp>") + inner
    failure = classify.by_text(text + "NotADirectoryError: [Errno 20] Not a directory: '/x'")
    assert isinstance(failure, RecordingUnreadableError)


def test_frames_tell_the_stage_and_keep_the_words():
    failure = classify.by_text(OPENING + "ValueError: odd")
    assert isinstance(failure, RecordingUnreadableError)
    assert str(failure).endswith("ValueError: odd")
    zarr = frame("spikeinterface/core/zarrextractors:super_zarr_open", "raise x")
    failure = classify.by_text(SORTING + zarr + "ValueError: group not found at path ''")
    assert "num_channels" not in failure.remedy
    full = classify.by_text(OPENING + "OSError: [Errno 28] No space left on device")
    assert isinstance(full, DiskExhaustionError)


def test_functions_of_kilosort_that_read_no_sample():
    text = SORTING + frame("kilosort/clustering_qr:{}") + frame("scipy/cluster/vq:kmeans")
    said = "ValueError: Cannot take a larger sample than population when 'replace=False'"
    assert isinstance(classify.by_text(text.format("x_centers") + said), SorterParameterError)
    assert classify.by_text(text.format("cluster") + said) is None


def test_exception_types_tell_first():
    failure = classify.classify(described(ModuleNotFoundError("No module named 'hdbscan.x'")))
    assert isinstance(failure, DependencyError)
    assert failure.evidence == {"module": "hdbscan.x"}
    assert isinstance(classify.classify(described(MemoryError())), HostMemoryWatchdogError)


def test_own_failures_pass_through_the_child():
    own = RecordingUnreadableError("/x does not exist", path="/x", reader="nwb")
    failure = classify.classify(json.loads(json.dumps(described(own))))
    assert isinstance(failure, RecordingUnreadableError)
    assert failure.evidence == {"path": "/x", "reader": "nwb"}


def test_full_disk_is_one_wherever_it_is_met():
    def wrapped(cause):
        error = PreprocessingError("step 'whiten' cannot be applied", step="whiten")
        error.__cause__ = cause
        return classify.classify(json.loads(json.dumps(described(error))))

    assert isinstance(wrapped(OSError(28, "No space left on device")), DiskExhaustionError)
    of_step = wrapped(ValueError("Digital filter critical frequencies must be 0 < Wn < fs/2"))
    assert isinstance(of_step, PreprocessingError)
    assert of_step.evidence == {"step": "whiten"}


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (DependencyError, "Bundle#5 start failed: libXt.so.6: cannot open shared object file"),
        (DependencyError, f"OSError: /env/liba.so.11: {LINKED}"),
        (DependencyError, f"ls: relocation error: /lib/a.so: {LINKED}"),
        (DependencyError, "OSError: /a/libgomp.so.1: cannot allocate memory in static TLS block"),
        (DependencyError, "AttributeError: 'numpy.ndarray' object has no attribute 'ptp'"),
        (GPUUnavailableError, "RuntimeError: Cannot initialize CUDA without ATen_cuda library."),
        (HostMemoryWatchdogError, "RuntimeError: bad allocation"),
        (HostMemoryWatchdogError, "OSError: [WinError 1453] Insufficient quota"),
        (FolderNotWritableError, "OSError: AF_UNIX path too long"),
        (ContainerEnvironmentError, "slurmstepd: error: pyxis: couldn't start container"),
        (ContainerEnvironmentError, "Error: cannot find UID/GID for user me: no subuid ranges"),
        (ContainerEnvironmentError, "Error: netavark: unable to append rule '-d 10.88.0.0/16'"),
        (ContainerEnvironmentError, "Error: short-name resolution enforced but cannot prompt"),
        (DiskExhaustionError, f"slurmstepd: error: pyxis: Write failed because {FULL}\n{PYXIS}"),
        (InsufficientActivityError, f"{'-' * 40}Not enough spikes in the file"),
        (DiskExhaustionError, HDF5.format("write data (file write", 27, "File too large")),
        (HostMemoryWatchdogError, "OSError: [Errno 24] Unable to synchronously create file"),
        (
            HostMemoryWatchdogError,
            "Spike sorting in docker failed with the following error:\nKilled",
        ),
        (IOStallError, HDF5.format("read data (file read", 5, "Input/output error")),
        (IOStallError, "OSError: [Errno 19] No such device"),
        (IOStallError, "OSError: [Errno 113] No route to host: '/mnt/nas/x.raw'"),
        (SorterParameterError, frame("spikeinterface/sorters/internal/x:run") + OPERAND),
        (DiskExhaustionError, f"Error: writing blob: adding layer: processing tar file: {FULL}"),
        (ContainerEnvironmentError, "ch-run: can't execve(2) user command: (ch-run.c:493 2)"),
        (ContainerEnvironmentError, "exec /entry.sh: no such file or directory"),
        (DependencyError, "CompileError: command '/usr/bin/gcc' failed with exit code 1"),
        (RecordingUnreadableError, f"KeyError: {LOST.format('sig')}"),
        (RecordingUnreadableError, "_pickle.UnpicklingError: invalid load key, 'v'."),
        (IOStallError, "TimeoutError: [Errno 60] Operation timed out: '/Volumes/a/x.raw'"),
        (HostMemoryWatchdogError, "Memory cgroup out of memory: Killed process 7 (x) total-vm:1kB"),
        (GPUUnavailableError, "NVRM: Xid (PCI:0000:01:00): 154, action (Node Reboot Required)"),
        (ContainerEnvironmentError, "enroot-mount: failed to mount: /a at /b: Permission denied"),
        (DependencyError, "CondaVerificationError: The package for x appears to be corrupted."),
        (DiskExhaustionError, "Message: The node was low on resource: ephemeral-storage. x"),
        (HostMemoryWatchdogError, "OutOfMemoryError: Container killed due to memory usage"),
        (HostMemoryWatchdogError, "Task was killed due to the node running low on memory."),
        (RecordingUnreadableError, "a.NoRegionError: You must specify a region."),
        (IOStallError, "ClientOSError: [Errno 104] Connection reset by peer"),
        (IOStallError, "Error response from daemon: open /x: input/output error"),
        (IOStallError, "FATAL:   container creation failed: while mounting: stale NFS file handle"),
        (GPUUnavailableError, "CudaAPIError: Call to f results in CUDA_ERROR_ECC_UNCORRECTABLE"),
        (GPUUnavailableError, "a.CUDARuntimeError: cudaErrorX: initialization error"),
        (RecordingUnreadableError, "PermissionError: The provided token has expired."),
        (IOStallError, "ImportError: /env/x.so: cannot read file data: Input/output error"),
        (
            HostMemoryWatchdogError,
            "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed",
        ),
        (DependencyError, "NotImplementedError: cannot instantiate 'PosixPath' on your system"),
        (DependencyError, "subprocess.CalledProcessError: Command died with <Signals.SIGILL: 4>."),
        (
            RecordingUnreadableError,
            "RuntimeError: Unable to get group info (wrong B-tree signature)",
        ),
        (
            FolderNotWritableError,
            "mktemp: failed to create file via template '/x': Not a directory",
        ),
        (DiskExhaustionError, f"CreateCondaEnvironmentException:\nerror    Cannot lock ({FULL})"),
        (ContainerEnvironmentError, "could not get runtime: remove /x: permission denied"),
        (
            DependencyError,
            'CompileException: /x.h(4): catastrophic error: cannot open source file "v"',
        ),
        (IOStallError, "OSError: Can't read data (curl cannot perform request)"),
        (GPUUnavailableError, "RuntimeError: CUDA driver error: system not yet initialized"),
        (GPUUnavailableError, "a.LogicError: clGetPlatformIDs failed: platform not found khr"),
        (GPUOutOfMemoryError, "a.MemoryError: clFlush failed: MEM_OBJECT_ALLOCATION_FAILURE"),
        (DependencyError, "LLVM ERROR: Symbol not found: __powidf2"),
        (
            DependencyError,
            "sbatch: error: Batch job submission failed: Invalid wckey specification",
        ),
        (DependencyError, "sbatch: error: Batch script contains DOS line breaks"),
        (IOStallError, "IOError: [Errno 116] Stale file handle"),
        (ContainerEnvironmentError, "ERROR: Package 'neo-0.14' requires a different Python: 3.8"),
        (GPUUnavailableError, "NVRM: f: uvm met a global fatal error 0x60, requiring os reboot"),
        (
            FolderNotWritableError,
            "RuntimeError: Unable to flush file's cached information (unable, errno = 13, x)",
        ),
        (RecordingUnreadableError, "OSError: Forbidden: https://storage.googleapis.com/x"),
        (ContainerEnvironmentError, "ch-run[7]: error: unknown image type: /x (ch_core.c:290)"),
        (ContainerEnvironmentError, "slurmstepd: error: pyxis: failed to import docker image"),
        (DependencyError, "[proxy:0:0@n] HYDU_create_process (l.c:74): execvp error on file x"),
        (
            DependencyError,
            "srun: error: Unable to create step for job 7: More processors requested",
        ),
        (
            DependencyError,
            "slurmstepd: error: Failed to invoke task plugins: task_p_pre_launch error",
        ),
        (
            DependencyError,
            "slurmstepd: error: execve(): bad interpreter(/a b): No such file or directory",
        ),
        (
            DependencyError,
            'c.CompileException: /tmp/x.cu(7): error: identifier "__half" is undefined',
        ),
        (GPUUnavailableError, f"RuntimeError: Found GTX 1080 {TOO_OLD}"),
        (HostMemoryWatchdogError, f"    {SLURM_JOB}'OUT_OF_MEMORY'. See the log"),
        (SorterTimeoutError, f"    {SLURM_JOB}'TIMEOUT'. See the log"),
        (
            HostMemoryWatchdogError,
            "RuntimeError: It is possible that dataloader's workers are out of shared memory.",
        ),
    ],
)
def test_further_words_of_programs_around_a_sort(told, text):
    assert isinstance(classify.by_text(text), told)
    assert classify.by_text(f"INFO see the FAQ about '{text.splitlines()[0]}'") is None


def test_what_cannot_be_written_is_no_recording():
    reader = frame("spikeinterface/extractors/nwbextractors:__init__", "raise x")
    text = f"Traceback (most recent call last):\n{reader}OSError: Unable to {{}} (x)"
    assert isinstance(classify.by_text(text.format("open x")), RecordingUnreadableError)
    assert classify.by_text(text.format("create file")) is None


def test_a_handle_that_windows_denies_a_process_is_no_folder():
    text = "Traceback (most recent call last):\nPermissionError: [WinError 5] Access is denied"
    assert classify.by_text(text) is None
    assert isinstance(classify.by_text(text + ": 'D:\\\\out'"), FolderNotWritableError)


def test_a_limit_on_open_files_is_no_lack_of_shared_memory():
    text = "RuntimeError: unable to open shared memory object </torch_7_3> in read-write mode: "
    assert "open files" in str(classify.by_text(f"{text}Too many open files (24)"))
    assert "/dev/shm" in str(classify.by_text(f"{text}No space left on device (28)"))


@pytest.mark.parametrize(
    "said",
    [
        "ModuleNotFoundError: No module named 'spikeinterface.old'",
        "PermissionError: [Errno 13] Permission denied: '/env/__pycache__/x.nbi'",
    ],
)
def test_numbas_cache_is_no_results_folder_and_no_missing_module(said):
    text = frame("numba/core/caching:_load_index") + said
    assert "NUMBA_CACHE_DIR" in classify.by_text(SORTING + text).remedy


def test_a_name_that_is_too_long_is_no_lack_of_rights():
    for said in (
        "OSError: [Errno 36] File name too long: '/x'",
        "OSError: [WinError 206] Too long",
    ):
        assert "shorter" in classify.by_text(said).remedy


def test_what_macos_does_not_let_a_reader_open_is_the_recording():
    said = "PermissionError: [Errno 1] Operation not permitted: '/Volumes/a/x.dat'"
    assert isinstance(classify.by_text(OPENING + said), RecordingUnreadableError)
    assert isinstance(classify.by_text(SORTING + said), FolderNotWritableError)


def test_nested_and_quoted_messages():
    text = "RuntimeError: torch.cuda.OutOfMemoryError: CUDA out of memory. Tried"
    assert isinstance(classify.by_text(text), GPUOutOfMemoryError)
    text = "RuntimeError: Cannot connect to the Docker daemon at unix:///x. Is it running?"
    assert isinstance(classify.by_text(text), ContainerEnvironmentError)


def test_words_of_the_reader_stay_beside_the_class():
    def opened(cause, message="reader 'x' cannot open /x: words"):
        own = RecordingUnreadableError(message, path="/x", reader="x")
        own.__cause__ = cause
        return classify.classify(json.loads(json.dumps(described(own))))

    streams = opened(ValueError("This reader have several streams: \nNames: ['a', 'b']"))
    assert (str(streams), streams.evidence["path"]) == ("reader 'x' cannot open /x: words", "/x")
    assert "stream_id" in streams.remedy
    module = opened(ModuleNotFoundError("No module named 'mtscomp'"))
    assert isinstance(module, DependencyError)
    assert "'mtscomp'" in str(module)
    assert "words" in str(module)
    # No sample was sorted: never biological.
    assert isinstance(opened(ValueError("No spikes found")), RecordingUnreadableError)


@pytest.mark.parametrize("row", load_signatures(), ids=lambda row: row.reason[:40])
def test_force_is_advised_for_biology_only(row):
    remedy = row.remedy or row.failure.remedy
    assert "force" not in remedy or row.failure.category == "biological"


@pytest.mark.parametrize("category", ["biological", "environment"])
def test_force_is_offered_for_biology_only(tmp_path, category):
    write_record(tmp_path / "canary.json", stopped(category))
    with pytest.raises(SortStoppedError) as caught:
        check_sentinel(tmp_path / "canary.json", {}, forced=False)
    assert ("force" in str(caught.value)) == (category == "biological")


def test_a_frame_without_source_hides_no_other():
    step = frame("spikeinterface/preprocessing/common_reference:__init__").splitlines()[0]
    inner = frame("spikeinterface/core/channelslice:__init__", "assert channel_ids")
    assert classify.by_text(f"{SORTING}{step}\n{inner}AssertionError") is None
