"""Signatures of resource failures: too little memory, disk or time."""

from spikecanary import failures as f
from spikecanary.failures.signatures.row import Signature

_GPU_MEMORY = (
    Signature(
        f.GPUOutOfMemoryError,
        "the GPU's memory was not enough",
        r"(?:CUDA|HIP|XPU|MPS(?: backend)?) out of memory|Out of memory allocating [\d,]+ bytes|"
        r"Allocation on device|(?:CUDA|HIP)(?: driver)? error: out of memory|cuda runtime error \(2\)",
        "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 23.64 GiB",
        "torch/cuda and c10/cuda/CUDACachingAllocator.cpp 2.13; cupy",
        errors="OutOfMemoryError RuntimeError AcceleratorError",
    ),
    Signature(
        f.GPUOutOfMemoryError,
        "a CUDA library could not allocate memory on the GPU",
        r".*(?:CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|CUFFT_ALLOC_FAILED|"
        r"CUSOLVER_STATUS_ALLOC_FAILED|CUSPARSE_STATUS_(?:ALLOC_FAILED|INSUFFICIENT_RESOURCES)|"
        r"cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuBLAS, cuDNN, cuFFT through torch, cupy and numba",
        errors="RuntimeError AcceleratorError CUDARuntimeError CudaAPIError CUDADriverError CUFFTError "
        "CUBLASError MemoryError",
    ),
    Signature(
        f.GPUOutOfMemoryError,
        "the GPU's memory was not enough",
        r"ResourceExhaustedError: |.*OOM when allocating tensor",
        "OOM when allocating tensor with shape[64,512,512]",
        "tensorflow",
        errors="ResourceExhaustedError",
    ),
    Signature(
        f.GPUOutOfMemoryError,
        "the GPU's memory was not enough",
        r"(?:-{10,})?(?:Error using \S*(?: +\S+)?\n|Error in \S+.*\n)?(?:Out of memory on device\.|.*on the GPU "
        r"failed with CUDA error status: out of memory|The CUDA error was:\s*(?:CUDA_ERROR_OUT_OF_MEMORY|out of "
        r"memory)|.*Maximum variable size allowed on the device is exceeded|.*CUDA_ERROR_OUT_OF_MEMORY$|"
        r"An unexpected error occurred during CUDA execution\. The CUDA error was:\n(?:CUDA_ERROR_OUT_OF_MEMORY|"
        r"out of memory))",
        "----------------------------------------Error using gpuArray/filter\n"
        "Out of memory on device. To view more detail about available memory on the GPU, use "
        "'gpuDevice()'.",
        "MATLAB's gpuArray, in logs of Kilosort 2, 2.5 and 3",
    ),
)

_HOST_MEMORY = (
    Signature(
        f.HostMemoryWatchdogError,
        "the host's memory was not enough",
        r"",
        "",
        "Python and numpy: MemoryError",
        errors="MemoryError _ArrayMemoryError ArrayMemoryError",
    ),
    Signature(
        f.HostMemoryWatchdogError,
        "the host's memory was not enough",
        r".*(?:\[Errno 12\] Cannot allocate memory|\[WinError (?:8|14|1450|1455)\] |DefaultCPUAllocator: (?:can't allocate|not enough) memory|"
        r"std::bad_alloc|Unable to allocate \S+ \w?i?B for an array)",
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 240000000 bytes. Error code 12 (Cannot allocate memory)",
        "c10/core/impl/alloc_cpu.cpp 2.13; errno 12",
        errors="OSError RuntimeError Exception error",
    ),
    Signature(
        f.HostMemoryWatchdogError,
        "the kernel or the scheduler ended the sort for its memory",
        r"(?:slurmstepd: |srun: )?error: (?:.*Detected \d+ oom[-_]kill event|(?:.*: )?Exceeded (?:job|step) memory "
        r"limit|Job \d+ exceeded (?:virtual )?memory limit|.*[Oo]ut [Oo]f [Mm]emory)|(?:\[[ \d.]+\] |.*kernel: )?(?:Memory cgroup o|O)ut of memory: Kill(?:ed)? "
        r"process|.*oom-kill:constraint=|.*TERM_MEMLIMIT|.*PBS: job killed: (?:v?mem|vmem) |State: "
        r"OUT_OF_MEMORY",
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=812044.batch. Some of your processes "
        "may have been killed by the cgroup out-of-memory handler.",
        "Slurm 22.05 and later; the Linux kernel's log; LSF; PBS",
    ),
    Signature(
        f.HostMemoryWatchdogError,
        "a worker process was killed, as the kernel does when memory runs out",
        r"(?:[\w.]+TerminatedWorkerError: .*\n(?:.*\n){0,4}The exit codes of the workers are \{[^}]*SIGKILL|"
        r"subprocess\.CalledProcessError: .* died with <Signals\.SIGKILL: 9>|(?:\S+: )+line \d+: +\d+ "
        r"Killed(?: |$)|terminate called after throwing an instance of 'std::bad_alloc'|LLVM ERROR: out of "
        r"memory|MemoryError$)",
        "subprocess.CalledProcessError: Command '['bash', 'run.sh']' died with <Signals.SIGKILL: 9>.",
        "joblib's loky, subprocess, bash",
    ),
    Signature(
        f.HostMemoryWatchdogError,
        "MATLAB ran out of the host's memory",
        r"(?:-{10,})?(?:Error using \S+.*\n)?(?:Out of memory\.(?: Type \"?help memory|$)|Requested .* array exceeds "
        r"maximum array size|.*exceeds maximum array size preference)",
        "----------------------------------------Out of memory.",
        "MATLAB, in logs of Kilosort 2.5",
    ),
    Signature(
        f.HostMemoryWatchdogError,
        "the limit on processes, threads or open files is reached (ulimit)",
        r"\[Errno (?:24|23)\] Too many open files|can't start new thread|\[Errno 11\] Resource temporarily "
        r"unavailable$|pthread_create failed|.*Too many open files$|received 0 items of ancdata",
        "[Errno 24] Too many open files: '/data/x'",
        "errno 11 of fork, 23, 24; Python's threading; torch's file_descriptor sharing",
        errors="OSError BlockingIOError RuntimeError",
    ),
)

_DISK = (
    Signature(
        f.HostMemoryWatchdogError,
        "shared memory (/dev/shm) is used up",
        r".*(?:insufficient shared memory \(shm\)|unable to (?:open|write to|resize) (?:shared memory object|file "
        r"</torch_)|unable to mmap \d+ bytes from file <)|\[Errno 28\] No space left on device: '/(?:dev/shm/|psm_)",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
        "workers are out of shared memory. Please try to raise your shared memory limit: insufficient "
        "shared memory (shm)",
        "torch's DataLoader and multiprocessing.shared_memory",
        errors="RuntimeError OSError",
    ),
    Signature(
        f.DiskExhaustionError,
        "the disk is full, or the quota used up",
        r".*(?:\[Errno (?:28|122)\] |\[WinError (?:39|112)\] |[Nn]o space left on device|Disk quota exceeded|Not enough free space to "
        r"write|errno = 28\b|requested and \d+ written)",
        "[Errno 28] No space left on device",
        "errno 28, 122; numpy/lib/format.py; h5py; dockerd",
        errors="OSError RuntimeError APIError IOError SpikeSortingError Exception",
    ),
    Signature(
        f.DiskExhaustionError,
        "a file could not be written to its end, as on a full disk",
        r"\[enforce fail at inline_container\.cc:\d+\] ?\. (?:unexpected pos \d+ vs \d+|PytorchStreamWriter failed)|"
        r"PytorchStreamWriter failed writing",
        "[enforce fail at inline_container.cc:672] . unexpected pos 640 vs 534",
        "caffe2/serialize/inline_container.cc 2.13, torch.save on a full disk",
        errors="RuntimeError",
    ),
    Signature(
        f.DiskExhaustionError,
        "the disk is full, or the quota used up",
        r"(?:-{10,})?(?:Error using \S+\n)?(?:Cannot write to file\. No space left on device|Unable to write file .*(?:"
        r"disk|space)|.*: write (?:error|failed):? No space left on device|(?:cp|mv|tar|dd|rsync|cat|tee): .*No space "
        r"left on device|(?:FATAL|ERROR|WARNING):? +.*: no space left on device$)",
        "----------------------------------------Error using fwrite\n"
        "Cannot write to file. No space left on device",
        "MATLAB's fwrite, in logs of Kilosort 2.5; programs; singularity",
    ),
)

_IO = (
    Signature(
        f.IOStallError,
        "the storage failed: a read or write error, or a network drive that went away",
        r".*\[Errno (?:5|116|107|112|121|103|110|70|108)\] (?:Input/output error|Stale (?:NFS )?file handle|Transport "
        r"endpoint|Host is down|Remote I/O error|Software caused connection abort|Connection timed out|"
        r"Communication error|Cannot send after transport)|.*errno = (?:5|116), error message = '",
        "[Errno 116] Stale file handle",
        "errno 5, 70, 103, 107, 108, 110, 112, 116, 121",
        errors="OSError RuntimeError ConnectionAbortedError TimeoutError BrokenPipeError SpikeSortingError",
    ),
)

_TIME = (
    Signature(
        f.SorterTimeoutError,
        "a process of the sort ran over its time limit",
        r"Command .* timed out after (?P<limit_s>[\d.]+) seconds",
        "Command '['sleep', '30']' timed out after 1.999975703999553 seconds",
        "Python's subprocess",
        errors="TimeoutExpired",
    ),
    Signature(
        f.SorterTimeoutError,
        "the scheduler ended the job at its time limit",
        r"(?:slurmstepd: |srun: )?(?:error: )?\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ DUE TO TIME LIMIT|.*PBS: "
        r"job killed: walltime|.*TERM_RUNLIMIT|State: TIMEOUT",
        "slurmstepd: error: *** JOB 812044 ON node07 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***",
        "Slurm, PBS, LSF",
    ),
    Signature(
        f.SorterTimeoutError,
        "the container runtime did not answer in time",
        r"UnixHTTPConnectionPool\(.*Read timed out",
        "UnixHTTPConnectionPool(host='localhost', port=None): Read timed out. (read timeout=60)",
        "requests, under docker 7.1.0",
        errors="ReadTimeout ReadTimeoutError ConnectionError",
    ),
)

RESOURCE: tuple[Signature, ...] = (*_GPU_MEMORY, *_DISK, *_HOST_MEMORY, *_IO, *_TIME)
