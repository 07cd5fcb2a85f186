"""What is passed to the trainer library, and what has to come back in its batches."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults, Plan
from finetune_api.render import render
from finetune_trainer import methods
from finetune_trainer.errors import GuardError
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.gpu.precision import Precision
from finetune_trainer.methods import sft
from finetune_trainer.methods.sft import SFTRow
from finetune_trainer.train import record as training_record
from tests.support.trainer_job import JOB

ROWS = [SFTRow(10, [5, 6, 7, 2], [0, 0, 1, 1]), SFTRow(11, [5, 8, 2], [0, 1, 1]), SFTRow(12, [5, 9], [0, 1])]

MEMORY_SETTINGS = MemorySettings(2, "Offload")


@pytest.fixture
def plan() -> Plan:
    return render(FineTuneJob.model_validate(JOB), Defaults())


def test_every_micro_batch_size_makes_the_same_step(plan: Plan) -> None:
    for micro in (1, 2, 8):
        made = sft.settings(plan, "bf16", 60, Path("out"), MemorySettings(micro, "None"))
        assert made["per_device_train_batch_size"] * made["gradient_accumulation_steps"] == 8


def test_the_length_is_the_plans_even_where_it_is_the_librarys_default(plan: Plan) -> None:
    model = plan.model.model_copy(update={"max_sequence_length": 1024})
    assert (
        sft.settings(plan.model_copy(update={"model": model}), "bf16", 60, Path("out"), MEMORY_SETTINGS)["max_length"]
        == 1024
    )


@pytest.mark.parametrize(
    ("precision", "flags"), [("bf16", (True, False)), ("fp16", (False, True)), ("fp32", (False, False))]
)
def test_the_precision_is_never_left_to_the_library(plan: Plan, precision: Precision, flags: tuple[bool, bool]) -> None:
    made = sft.settings(plan, precision, 60, Path("out"), MEMORY_SETTINGS)
    assert (made["bf16"], made["fp16"]) == flags


def test_rows_of_a_step_are_sorted_by_length_and_stay_in_their_step() -> None:
    assert methods.ordered(ROWS, [[0, 2], [1, 0]]) == [[2, 0], [1, 0]]


def trainer(batches: list[dict[str, Any]]) -> Any:
    import torch

    tensors = [{k: torch.tensor(v) for k, v in batch.items()} for batch in batches]
    args = SimpleNamespace(per_device_train_batch_size=2, gradient_accumulation_steps=1)
    return SimpleNamespace(args=args, get_train_dataloader=lambda: tensors)


def test_batches_with_prepares_rows_and_masks_pass() -> None:
    batch = {"input_ids": [[5, 9, 0], [5, 8, 2]], "labels": [[-100, 9, -100], [-100, 8, 2]]}
    methods.of("SFT").check_batches(trainer([batch]), ROWS, [2, 1])


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        ({"input_ids": [[5, 9, 0], [5, 8, 2]], "labels": [[5, 9, -100], [5, 8, -100]]}, "learned at other tokens"),
        ({"input_ids": [[5, 9, 0], [5, 8, 2]], "labels": [[-100, 9, 0], [-100, 8, 2]]}, "padding would be learned"),
        ({"input_ids": [[5, 8, 2], [5, 9, 0]], "labels": [[-100, 8, 2], [-100, 9, -100]]}, "reaches the model changed"),
        ({"input_ids": [[5, 9, 0]], "labels": [[-100, 9, -100]]}, "1 rows instead of 2"),
    ],
    ids=["mask", "padding", "order", "dropped row"],
)
def test_a_library_that_changes_them_is_caught(batch: dict[str, Any], complaint: str) -> None:
    with pytest.raises(GuardError, match=complaint):
        methods.of("SFT").check_batches(trainer([batch]), ROWS, [2, 1])


def test_metrics_name_the_rows_of_each_step_and_leave_out_the_summary() -> None:
    history = [
        {"step": 1, "loss": 2.0, "grad_norm": 0.5, "learning_rate": 1e-4},
        {"step": 1, "train_runtime": 3.0},
    ]
    assert training_record.metrics(history, ROWS, [[2, 0]], {1: 4.0}) == [
        {
            "step": 1,
            "loss": 2.0,
            "gradNorm": 0.5,
            "learningRate": 1e-4,
            "rows": [12, 10],
            "supervisedTokens": 3,
            "seconds": 4.0,
        }
    ]
