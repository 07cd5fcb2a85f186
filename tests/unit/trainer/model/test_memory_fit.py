from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.job import FineTuneJob
from finetune_api.memory import Shape
from finetune_api.plan import Defaults, Plan
from finetune_api.render import render
from finetune_trainer.errors import OutOfGPUMemoryError
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.model import memory_fit
from tests.support.trainer_job import JOB

SHAPE = Shape(4096, 14336, 32, 4096, 1024, 128256, tied=False)
STEPS = [[200, 300, 400, 500, 600, 700, 800, 900]]


def plan(**training: Any) -> Plan:
    return render(FineTuneJob.model_validate({**JOB, "spec": JOB["spec"] | {"training": training}}), Defaults())


def first(free_mib: int | None, **training: Any) -> MemorySettings:
    return memory_fit.first_settings(plan(**training), SHAPE, STEPS, free_mib)


def test_a_large_gpu_takes_the_whole_step_at_once_and_computes_nothing_twice() -> None:
    assert first(80_000) == MemorySettings(8, "None")


def test_a_gpu_of_16_gib_takes_the_whole_step_and_computes_activations_again() -> None:
    assert first(15_000) == MemorySettings(8, "Standard")


def test_a_smaller_micro_batch_is_what_fits_next() -> None:
    assert first(8_800) == MemorySettings(4, "Offload")


def test_processes_that_train_together_hold_their_gradients_twice() -> None:
    alone, together = (memory_fit.estimate(plan(), SHAPE, MemorySettings(1, "None"), STEPS, count) for count in (1, 8))
    weights = SHAPE.adapter_parameters(plan().training.lora.rank, plan().training.lora.target_modules)
    assert together.adapter - alone.adapter == pytest.approx(4 * weights / 1024**2, abs=1)


def test_if_nothing_fits_the_most_frugal_settings_are_tried() -> None:
    assert first(4_000) == MemorySettings(1, "Offload")


def test_what_the_user_set_stays() -> None:
    assert first(80_000, microBatchSize=2, gradientCheckpointing="Offload") == MemorySettings(2, "Offload")
    assert first(15_000, microBatchSize=1) == MemorySettings(1, "None")


@pytest.mark.parametrize(("batch_size", "micro"), [(8, 2), (5, 1)])
def test_without_a_gpu_two_examples_are_taken_where_that_divides(batch_size: int, micro: int) -> None:
    assert first(None, batchSize=batch_size) == MemorySettings(micro, "Offload")


def test_the_longest_micro_batch_counts_its_padding() -> None:
    assert memory_fit.longest([[10, 20, 30, 40]], 2) == 40
    assert memory_fit.longest([[10, 20, 30, 40], [70]], 4) == 40
    assert memory_fit.longest([[10, 20, 30, 40], [170]], 4) == 43


def test_what_the_job_needs_at_least_is_reported() -> None:
    assert memory_fit.check(plan(), SHAPE, 900) == pytest.approx(7549, rel=0.02)


def test_a_model_of_unknown_sizes_is_not_judged() -> None:
    assert memory_fit.check(plan(), None, 900) is None


def test_a_gpu_that_is_too_small_is_refused_with_the_parts() -> None:
    with pytest.raises(OutOfGPUMemoryError, match=r"at least \(weights 5438, adapter 400, .*memoryMiB is 6000"):
        memory_fit.check(plan().model_copy(update={"gpu_memory_mib": 6000}), SHAPE, 900)


@given(st.lists(st.lists(st.integers(1, 2000), min_size=8, max_size=8).map(sorted), min_size=1, max_size=5))
def test_no_settings_take_less_than_the_minimum(steps: list[list[int]]) -> None:
    least = memory_fit.check(plan(), SHAPE, max(map(max, steps)))
    for memory_settings in memory_fit.candidates(plan()):
        assert memory_fit.estimate(plan(), SHAPE, memory_settings, steps).total_mib >= (least or 0)
