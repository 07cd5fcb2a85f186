"""Which weights an adapter is added to; what is refused has its sentences in tests/bad_inputs."""

import pytest

from finetune_api.plan import Plan, WeightsPlan
from finetune_api.spec import MergeBase
from finetune_trainer.model.merge_base import choose
from tests.support.trainer_job import TrainerJob

_ORIGINAL = WeightsPlan(path="/original")


@pytest.mark.parametrize(
    ("quantization", "stored_in_4bit", "wanted", "original", "chosen"),
    [
        ("NF4", False, None, None, "Original"),
        ("NF4", False, "Original", None, "Original"),
        ("NF4", False, "Trained", None, "Trained"),
        ("NF4", True, None, None, "Trained"),
        ("NF4", True, "Trained", None, "Trained"),
        ("NF4", True, None, _ORIGINAL, "Original"),
        ("NF4", True, "Original", _ORIGINAL, "Original"),
        # What was trained is what is stored.
        ("None", False, "Trained", None, "Original"),
    ],
)
def test_the_16_bit_weights_where_there_are_any(
    job: TrainerJob,
    quantization: str,
    stored_in_4bit: bool,
    wanted: MergeBase | None,
    original: WeightsPlan | None,
    chosen: MergeBase,
) -> None:
    plan = Plan.model_validate(job.plan)
    plan = plan.model_copy(
        update={
            "model": plan.model.model_copy(update={"quantization": quantization}),
            "export": plan.export.model_copy(update={"gguf": ["F16"], "merge_base": wanted, "original": original}),
        }
    )
    assert choose(plan, stored_in_4bit=stored_in_4bit) == chosen


@pytest.mark.parametrize("lora_gguf", [True, False])
def test_a_plan_that_merges_nothing_has_no_merge_base(job: TrainerJob, lora_gguf: bool) -> None:
    plan = Plan.model_validate(job.plan)
    export = plan.export.model_copy(update={"gguf": [], "merged": False, "lora_gguf": lora_gguf})
    assert choose(plan.model_copy(update={"export": export}), stored_in_4bit=False) is None
