"""The sentences about GPUs that cannot be used."""

import pytest

from finetune_trainer.errors import GPUUnusableError, OutOfGPUMemoryError
from finetune_trainer.gpu import GPU, check_capability, check_driver, check_memory

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


def test_a_card_newer_than_the_build_passes() -> None:
    check_capability("B300", (10, 3), ["sm_75", "sm_80", "sm_90"])


def test_weights_larger_than_the_card_never_fit() -> None:
    with pytest.raises(OutOfGPUMemoryError, match="need about 40000 MiB and NVIDIA L4 has 23034 MiB"):
        check_memory(L4, 40000)


def test_a_card_that_others_use_is_another_nodes_chance() -> None:
    with pytest.raises(GPUUnusableError, match="only 20000 of 23034 MiB"):
        check_memory(L4, 21000)
