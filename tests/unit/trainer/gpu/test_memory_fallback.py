"""From fast to frugal, one step at a time, with messages that say what to change."""

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults, TrainingPlan
from finetune_api.render import render
from finetune_trainer.gpu import memory_fallback
from finetune_trainer.gpu.memory_fallback import Shortage
from finetune_trainer.gpu.memory_settings import Checkpointing, MemorySettings
from tests.support.trainer_job import JOB

SHORTAGE = Shortage("NVIDIA L4", 22000, 23500)


def way_down(micro: int, checkpointing: Checkpointing, batch_size: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    following = memory_fallback.more_frugal(MemorySettings(micro, checkpointing), batch_size)
    while following is not None:
        found.append((following.micro_batch_size, following.gradient_checkpointing))
        following = memory_fallback.more_frugal(following, batch_size)
    return found


@pytest.mark.parametrize(
    ("start", "batch_size", "expected"),
    [
        (
            (8, "None"),
            8,
            [(8, "Standard"), (4, "Standard"), (2, "Standard"), (2, "Offload"), (1, "Offload")],
        ),
        ((2, "Offload"), 8, [(1, "Offload")]),
        ((1, "None"), 8, [(1, "Standard"), (1, "Offload")]),
        ((8, "Offload"), 8, [(4, "Offload"), (2, "Offload"), (1, "Offload")]),
        ((9, "Standard"), 9, [(3, "Standard"), (3, "Offload"), (1, "Offload")]),
        ((1, "Offload"), 8, []),
    ],
)
def test_the_way_down(start: tuple[int, Checkpointing], batch_size: int, expected: list[tuple[int, str]]) -> None:
    assert way_down(*start, batch_size) == expected


@pytest.mark.parametrize("batch_size", [1, 6, 7, 12, 30, 64])
def test_every_micro_batch_divides_the_batch_and_the_last_settings_are_the_most_frugal(batch_size: int) -> None:
    settings = way_down(batch_size, "None", batch_size)
    assert all(batch_size % micro == 0 for micro, _ in settings)
    assert settings[-1] == (1, "Offload")


def plan(**training: object) -> TrainingPlan:
    return render(FineTuneJob.model_validate(JOB | {"spec": JOB["spec"] | {"training": training}}), Defaults()).training


def test_the_log_says_what_was_too_large_and_how_it_continues() -> None:
    said = memory_fallback.stepped_down(plan(), SHORTAGE, MemorySettings(4, "Standard"), MemorySettings(2, "Standard"))
    assert said == (
        "microBatchSize 4 with gradientCheckpointing Standard needs more than 23500 MiB of GPU memory and NVIDIA L4 "
        "had 22000 MiB free; continuing with microBatchSize 2 with gradientCheckpointing Standard: the result stays "
        "the same"
    )


@pytest.mark.parametrize(
    ("failed", "following", "named"),
    [
        (
            MemorySettings(4, "None"),
            MemorySettings(4, "Standard"),
            "instead of the job's spec.training.gradientCheckpointing:",
        ),
        (
            MemorySettings(4, "Standard"),
            MemorySettings(2, "Standard"),
            "instead of the job's spec.training.microBatchSize:",
        ),
    ],
)
def test_a_setting_of_the_users_that_is_given_up_is_named(
    failed: MemorySettings, following: MemorySettings, named: str
) -> None:
    asked = plan(microBatchSize=4, gradientCheckpointing="None")
    assert named in memory_fallback.stepped_down(asked, SHORTAGE, failed, following)


def test_the_end_has_the_numbers_and_what_to_change() -> None:
    said = memory_fallback.exhausted(SHORTAGE, [MemorySettings(2, "Offload"), MemorySettings(1, "Offload")])
    assert "NVIDIA L4 had 22000 MiB free" in said
    assert "microBatchSize 1 with gradientCheckpointing Offload needs more than 23500 MiB" in said
    assert "tried: 2 Offload, 1 Offload" in said
    assert "lower spec.model.maxSequenceLength" in said
