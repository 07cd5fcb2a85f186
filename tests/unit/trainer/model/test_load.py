"""How the plan's words become what the model is loaded with."""

from pathlib import Path

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults
from finetune_api.render import render
from finetune_trainer.errors import SettingsError
from finetune_trainer.gpu.device import GPU
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.gpu.precision import precision
from finetune_trainer.model import load as load_model
from tests.support.trainer_job import JOB

T4 = GPU("Tesla T4", "570.86.10", (7, 5), 14000, 15000, has_bf16=False)
H100 = GPU("NVIDIA H100", "570.86.10", (9, 0), 80000, 81559, has_bf16=True)


@pytest.mark.parametrize(
    ("requested", "gpu", "expected"),
    [
        ("Auto", H100, "bf16"),
        ("Auto", T4, "fp16"),
        ("FP16", H100, "fp16"),
        ("BF16", H100, "bf16"),
        ("Auto", None, "fp32"),
    ],
)
def test_the_precision_follows_the_plan_and_the_card(requested: str, gpu: GPU | None, expected: str) -> None:
    assert precision(requested, gpu) == expected


def test_bf16_on_a_card_without_it_is_refused() -> None:
    with pytest.raises(SettingsError, match="precision is BF16 and Tesla T4 has no BF16"):
        precision("BF16", T4)


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
def test_modules_without_an_adapter_are_refused_before_the_model_is_loaded(module: str, tmp_path: Path) -> None:
    plan = render(FineTuneJob.model_validate(JOB), Defaults())
    lora = plan.training.lora.model_copy(update={"target_modules": ["q_proj", module]})
    changed = plan.model_copy(update={"training": plan.training.model_copy(update={"lora": lora})})
    with pytest.raises(SettingsError, match=f"targetModules has {module}"):
        load_model.load(changed, tmp_path, H100, MemorySettings(1, "None"))
