"""Signatures of environment failures: the machine or the set-up is to blame."""

from spikecanary import failures as f
from spikecanary.failures.signatures.container import CONTAINER, MATLAB
from spikecanary.failures.signatures.gpu import GPU
from spikecanary.failures.signatures.row import Signature

#: A frame of a traceback, its source line and the marks below it.
_FRAME = r'(?:  File "[^\n]*\n(?:    [^\n]*\n)*)'
#: A frame inside a package that reads recordings, as the last before the exception.
_READER_FRAME = (
    r'  File "[^"\n]*(?:neo/(?:rawio|io)/|spikeinterface/extractors/|probeinterface/|'
    r"spikeinterface/core/\w*(?:extractor|zarr)\w*\.py|mtscomp)[^\n]*\n(?:    [^\n]*\n)*"
)

_RECORDING = (
    Signature(
        f.HDF5PluginMissingError,
        "the file needs Maxwell's HDF5 compression plugin, which is not on this machine",
        rf'  File "[^\n]*in auto_install_maxwell_hdf5_compression_plugin\n(?:    [^\n]*\n)*{_FRAME}*'
        r"(?:urllib\.error\.|requests\.exceptions\.)?(?:URLError|HTTPError|ConnectionError|OSError)",
        '  File "maxwell.py", line 60, in auto_install_maxwell_hdf5_compression_plugin\n'
        "    response = urlopen(remote_lib)\n"
        "urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>",
        "neo/rawio/maxwellrawio.py 0.14.6, on a node without network",
        evidence={"plugin": "Maxwell"},
    ),
    Signature(
        f.HDF5PluginMissingError,
        "the file needs Maxwell's HDF5 compression plugin, which is not on this machine",
        r"The MaxWell file compression requires a custom plugin\.",
        "The MaxWell file compression requires a custom plugin.",
        "neo/rawio/maxwellrawio.py 0.14.6, get_analogsignal_chunk",
        evidence={"plugin": "Maxwell"},
    ),
    Signature(
        f.HDF5PluginMissingError,
        "the file is compressed with an HDF5 filter whose plugin is not on this machine",
        r"(?:Can't|Unable to) (?:synchronously )?(?:read data|open object|create dataset|get \w+) "
        r"\((?:can't (?:find|open) (?:plugin|directory)|required filter '?(?P<plugin>[^')]*)'? is not "
        r"registered|unable to (?:load|dlopen)|Required filter)",
        "Can't synchronously read data (can't find plugin. Check either HDF5_VOL_CONNECTOR, "
        "HDF5_PLUGIN_PATH, default location, or path set by H5PLxxx functions)",
        "h5py 3.16, a dataset with a filter that is not installed",
        errors="OSError RuntimeError KeyError ValueError",
    ),
    Signature(
        f.RecordingUnreadableError,
        "a piece of the HDF5 file cannot be decompressed: the file is damaged, or its filter's "
        "plugin fails",
        r"Can't (?:synchronously )?read data \(.*filter returned failure during read",
        "Can't read data (filter returned failure during read)",
        "HDF5's H5Z_pipeline through h5py",
        errors="OSError",
    ),
    Signature(
        f.RecordingUnreadableError,
        "the HDF5 file is locked, or its network drive does not support locks "
        "(HDF5_USE_FILE_LOCKING=FALSE)",
        r".*(?:[Uu]nable to lock file|file locking flag values don't match|file is already open for)",
        "[Errno 11] Unable to synchronously open file (unable to lock file, errno = 11, error "
        "message = 'Resource temporarily unavailable')",
        "HDF5's H5FD__sec2_lock through h5py",
        errors="OSError BlockingIOError",
    ),
    Signature(
        f.RecordingUnreadableError,
        "the file does not exist",
        r"\[Errno 2\] Unable to (?:synchronously )?open file \(unable to open file: name = "
        r"'(?P<path>[^']*)'",
        "[Errno 2] Unable to synchronously open file (unable to open file: name = '/d/raw.h5', "
        "errno = 2, error message = 'No such file or directory', flags = 0, o_flags = 0)",
        "h5py 3.16",
        errors="FileNotFoundError OSError",
    ),
    Signature(
        f.RecordingUnreadableError,
        "the HDF5 file is truncated, damaged or no HDF5 file",
        r"Unable to (?:synchronously )?(?:open|read) \w+ \((?:truncated file|file signature not found|"
        r"bad (?:object header|superblock|symbol table|heap)|wrong \w+ signature|addr overflow|"
        r"unable to determine \w+|file size|.*eof = )|.* is not a valid HDF5 file",
        "Unable to synchronously open file (truncated file: eof = 200000, sblock->base_addr = 0, "
        "stored_eof = 3108310)",
        "h5py 3.16, a truncated file",
        errors="OSError RuntimeError KeyError",
    ),
    Signature(
        f.RecordingUnreadableError,
        "the reader did not find the recording's file",
        _READER_FRAME + r"FileNotFoundError: (?:\[Errno 2\] No such file or directory: "
        r"'(?P<path>[^'\n]*)')?",
        '  File "/env/spikeinterface/core/binaryrecordingextractor.py", line 207, in __init__\n'
        '    self.file = open(self.file_path, "rb")\n'
        "FileNotFoundError: [Errno 2] No such file or directory: '/mnt/nas/continuous.dat'",
        "spikeinterface 0.105.3, read_binary of a path that does not exist",
    ),
    Signature(
        f.RecordingUnreadableError,
        "the recording's file may not be read by this user",
        _READER_FRAME + r"PermissionError: \[Errno 13\] Permission denied: '(?P<path>[^'\n]*)'",
        '  File "/env/spikeinterface/core/binaryrecordingextractor.py", line 207, in __init__\n'
        '    self.file = open(self.file_path, "rb")\n'
        "PermissionError: [Errno 13] Permission denied: '/mnt/nas/continuous.dat'",
        "spikeinterface 0.105.3",
    ),
    Signature(
        f.RecordingUnreadableError,
        "the folder holds no recording of this format",
        r"No appropriate combination of \.meta and \.bin files|.* is not a valid Open Ephys|"
        r"No 'structure\.oebin'|filename '.*' does not exist|data_dir '.*' does not exist|"
        r"No binary file found in |No such file or directory: '.*\.(?:oebin|meta|rhd|rhs|ns\d|nev)'|"
        r"No (?:\.\w+ )?files? (?:was |were )?found in|File .* does not exist|"
        r"The (?:file|folder|path|directory) .* (?:does not exist|is not a (?:file|folder|directory))|"
        r".* is not a file or a folder\. It should point to",
        "No appropriate combination of .meta and .bin files were detected in /data/raw/recording",
        "neo/rawio/spikeglxrawio.py and openephysbinaryrawio.py 0.14; kilosort/run_kilosort.py 4.1.7",
        errors="FileNotFoundError FileExistsError ValueError NotADirectoryError AssertionError",
    ),
    Signature(
        f.RecordingUnreadableError,
        "the recording does not have that stream, block or series",
        r"stream_(?:id|name) '?[^ ]*'? is not in |.*stream_(?:id|name)s? .*(?:must be|should be) (?:one|in)|"
        r"This reader have several streams|This reader have several blocks|"
        r"(?:No|More than one|Multiple) (?:acquisition )?(?:ElectricalSeries|electrical series|TimeSeries)|"
        r"'?electrical_series_path|.*[Ee]lectrical[Ss]eries.* not found",
        "stream_id imec0.lf is not in ['imec0.ap', 'imec0.ap-SYNC']",
        "spikeinterface/extractors/neoextractors/neobaseextractor.py and nwbextractors.py 0.105.3",
        errors="ValueError AssertionError KeyError Exception",
    ),
    Signature(
        f.RecordingUnreadableError,
        "the file is shorter than its header says, or empty",
        r"mmap length is greater than file size|cannot mmap an empty file|"
        r"Bytes in binary file did not divide evenly|Size of available data is not a multiple of the "
        r"data-type size",
        "mmap length is greater than file size",
        "Python's mmap and numpy.memmap, a truncated file; kilosort/io.py 4.1.7",
        errors="ValueError",
    ),
    Signature(
        f.RecordingUnreadableError,
        "the Zarr or compressed recording is damaged or incomplete",
        r"nothing found at path|(?:array|group) not found at path|Not a gzipped file|"
        r"File is not a zip file|Error -3 while decompressing data|Corrupt input data|"
        r"error during blosc decompression",
        "nothing found at path ''",
        "zarr 2.18 and the standard library's decompressors",
        errors="PathNotFoundError GroupNotFoundError ArrayNotFoundError BadGzipFile BadZipFile error "
        "LZMAError RuntimeError",
    ),
    Signature(
        f.RecordingUnreadableError,
        "the recording has no probe, or its channels share locations, and this sorter needs them",
        r"Channel locations are (?:required|not unique)|get_channel_locations\(\.\.\) needs a probe|"
        r"There (?:is|are) no Probe|.*must have a probe to run|There are no channel locations|"
        r"no probe_name or probe_path provided|3D 'location' are not supported",
        "Channel locations are required for this spike sorter. Locations can be added to the "
        "RecordingExtractor by loading a probe file (.prb or .csv) or by setting them manually.",
        "spikeinterface/sorters/basesorter.py and core/baserecordingsnippets.py 0.105.3",
        errors="*",
    ),
)

_SORTER = (
    Signature(
        f.SorterUnavailableError,
        "the sorter is not installed on this machine",
        r"The sorter (?P<sorter>\w+) is not installed\.",
        "The sorter herdingspikes is not installed. Please install it with:",
        "spikeinterface/sorters/basesorter.py 0.105.3, initialize_folder",
        errors="Exception",
    ),
    Signature(
        f.SorterUnavailableError,
        "SpikeInterface does not know this sorter",
        r"    SorterClass = sorter_dict\[[^\n]*\n(?:    [^\n]*\n)*KeyError: '(?P<sorter>\w+)'",
        "    SorterClass = sorter_dict[sorter_name]\n"
        "                  ~~~~~~~~~~~^^^^^^^^^^^^^\nKeyError: 'kilosort5'",
        "spikeinterface/sorters/runsorter.py 0.105.3, run_sorter_local",
    ),
    Signature(
        f.SorterUnavailableError,
        "this version of SpikeInterface no longer runs this sorter",
        r"The sorter (?P<sorter>\w+) is archived and no longer supported",
        "The sorter klusta is archived and no longer supported. Please use a different sorter",
        "spikeinterface/sorters/runsorter.py 0.105.3, run_sorter",
        errors="ValueError",
    ),
    Signature(
        f.SorterUnavailableError,
        "this version of the sorter does not have these parameters, or not these values",
        r"Invalid parameters: \[|Unrecognized settings: |Invalid scheme: |Parameter .* is not valid|"
        r".* unknown clustering method",
        "Invalid parameters: ['detect_treshold'] ",
        "spikeinterface/sorters/basesorter.py 0.105.3; kilosort/run_kilosort.py 4.1.7",
        errors="ValueError",
    ),
    Signature(
        f.SorterUnavailableError,
        "the sorter takes recordings of one segment only",
        r"This sorter (?P<sorter>\w+) does not handle multi-segment recordings",
        "This sorter kilosort4 does not handle multi-segment recordings, use "
        "si.concatenate_recordings(...)",
        "spikeinterface/sorters/basesorter.py 0.105.3, initialize_folder",
        errors="ValueError",
    ),
    Signature(
        f.SorterUnavailableError,
        "this version of the sorter does not go with this SpikeInterface or numpy",
        r"SpikeInterface only supports kilosort versions|Kilosort versions (?:between|before) |"
        r"\w+ version .* is no longer supported",
        "SpikeInterface only supports kilosort versions 4.0.16 and above. You are running version "
        "4.0.5.",
        "spikeinterface/sorters/external/kilosort4.py 0.105.3, herdingspikes.py",
        errors="Exception RuntimeError AssertionError",
    ),
    Signature(
        f.SorterUnavailableError,
        "SpikeInterface calls the sorter in another way than this version of it takes",
        r'  File "[^"\n]*spikeinterface/sorters/(?:ex|in)ternal/\w+\.py", line \d+, in _run_from_folder\n'
        r"(?:    [^\n]*\n)*(?:TypeError: \S+\(\) (?:got an unexpected keyword|missing \d+ required|takes )|"
        r"ValueError: (?:too many|not enough) values to unpack|AttributeError: module '\w+' has no )",
        '  File "/env/spikeinterface/sorters/external/kilosort4.py", line 310, in _run_from_folder\n'
        "    n_chan_bin, fs, NT, nt, twav_min, chan_map, dtype, do_CAR = (\n"
        "    ^^^^^^^^^^\nValueError: too many values to unpack (expected 16)",
        "spikeinterface 0.101 with kilosort 4.1.2",
    ),
    Signature(
        f.FolderNotWritableError,
        "the results folder cannot be written by this user, or its file system is read-only",
        r"\[Errno (?:13|1|30)\] (?:Permission denied|Operation not permitted|Read-only file system)"
        r"(?:: '(?P<path>[^']*)')?|\[WinError 5\] ",
        "[Errno 30] Read-only file system: '/scratch/session/out'",
        "Python's os module",
        errors="PermissionError OSError",
    ),
    Signature(
        f.ConcurrentSortError,
        "another process holds the lock",
        r"The file lock '(?P<holder>[^']*)' could not be acquired|\[WinError 32\] ",
        "The file lock '/data/sorted/session_059' could not be acquired.",
        "filelock/_error.py",
        errors="Timeout PermissionError OSError",
    ),
    Signature(
        f.ModelLoadingError,
        "the sorter's templates or model are not on this machine and cannot be downloaded",
        rf'  File "[^\n]*in (?:cache_template_path|download_url_to_file|load_state_dict_from_url|'
        rf"load_model|hf_hub_download|snapshot_download)\n(?:    [^\n]*\n)*{_FRAME}*(?:[\w.]*(?:URLError|"
        r"HTTPError|ConnectionError|FileNotFoundError|LocalEntryNotFoundError|gaierror|timeout\w*): |"
        r"AttributeError: module 'urllib\.error' has no attribute 'HTTPerror')",
        '  File "/env/kilosort/utils.py", line 102, in cache_template_path\n'
        "    download_url_to_file(url, cached_file, progress=True)\n"
        "urllib.error.URLError: <urlopen error [Errno -2] Name or service not known>",
        "kilosort/utils.py 4.0.34 and 4.1.7, a node without network",
    ),
    Signature(
        f.ModelLoadingError,
        "the model is not on this machine and the hub cannot be reached",
        r".*(?:couldn't connect to 'https://huggingface\.co'|is not a local folder and is not a valid "
        r"model identifier|[Cc]annot find the requested files in the (?:local|disk) cache|"
        r"Cannot reach .*huggingface|offline mode is enabled|outgoing traffic has been disabled)",
        "We couldn't connect to 'https://huggingface.co' to load the files",
        "huggingface_hub and transformers",
        errors="OSError LocalEntryNotFoundError RepositoryNotFoundError OfflineModeIsEnabled "
        "EnvironmentError ConnectionError",
    ),
    Signature(
        f.ModelLoadingError,
        "the model's weights do not load: damaged, or made for another architecture or version",
        r"Error\(s\) in loading state_dict for|PytorchStreamReader failed|Weights only load failed|"
        r"invalid load key, |Untrusted types found|Invalid magic number; corrupt file",
        "Error(s) in loading state_dict for ModelSpikeSorter:",
        "torch/nn/modules/module.py and torch/serialization.py 2.13; skops",
        errors="RuntimeError UnpicklingError UntrustedTypesFoundException",
    ),
)

_DEPENDENCY = (
    Signature(
        f.DependencyError,
        "a Python module is missing",
        r"No module named '(?P<module>[\w.]+)'",
        "No module named 'hdbscan'",
        "Python's import system",
        errors="ModuleNotFoundError ImportError",
    ),
    Signature(
        f.DependencyError,
        "a Python package or its metadata is missing",
        r"(?:No package metadata was found for |This sorter requires cuda, but the package ')"
        r"(?P<module>[\w.-]+)|.*[Yy]ou (?:must|need to) install |To use \w+, install ",
        "No package metadata was found for kilosort",
        "importlib.metadata; spikeinterface/sorters/utils/misc.py 0.105.3",
        errors="PackageNotFoundError Exception AssertionError",
    ),
    Signature(
        f.DependencyError,
        "a shared library is missing",
        r"(?P<module>[\w./+-]+\.(?:so|dll|dylib)[\w.]*): cannot open shared object file|"
        r"\[WinError (?:126|127|182|193|1114)\] |"
        r"Could not (?:load|find) (?:dynamic )?library |.*[Ll]ibrary not (?:found|loaded)|"
        r"Unable to load any of \{?lib",
        "libcusparse.so.12: cannot open shared object file: No such file or directory",
        "the dynamic loader",
        errors="ImportError OSError RuntimeError",
    ),
    Signature(
        f.DependencyError,
        "a shared library that a program needs is missing",
        r"(?:\S+: )+error while loading shared libraries: (?P<module>(?!libmw)\S+): cannot open",
        "./spyking-circus: error while loading shared libraries: libmpi.so.40: cannot open shared "
        "object file: No such file or directory",
        "the dynamic loader",
    ),
    Signature(
        f.DependencyError,
        "a program uses instructions that this machine's CPU does not have",
        r"(?:\S+: )*(?:line \d+: +\d+ )?Illegal instruction\b",
        "Illegal instruction (core dumped)",
        "bash; wheels built for newer CPUs",
    ),
    Signature(
        f.DependencyError,
        "a program does not go with this system's C or C++ library",
        r"(?:\S+: )*(?:/\S+: )?version [`'](?P<module>(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)' not found",
        "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by herdingspikes)",
        "the dynamic loader",
    ),
    Signature(
        f.DependencyError,
        "a compiled module does not go with this numpy",
        r"numpy\.(?:dtype|ufunc|ndarray) size changed, may indicate binary incompatibility|"
        r"initialization of \S+ failed without raising an exception|Descriptors cannot be created directly|"
        r"_ARRAY_API not found|.*module compiled against (?:ABI|API) version",
        "numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, "
        "got 88 from PyObject",
        "Cython and numpy's C API; a wheel for numpy 1 under numpy 2",
        errors="ValueError AttributeError RuntimeError SystemError TypeError",
    ),
    Signature(
        f.DependencyError,
        "a package uses what this version of numpy no longer has",
        r"module 'numpy(?:\.\w+)*' has no attribute '(?P<module>\w+)'|`np\.\w+` was removed",
        "module 'numpy' has no attribute 'int'.",
        "numpy/__init__.py, __getattr__",
        errors="AttributeError",
    ),
    Signature(
        f.DependencyError,
        "a module cannot be imported: its parts are missing or of versions that do not fit",
        r"cannot import name |DLL load failed|.*undefined symbol: |numpy\.\S+ failed to import|.*failed to "
        r"import|\S+\.so\S*: |.*[Pp]lease (?:re)?install|.*incompatible architecture|.*requires? \S+ ?[<>=]=|"
        r"IMPORTANT: PLEASE READ THIS FOR ADVICE|Numba needs NumPy",
        "cannot import name 'get_probe' from 'probeinterface'",
        "Python's import system, numpy, numba",
        errors="ImportError",
    ),
    Signature(
        f.DependencyError,
        "cuDNN or cuBLAS is of another version than PyTorch needs",
        r"cuDNN version incompatibility|.*CUDNN_STATUS_(?:VERSION|SUBLIBRARY)\w*MISMATCH|"
        r"Could not load library libcu\w+|.*libcudnn\w*\.so[\w.]*: cannot open",
        "cuDNN version incompatibility: PyTorch was compiled  against (8, 9, 2) but found runtime "
        "version (8, 5, 0).",
        "torch/backends/cudnn/__init__.py 2.13",
        errors="RuntimeError",
    ),
    Signature(
        f.DependencyError,
        "numba cannot write its cache (set NUMBA_CACHE_DIR)",
        r"cannot cache function ",
        "cannot cache function 'f': no locator available for file '/env/x.py'",
        "numba/core/caching.py 0.68",
        errors="RuntimeError",
    ),
    Signature(
        f.DependencyError,
        "a program that the sorter starts is missing",
        r"(?:\S+: line \d+: |/bin/\w+: \d+: |\w+: )(?P<module>(?!matlab|docker|singularity|apptainer)"
        r"[\w.+-]+): (?:command not found|not found)$|Exception: Bash is not installed",
        "/bin/sh: 1: spyking-circus: not found",
        "sh and bash; spikeinterface/sorters/utils/misc.py 0.105.3",
    ),
)

ENVIRONMENT: tuple[Signature, ...] = (
    *CONTAINER,
    *MATLAB,
    *_RECORDING,
    *_SORTER,
    *GPU,
    *_DEPENDENCY,
)
