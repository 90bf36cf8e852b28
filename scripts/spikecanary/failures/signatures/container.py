"""Signatures of containers and of MATLAB: runtime, image, licence, mex files."""

from spikecanary import failures as f
from spikecanary.failures.signatures.row import Signature

CONTAINER: tuple[Signature, ...] = (
    Signature(
        f.ContainerEnvironmentError,
        "the docker client or its Python package is not installed",
        r"(?:RuntimeError: )?(?:Docker is not installed\. Install docker|The python `docker` package must be "
        r"installed)|(?:\S+: )*(?:line \d+: |\d+: )?docker: (?:command )?not found|FileNotFoundError: "
        r"\[Errno 2\] No such file or directory: 'docker'",
        "RuntimeError: Docker is not installed. Install docker on this machine to run sorting with "
        "docker.",
        "spikeinterface/sorters/runsorter.py 0.105.3, run_sorter",
        evidence={"reason": "client_missing"},
    ),
    Signature(
        f.ContainerEnvironmentError,
        "this user may not talk to the docker daemon",
        r"(?:docker\.errors\.DockerException: Error while fetching server API version: .*Permission ?[Dd]enied"
        r"|.*permission denied while trying to connect to the Docker daemon socket)",
        "docker.errors.DockerException: Error while fetching server API version: ('Connection "
        "aborted.', PermissionError(13, 'Permission denied'))",
        "docker/api/client.py 7.1.0",
        evidence={"reason": "permission_denied"},
    ),
    Signature(
        f.ContainerEnvironmentError,
        "the docker daemon does not answer",
        r"docker\.errors\.DockerException: (?:Error while fetching server API version|Credentials store error): |"
        r"(?:docker: )?(?:Cannot connect to the Docker daemon|error during connect: )",
        "docker.errors.DockerException: Error while fetching server API version: ('Connection "
        "aborted.', FileNotFoundError(2, 'No such file or directory'))",
        "docker/api/client.py 7.1.0, _retrieve_server_version; the docker command",
        evidence={"reason": "daemon_down"},
    ),
    Signature(
        f.ContainerEnvironmentError,
        "the container image is not there, or cannot be pulled",
        r"(?:docker\.errors\.)?ImageNotFound: |(?:docker\.errors\.)?(?:APIError|NotFound): .*(?:toomanyrequests|"
        r"pull access denied|manifest (?:unknown|for .* not found)|No such image|repository .* not found|"
        r"unauthorized|registry-1\.docker\.io|denied: requested access|dial tcp: lookup|i/o timeout|"
        r"TLS handshake)|(?:docker: )?Error response from daemon: (?:pull access denied|manifest|Get |"
        r"No such image|toomanyrequests)|(?:ERROR +\[?'?)?FATAL: +(?:Unable to (?:pull|handle) docker|While "
        r"(?:making image from oci|pulling)|Unable to get library client|initializing source docker|.*docker:"
        r"//.*(?:unauthorized|denied|dial tcp|toomanyrequests|manifest unknown))",
        "docker.errors.APIError: 500 Server Error for http+docker://localhost/v1.43/images/create: "
        'Internal Server Error ("toomanyrequests: You have reached your pull rate limit.")',
        "docker 7.1.0 for Python; singularity and apptainer pull",
        evidence={"reason": "image_pull_failed"},
    ),
    Signature(
        f.ContainerEnvironmentError,
        "the container runtime cannot give the GPU to the container",
        r"(?:docker\.errors\.)?APIError: .*(?:could not select device driver|[Uu]nknown (?:or invalid )?runtime "
        r"(?:name|specified)|nvidia-container-cli|unsatisfied condition: cuda)|(?:docker: )?Error response from "
        r"daemon: .*(?:could not select device driver|nvidia-container-cli|[Uu]nknown runtime)|"
        r"nvidia-container-cli: |(?:INFO|WARNING|FATAL): +(?:Could not find any nv files|nvidia-container-cli)",
        "docker.errors.APIError: 500 Server Error for http+docker://localhost/v1.43/containers/c/start: "
        'Internal Server Error ("could not select device driver "" with capabilities: [[gpu]]")',
        "dockerd without the NVIDIA container toolkit",
        evidence={"reason": "runtime_missing"},
    ),
    Signature(
        f.ContainerEnvironmentError,
        "singularity or apptainer is not installed",
        r"(?:RuntimeError: )?(?:Singularity is not installed\. Install singularity|The python `spython` package "
        r"must be installed)|(?:\S+: )*(?:line \d+: |\d+: )?(?:singularity|apptainer): (?:command )?not found|"
        r"FileNotFoundError: \[Errno 2\] No such file or directory: '(?:singularity|apptainer)'",
        "RuntimeError: Singularity is not installed. Install singularity on this machine to run sorting "
        "with singularity.",
        "spikeinterface/sorters/runsorter.py 0.105.3, run_sorter",
        evidence={"reason": "runtime_missing"},
    ),
    Signature(
        f.ContainerEnvironmentError,
        "singularity or apptainer may not make user namespaces here",
        r"(?:ERROR|FATAL|WARNING) *: +(?:[\w/. -]+: )*(?:[Ff]ailed to create (?:user|mount) namespace|user namespaces? (?:is|are) "
        r"(?:not enabled|disabled)|max_user_namespaces|maximum number of user namespaces|'?fakeroot'? .*not "
        r"(?:allowed|permitted|enabled)|setuid .*(?:not|disabled)|not in /etc/subuid)",
        "ERROR  : Failed to create user namespace: maximum number of user namespaces exceeded, check "
        "/proc/sys/user/max_user_namespaces",
        "apptainer's starter; 'No space left on device' of a namespace is no disk",
        evidence={"reason": "permission_denied"},
    ),
    Signature(
        f.ContainerEnvironmentError,
        "the container image cannot be read or started",
        r"(?:ERROR +\[?'?)?FATAL: +(?:no instance found with name|could not open image|While (?:checking|opening|"
        r"performing build|extracting)|container creation failed|image format not recognized|kernel too old|"
        r"[Uu]nable to (?:open|mount)|exec \S+ failed|stat \S+: no such file)(?!.*no space left)|"
        r"(?:docker\.errors\.)?(?:APIError|ContainerError): .*(?:OCI runtime|executable file not found|exec "
        r"format error)(?!.*no space left)|(?:docker: )?Error response from daemon: .*(?:OCI runtime|exec format)",
        "FATAL:   could not open image /images/ks4.sif: failed to retrieve path",
        "singularity and apptainer; runc through docker",
        evidence={"reason": "other"},
    ),
    Signature(
        f.ContainerEnvironmentError,
        "packages cannot be installed inside the container: it has no network",
        r"ERROR: (?:Could not find a version that satisfies the requirement|No matching distribution found for) "
        r"(?:spikeinterface|\S+\[full\])|WARNING: Retrying \(Retry\(total=0.*Failed to establish a new "
        r"connection|fatal: unable to access 'https://github\.com/SpikeInterface",
        "ERROR: Could not find a version that satisfies the requirement spikeinterface[full]==0.105.1 "
        "(from versions: none)",
        "pip, from spikeinterface/sorters/container_tools.py",
        evidence={"reason": "other"},
    ),
)

MATLAB: tuple[Signature, ...] = (
    Signature(
        f.MatlabRuntimeError,
        "MATLAB is not on the path of this machine",
        r"(?:\S+: )*(?:line \d+: |\d+: )?matlab: (?:command )?not found|"
        r"FileNotFoundError: \[Errno 2\] No such file or directory: 'matlab'",
        "/bin/bash: line 1: matlab: command not found",
        "bash, from spikeinterface/sorters/utils/shellscript.py",
    ),
    Signature(
        f.MatlabRuntimeError,
        "the MATLAB runtime (MCR) is missing or of another version",
        r"(?:[^'\n]*: )?(?:libmw\w+\.so[\w.]*: cannot open shared object file|Could not (?:find|load) (?:the |version "
        r"\S+ of the )?(?:MATLAB|MCR) Runtime|MCR(?:_CACHE_ROOT|ROOT)? (?:not (?:found|set)|is not)|Error "
        r"initializing the MATLAB Runtime|Could not access the MATLAB Runtime component cache|The version "
        r"of the MATLAB Runtime)",
        "./kilosort2: error while loading shared libraries: libmwlaunchermain.so: cannot open shared "
        "object file: No such file or directory",
        "programs compiled by MATLAB Compiler, in SpikeInterface's compiled images",
    ),
    Signature(
        f.MatlabRuntimeError,
        "MATLAB has no licence here",
        r"(?:-{10,})?(?:License (?:checkout failed|Manager Error)|Error: License|.*Unable to (?:check ?out|"
        r"obtain) a license|Maximum number of users for \w+ reached|Licensing error: |MATLAB is unable to "
        r"connect to the license|.*Cannot (?:connect to|find) license (?:server|file))",
        "License checkout failed.",
        "MATLAB's licence manager (FlexNet)",
    ),
    Signature(
        f.MatlabRuntimeError,
        "the sorter's mex files do not load on this system",
        r"(?:-{10,})?Invalid MEX-file '(?P<path>[^']*)'",
        "----------------------------------------Invalid MEX-file "
        "'/opt/Kilosort3/CUDA/spikedetector3.mexa64': libstdc++.so.6: version `GLIBCXX_3.4.29' not "
        "found",
        "MATLAB R2020b",
        evidence={},
    ),
    Signature(
        f.MatlabRuntimeError,
        "the sorter's mex files are not compiled, or a toolbox is missing",
        r"(?:-{10,})?(?:Error using \S+\n)?(?:Undefined function|Undefined function or variable|Unrecognized "
        r"function or variable|Undefined function or method) '(?P<path>mex\w+|gpuArray|gpuDevice|"
        r"parallel\.\w+|spikedetector\w*|butter|filtfilt|findpeaks|kmeans|pca|medfilt1|my_conv2\w*)'|"
        r"(?:-{10,})?.*requires? (?:the )?(?:Parallel Computing|Signal Processing|Statistics and Machine "
        r"Learning|Image Processing) Toolbox|(?:-{10,})?Unable to resolve the name '?parallel\.|(?:-{10,})?(?:Error using mex(?:cuda)?\n)?(?:No supported compiler (?:or SDK )?was found|Supported compiler not detected)",
        "Undefined function or variable 'mexThSpkPC'.",
        "MATLAB, Kilosort 2 without its compiled CUDA files",
    ),
)
