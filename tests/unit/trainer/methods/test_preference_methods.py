"""What is passed to the trainers of each method, and what has to come back in their batches."""

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
from finetune_trainer.methods import common_settings as shared
from finetune_trainer.methods import dpo, kto, orpo, preference
from finetune_trainer.methods.kto import BinaryRow
from finetune_trainer.methods.preference import PreferenceRow
from tests.support.trainer_job import JOB

PAIRS = [PreferenceRow(10, [5, 6], [7, 2], [8, 9, 2]), PreferenceRow(11, [5], [6, 2], [2])]
BINARIES = [BinaryRow(10, [5, 6], [7, 2], True), BinaryRow(11, [5], [2], False), BinaryRow(12, [3], [9, 2], True)]
MEMORY_SETTINGS = MemorySettings(2, "Standard")
OUT = Path("out")


def plan(method: str, **training: Any) -> Plan:
    spec = JOB["spec"] | {"training": {"method": method, **training}}
    return render(FineTuneJob.model_validate(JOB | {"spec": spec}), Defaults())


def test_the_micro_batch_is_that_of_the_memory_settings() -> None:
    made = shared.common(plan("DPO"), "bf16", 60, OUT, MemorySettings(4, "None"))
    assert (made["per_device_train_batch_size"], made["gradient_accumulation_steps"]) == (4, 2)
    assert made["gradient_checkpointing"] is False


@pytest.mark.parametrize(
    ("training", "steps"), [({}, 5), ({"warmupSteps": 0}, 0), ({"warmupRatio": "0.03"}, 3), ({"warmupRatio": "0"}, 0)]
)
def test_the_warm_up_is_given_in_steps_or_as_a_share_rounded_up(training: dict[str, Any], steps: int) -> None:
    assert shared.common(plan("SFT", **training), "bf16", 90, OUT, MEMORY_SETTINGS)["warmup_steps"] == steps


def test_the_optimizers_settings_are_the_jobs() -> None:
    made = shared.common(
        plan("SFT", adamBeta2="0.95", maxGradNorm="0.3", neftuneNoiseAlpha="5"), "bf16", 60, OUT, MEMORY_SETTINGS
    )
    assert (made["adam_beta2"], made["max_grad_norm"], made["neftune_noise_alpha"]) == (0.95, 0.3, 5.0)


def test_the_methods_own_settings_reach_its_trainer() -> None:
    assert dpo.settings(plan("DPO", dpo={"beta": "0.3"}), "bf16", 60, OUT, MEMORY_SETTINGS)["beta"] == 0.3
    assert orpo.settings(plan("ORPO", orpo={"beta": "0.3"}), "bf16", 60, OUT, MEMORY_SETTINGS)["beta"] == 0.3
    chosen = {"beta": "0.3", "desirableWeight": "1.5", "undesirableWeight": "2"}
    made = kto.settings(plan("KTO", kto=chosen), "bf16", 60, OUT, MEMORY_SETTINGS)
    assert (made["beta"], made["desirable_weight"], made["undesirable_weight"]) == (0.3, 1.5, 2.0)


@pytest.mark.parametrize(("dropout", "disabled"), [("0", True), ("0.05", False)])
def test_dropout_is_off_unless_the_job_asks_for_it(dropout: str, disabled: bool) -> None:
    made = dpo.settings(plan("DPO", lora={"dropout": dropout}), "bf16", 60, OUT, MEMORY_SETTINGS)
    assert made["disable_dropout"] is disabled


def test_rows_of_a_step_are_sorted_by_the_longer_answer() -> None:
    assert methods.ordered(PAIRS, [[0, 1]]) == [[1, 0]]


@pytest.mark.parametrize(("rows_in_step", "micro"), [(8, 2), (8, 8), (7, 2), (3, 2), (3, 4), (5, 1)])
def test_every_row_of_a_step_counts_the_same(rows_in_step: int, micro: int) -> None:
    sizes = [min(micro, rows_in_step - start) for start in range(0, rows_in_step, micro)]
    # The library divides the sum of the means by the number of micro-batches.
    shares = [preference.weight(size, rows_in_step, micro) / size / len(sizes) for size in sizes]
    assert shares == pytest.approx([1 / rows_in_step] * len(sizes))


def test_the_kl_term_pairs_each_question_with_the_answer_before_it() -> None:
    assert kto.mismatched(BINARIES) == [([5, 6], [9, 2]), ([5], [7, 2]), ([3], [2])]


def test_the_margin_is_that_of_the_mean_rewards() -> None:
    entry = {"loss": 0.6, "rewards/chosen": 0.5, "rewards/rejected": -0.25, "rewards/accuracies": 1, "kl": 0.125}
    assert methods.figures(entry) == {
        "rewardChosen": 0.5,
        "rewardRejected": -0.25,
        "rewardAccuracy": 1.0,
        "klDivergence": 0.125,
        "rewardMargin": 0.75,
    }
    assert methods.figures({"loss": 0.6, "rewards/chosen": 0.5}) == {"rewardChosen": 0.5}


def trainer(batch: dict[str, Any]) -> Any:
    import torch

    args = SimpleNamespace(per_device_train_batch_size=2, gradient_accumulation_steps=1)
    return SimpleNamespace(
        args=args, get_train_dataloader=lambda: [{name: torch.tensor(value) for name, value in batch.items()}]
    )


# Pair 11 first, then pair 10; chosen answers before rejected ones.
DPO_BATCH = {
    "input_ids": [[5, 6, 2, 0, 0], [5, 6, 7, 2, 0], [5, 2, 0, 0, 0], [5, 6, 8, 9, 2]],
    "completion_mask": [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 1]],
}
ORPO_BATCH = {
    "chosen_input_ids": [[5, 6, 2, 0], [5, 6, 7, 2]],
    "chosen_labels": [[-100, 6, 2, -100], [-100, -100, 7, 2]],
    "rejected_input_ids": [[5, 2, 0, 0, 0], [5, 6, 8, 9, 2]],
    "rejected_labels": [[-100, 2, -100, -100, -100], [-100, -100, 8, 9, 2]],
}
KTO_BATCH = {
    "input_ids": [[5, 2, 0, 0], [5, 6, 7, 2]],
    "completion_mask": [[0, 1, 0, 0], [0, 0, 1, 1]],
    "label": [False, True],
}
GOOD: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "DPO": (DPO_BATCH, PAIRS),
    "ORPO": (ORPO_BATCH, PAIRS),
    "KTO": (KTO_BATCH, BINARIES),
}


@pytest.mark.parametrize("method", GOOD)
def test_batches_with_prepares_rows_and_masks_pass(method: str) -> None:
    batch, rows = GOOD[method]
    methods.check_batches(plan(method), trainer(batch), rows, [1, 0])


@pytest.mark.parametrize(
    ("method", "changed", "complaint"),
    [
        ("DPO", {"input_ids": [*DPO_BATCH["input_ids"][:3], [5, 6, 8, 9, 3]]}, "reaches the model changed"),
        ("DPO", {"completion_mask": [*DPO_BATCH["completion_mask"][:3], [0, 1, 1, 1, 1]]}, "learned at other tokens"),
        ("DPO", {"completion_mask": [[0, 1, 1, 1, 0], *DPO_BATCH["completion_mask"][1:]]}, "padding would be learned"),
        ("DPO", {name: value[:1] + value[2:3] for name, value in DPO_BATCH.items()}, "1 rows instead of 2"),
        ("ORPO", {"rejected_labels": [[-100, 2, -100, -100, -100], [-100, 6, 8, 9, 2]]}, "learned at other tokens"),
        ("ORPO", {"chosen_input_ids": [[5, 6, 2, 0], [5, 6, 7, 3]]}, "reaches the model changed"),
        ("KTO", {"label": [True, True]}, "the other label"),
        ("KTO", {"completion_mask": [[0, 1, 0, 0], [0, 1, 1, 1]]}, "learned at other tokens"),
    ],
)
def test_a_library_that_changes_them_is_caught(method: str, changed: dict[str, Any], complaint: str) -> None:
    batch, rows = GOOD[method]
    with pytest.raises(GuardError, match=complaint):
        methods.check_batches(plan(method), trainer(batch | changed), rows, [1, 0])


def test_orpos_columns_learn_the_answers_alone() -> None:
    made = orpo.columns({"prompt_ids": [5, 6], "chosen_ids": [7, 2], "rejected_ids": [2]})
    assert made["chosen_input_ids"] == [5, 6, 7, 2]
    assert made["chosen_labels"] == [-100, -100, 7, 2]
    assert made["rejected_labels"] == [-100, -100, 2]
