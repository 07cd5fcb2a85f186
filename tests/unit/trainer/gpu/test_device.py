"""The sentences about GPUs that cannot be used."""

from dataclasses import replace

import pytest

from finetune_trainer.errors import GPUUnusableError, ModelError, OutOfGPUMemoryError
from finetune_trainer.gpu.device import (
    GPU,
    asked_mib,
    check_capability,
    check_driver,
    check_memory,
    check_sum,
    in_words,
    ran_out,
)

L4 = GPU("NVIDIA L4", "570.86.10", (8, 9), 20000, 23034, has_bf16=True)


def test_no_driver_means_no_gpu() -> None:
    with pytest.raises(GPUUnusableError, match="no NVIDIA driver is visible in this pod"):
        check_driver(None, "12.8")


def test_a_torch_without_cuda_is_the_wrong_image() -> None:
    with pytest.raises(GPUUnusableError, match="torch without CUDA"):
        check_driver("570.86.10", None)


@pytest.mark.parametrize(("driver", "cuda"), [("525.60.12", "12.8"), ("470.256.02", "12.8"), ("570.86.10", "13.0")])
def test_an_old_driver_is_named_with_what_is_needed(driver: str, cuda: str) -> None:
    with pytest.raises(GPUUnusableError, match=rf"driver {driver} is too old for CUDA {cuda}"):
        check_driver(driver, cuda)


@pytest.mark.parametrize(("driver", "cuda"), [("525.60.13", "12.8"), ("580.65.06", "13.0"), ("580.105.8", "13.0")])
def test_a_new_enough_driver_passes(driver: str, cuda: str) -> None:
    check_driver(driver, cuda)


def test_an_old_card_is_refused() -> None:
    with pytest.raises(GPUUnusableError, match=r"Tesla P4 .*6\.1.* needs 7\.5"):
        check_capability("Tesla P4", (6, 1), ["sm_75", "sm_80", "sm_90a", "compute_120"])


def test_a_gpu_that_computes_wrong_results_is_another_nodes_chance() -> None:
    check_sum(8)
    with pytest.raises(GPUUnusableError, match=r"computes wrong results \(8 ones add up to 7\)"):
        check_sum(7)


def test_a_card_newer_than_the_build_passes() -> None:
    check_capability("B300", (10, 3), ["sm_75", "sm_80", "sm_90"])


def test_weights_larger_than_the_card_never_fit() -> None:
    with pytest.raises(OutOfGPUMemoryError, match="need about 40000 MiB and NVIDIA L4 has 23034 MiB"):
        check_memory(L4, 40000)


def test_a_card_that_others_use_is_another_nodes_chance() -> None:
    with pytest.raises(GPUUnusableError, match="only 20000 of 23034 MiB"):
        check_memory(L4, 21000)


def test_the_log_begins_with_what_the_gpu_is() -> None:
    assert in_words(replace(L4, free_mib=22500)) == [
        "NVIDIA L4, driver 570.86.10, compute capability 8.9, 22500 of 23034 MiB free"
    ]


def test_a_gpu_that_others_use_is_said_to_be() -> None:
    assert in_words(L4)[1].startswith("another program uses 3034 MiB of this GPU")


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Error out of memory at line 380 in file /src/csrc/pythonInterface.cpp",
        "Unsloth: No or negligible GPU memory available for fused cross entropy.",
        "Make sure you have enough GPU RAM to fit the quantized model.",
    ],
)
def test_every_library_that_runs_out_of_memory_is_understood(text: str) -> None:
    assert ran_out(RuntimeError(text))


def test_memory_that_ran_out_is_found_below_other_errors() -> None:
    error = ModelError("the model could not be loaded")
    error.__cause__ = ValueError("enough GPU RAM")
    assert ran_out(error)


@pytest.mark.parametrize(
    "text", ["mat1 and mat2 shapes cannot be multiplied", "DefaultCPUAllocator: not enough memory"]
)
def test_other_errors_are_not_taken_for_it(text: str) -> None:
    assert not ran_out(RuntimeError(text))


@pytest.mark.parametrize(
    ("text", "expected"), [("Tried to allocate 2.50 GiB. GPU 0", 2560), ("Tried to allocate 20.00 MiB", 20), ("no", 0)]
)
def test_the_amount_that_was_asked_for_is_read(text: str, expected: int) -> None:
    assert asked_mib(RuntimeError(text)) == expected
