"""Checks this node's GPU in the first second of train, before anything is downloaded."""

import ctypes
import logging
import math
import re
from dataclasses import dataclass

from finetune_trainer.errors import GPUUnusableError, ModelError, OutOfGPUMemoryError, StageError
from finetune_trainer.gpu.memory_fallback import Shortage

# Oldest Linux driver by major CUDA version of torch, by NVIDIA's table of minor version compatibility
# (CUDA Toolkit release notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version Compatibility").
OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
_MIB = 1024 * 1024
# How torch, the CUDA libraries, bitsandbytes, transformers and Unsloth report that GPU memory ran out.
_OUT_OF_MEMORY = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "No or negligible GPU memory",
    "enough GPU RAM",
)
# Ampere and newer compute in BF16; older ones, such as T4, in FP16 with a scaled loss.
BF16_SINCE = (8, 0)
# With less than this share free, another program uses the GPU.
_USUALLY_FREE = 0.9
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GPU:
    """One device as torch and the driver describe it."""

    name: str
    driver: str | None
    capability: tuple[int, int]
    free_mib: int
    total_mib: int
    has_bf16: bool


def find(allow_cpu: bool) -> GPU | None:
    """Return the GPU, or None if there is none and training on the CPU is allowed.

    Raises:
        GPUUnusableError: there is none, or it does not work.
    """
    import torch

    driver = _driver_version()
    if driver is None and allow_cpu and not torch.cuda.is_available():
        return None
    check_driver(driver, torch.version.cuda)
    try:
        # A kernel that runs, not only a device that is listed: a GPU with a hardware error is listed too.
        total = int(torch.ones(8, device="cuda").sum().item())
    except (RuntimeError, AssertionError) as error:
        if ran_out(error):
            raise GPUUnusableError(
                "the memory of this node's GPU is full: another program uses it; another node will be tried"
            ) from error
        raise GPUUnusableError(
            f"the GPU of this node does not work: {_first_line(error)}; another node will be tried"
        ) from error
    check_sum(total)
    capability = torch.cuda.get_device_capability()
    check_capability(torch.cuda.get_device_name(), capability, torch.cuda.get_arch_list())
    free, whole = torch.cuda.mem_get_info()
    found = GPU(
        name=torch.cuda.get_device_name(),
        driver=driver,
        capability=capability,
        free_mib=free // _MIB,
        total_mib=whole // _MIB,
        has_bf16=capability >= BF16_SINCE,
    )
    for sentence in in_words(found):
        log.info("%s", sentence)
    return found


def in_words(gpu: GPU) -> list[str]:
    """Return the lines with which the log begins: the GPU, and whether another program uses it."""
    lines = [
        f"{gpu.name}, driver {gpu.driver}, compute capability {gpu.capability[0]}.{gpu.capability[1]}, "
        f"{gpu.free_mib} of {gpu.total_mib} MiB free"
    ]
    if gpu.free_mib < _USUALLY_FREE * gpu.total_mib:
        lines.append(
            f"another program uses {gpu.total_mib - gpu.free_mib} MiB of this GPU: training gets only the rest, so it "
            "may be slower or not fit"
        )
    return lines


def check_sum(total: int) -> None:
    """Check what the GPU made of the sum of eight ones.

    Raises:
        GPUUnusableError: it is wrong.
    """
    if total != 8:
        raise GPUUnusableError(
            f"the GPU of this node computes wrong results (8 ones add up to {total}); another node will be tried"
        )


def check_driver(driver: str | None, cuda: str | None) -> None:
    """Compare the driver with what torch's CUDA version needs.

    Raises:
        GPUUnusableError: there is no driver, or it is too old.
    """
    if driver is None:
        raise GPUUnusableError(
            "no NVIDIA driver is visible in this pod, so there is no GPU to train on; check the device plugin and "
            "spec.compute.accelerator and spec.compute.runtimeClassName, or ask the administrator to "
            "set trainer.allowCPU for a trial without a GPU"
        )
    if cuda is None:
        raise GPUUnusableError("this trainer image has a torch without CUDA; use the image that belongs to the chart")
    oldest = OLDEST_DRIVER.get(int(cuda.split(".")[0]))
    if oldest is not None and _numbers(driver) < _numbers(oldest):
        raise GPUUnusableError(
            f"the node's NVIDIA driver {driver} is too old for CUDA {cuda}, which needs {oldest} or newer; "
            "update the driver, choose another node, or use the trainer image for an older CUDA"
        )


def check_capability(name: str, capability: tuple[int, int], built_for: list[str]) -> None:
    """Compare the GPU's generation with those that torch was built for (such as sm_75).

    Raises:
        GPUUnusableError: the GPU is older than all of them.
    """
    known = sorted(int(arch.split("_")[1].rstrip("af")) for arch in built_for if arch.startswith("sm_"))
    number = capability[0] * 10 + capability[1]
    if known and number < known[0]:
        raise GPUUnusableError(
            f"{name} (compute capability {capability[0]}.{capability[1]}) is too old: this trainer image needs "
            f"{known[0] // 10}.{known[0] % 10} or newer; choose another node with spec.compute.nodeSelector"
        )


def check_memory(gpu: GPU, weights_mib: int) -> None:
    """Compare free memory with what the weights alone take, before they are downloaded.

    Raises:
        OutOfGPUMemoryError: they never fit this GPU.
        GPUUnusableError: they would, if no other program used the GPU.
    """
    if weights_mib > gpu.total_mib:
        raise OutOfGPUMemoryError(
            f"the model's weights alone need about {weights_mib} MiB and {gpu.name} has {gpu.total_mib} MiB; "
            "choose a smaller model, spec.model.quantization NF4, or a larger GPU"
        )
    if weights_mib > gpu.free_mib:
        raise GPUUnusableError(
            f"only {gpu.free_mib} of {gpu.total_mib} MiB of {gpu.name} are free and the weights need about "
            f"{weights_mib} MiB: another program uses this GPU; another node will be tried"
        )


def ran_out(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised from, means that GPU memory ran out."""
    while error is not None:
        text = str(error)
        if type(error).__name__ == "OutOfMemoryError" or any(sign in text for sign in _OUT_OF_MEMORY):
            return True
        error = error.__cause__
    return False


def shortage(gpu: GPU | None, error: BaseException) -> Shortage | None:
    """Return the shortage that an error reports on `gpu`, or None if it is another error."""
    mine = isinstance(error, StageError) and not isinstance(error, ModelError)
    if mine or gpu is None or not ran_out(error):
        return None
    return Shortage(gpu.name, gpu.free_mib, (peak_mib() or 0) + asked_mib(error))


def asked_mib(error: BaseException) -> int:
    """Return how much memory torch failed to allocate, in MiB; 0 if its error does not say."""
    found = re.search(r"[Tt]ried to allocate ([0-9.]+) (KiB|MiB|GiB)", str(error))
    return math.ceil(float(found[1]) * {"KiB": 1 / 1024, "MiB": 1, "GiB": 1024}[found[2]]) if found else 0


def peak_mib() -> int | None:
    """Return the most GPU memory that torch reserved, or None on a CPU."""
    import torch

    return int(torch.cuda.max_memory_reserved()) // _MIB if torch.cuda.is_available() else None


def _driver_version() -> str | None:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    text = ctypes.create_string_buffer(96)
    if nvml.nvmlInit_v2() != 0 or nvml.nvmlSystemGetDriverVersion(text, len(text)) != 0:
        return None
    return text.value.decode()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
