"""Signatures of GPUs that cannot be used: none, busy, lost, or not with this software."""

from spikecanary import failures as f
from spikecanary.failures.signatures.row import Signature

GPU: tuple[Signature, ...] = (
    Signature(
        f.GPUUnavailableError,
        "CUDA was asked for, but this PyTorch is built without it",
        r"Torch not compiled with CUDA enabled|.*not compiled with CUDA support",
        "Torch not compiled with CUDA enabled",
        "torch/cuda/__init__.py 2.13.0+cpu, _lazy_init",
        errors="AssertionError RuntimeError",
        evidence={"device": "cuda"},
    ),
    Signature(
        f.GPUUnavailableError,
        "CUDA was asked for, but this machine has no usable GPU or driver",
        r"Found no NVIDIA driver on your system|No CUDA GPUs are available|"
        r"(?:CUDA error: |cudaErrorNoDevice: )?no CUDA-capable device is detected|"
        r"CUDA unknown error - this may be due to an incorrectly set up environment|"
        r"CUDA driver initialization failed|.*nvmlInit_v2_\(\) INTERNAL ASSERT FAILED|"
        r"cuda runtime error \((?:35|38|46|209)\)|Unexpected error from cudaGetDeviceCount\(\)|"
        r"Attempting to deserialize object on (?:a )?CUDA device|Error at driver init|"
        r".*CUDA_ERROR_NO_DEVICE|CUDA error: (?:initialization error|system not yet initialized|"
        r"system has unsupported display driver)",
        "No CUDA GPUs are available",
        "torch/csrc/cuda and c10/cuda/CUDAFunctions.cpp 2.13; numba; cupy",
        errors="RuntimeError AcceleratorError CudaSupportError CudaAPIError CUDARuntimeError",
        evidence={"device": "cuda"},
    ),
    Signature(
        f.GPUUnavailableError,
        "the NVIDIA driver is too old for this PyTorch, or does not go with it",
        r"The NVIDIA driver on your system is too old|"
        r".*CUDA driver version is insufficient for CUDA runtime version|"
        r"CUDA error: the provided PTX was compiled with an unsupported toolchain|"
        r".*forward compatibility was attempted on non supported HW|.*CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        "The NVIDIA driver on your system is too old (found version 11040).",
        "torch/csrc/cuda/Module.cpp 2.13; CUDA runtime error 35, 222, 804",
        errors="RuntimeError AcceleratorError CUDARuntimeError CudaAPIError LinkerError",
    ),
    Signature(
        f.GPUUnavailableError,
        "this PyTorch has no kernels for this GPU",
        r".*no kernel image is available for execution on the device|"
        r"CUDA error: device kernel image is invalid|.*is not compatible with the current PyTorch "
        r"installation|.*CUDA_ERROR_NO_BINARY_FOR_GPU|.*CUBLAS_STATUS_ARCH_MISMATCH|"
        r".*CUDNN_STATUS_ARCH_MISMATCH|.*named symbol not found$",
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA runtime error 209 through torch, cupy and numba",
        errors="RuntimeError AcceleratorError CUDARuntimeError CudaAPIError CompileException",
    ),
    Signature(
        f.GPUUnavailableError,
        "the GPU with that number is not there",
        r"CUDA error: invalid device ordinal|.*cudaErrorInvalidDevice|Invalid device id|"
        r"Invalid CUDA 'device=.*' requested",
        "CUDA error: invalid device ordinal",
        "CUDA runtime error 101 through torch and cupy",
        errors="RuntimeError AcceleratorError AssertionError CUDARuntimeError ValueError",
    ),
    Signature(
        f.GPUUnavailableError,
        "the GPU is busy or reserved by another process",
        r".*(?:all CUDA-capable devices are busy or unavailable|device\(s\) is/are busy or unavailable|"
        r"cudaErrorDevicesUnavailable|exclusive \(?thread|prohibited mode)",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "CUDA runtime error 46 through torch",
        errors="RuntimeError AcceleratorError CUDARuntimeError",
    ),
    Signature(
        f.GPUUnavailableError,
        "the GPU was lost or reports a hardware error",
        r".*(?:uncorrectable (?:ECC|NVLink) error|GPU (?:has fallen off the bus|is lost)|"
        r"the launch timed out and was terminated|hardware stack error)",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA runtime errors 214, 220, 702 through torch",
        errors="RuntimeError AcceleratorError CUDARuntimeError NVMLError_GpuIsLost NVMLError",
    ),
    Signature(
        f.GPUUnavailableError,
        "the NVIDIA driver does not answer, or its parts are of different versions",
        r"(?:RuntimeError: |Exception: |[\w.]*NVMLError\w*: )?(?:Failed to initialize NVML: |NVIDIA-SMI "
        r"has failed because it couldn't communicate|Driver/library version mismatch|NVML Shared Library "
        r"Not Found|Unable to determine the device handle for GPU|NVML: |Driver Not Loaded|GPU is lost)",
        "Failed to initialize NVML: Driver/library version mismatch",
        "nvidia-smi and nvidia-ml-py",
    ),
    Signature(
        f.GPUUnavailableError,
        "the NVIDIA driver does not answer, or its parts are of different versions",
        r"",
        "RM has detected an NVML/RM version mismatch.",
        "nvidia-ml-py",
        errors="NVMLError_LibRmVersionMismatch NVMLError_DriverNotLoaded NVMLError_LibraryNotFound "
        "NVMLError_GpuIsLost NVMLError_Uninitialized NVMLError_NoPermission",
    ),
    Signature(
        f.GPUUnavailableError,
        "MATLAB cannot use this GPU: none, or not with this version and driver",
        r"(?:-{10,}|Error using \S+\n|Error: )?(?:Graphics driver is out of date|The device selected .* does not have sufficient compute|No supported GPU device was found|Unable to find a "
        r"supported GPU device|There is a problem with the (?:graphics driver|CUDA driver)|Graphics driver "
        r"is not supported|The CUDA driver could not be loaded|\w+ in CUBLAS failed with status: (?:UNKNOWN|"
        r"ARCH_MISMATCH|NOT_SUPPORTED)|.*device compute capability .* not supported|Unable to run the "
        r"requested kernel|.*CUDA_ERROR_NO_BINARY_FOR_GPU|.*forward compatibility of GPU|The CUDA error was:"
        r"\n(?:no kernel image is available|CUDA_ERROR_NO_DEVICE|CUDA driver version is insufficient)|"
        r"Invalid device id: \d)",
        "----------------------------------------Error using  *\n"
        "sgemm in CUBLAS failed with status: UNKNOWN",
        "MATLAB's Parallel Computing Toolbox, in logs of Kilosort 2, 2.5 and 3",
    ),
)
