"""A model that is stored in 4 bit goes to GGUF with either merge base, trained with rank-stabilized LoRA."""

import json
import shutil
from pathlib import Path

import pytest

from local_platform.smollm2 import model_dir
from tests.support import trainer_job
from tests.training.conftest import LOADS_A_MODEL, Job, complete

pytestmark = [pytest.mark.training, pytest.mark.timeout(900), *LOADS_A_MODEL]
# What every row answers, so that a short training shows.
LEARNED = "네, 오늘도 화이팅!"
QUESTION = "스쿼트는 어떻게 하나요?"
# Train and export measure each of them again and again.
ROWS = 30


@pytest.fixture(scope="module")
def in_4bit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model as bitsandbytes stores it, with nested quantization."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    folder = tmp_path_factory.mktemp("models") / "in-4bit"
    model = AutoModelForCausalLM.from_pretrained(
        model_dir(), quantization_config=settings, dtype=torch.bfloat16, device_map={"": "cpu"}
    )
    model.save_pretrained(folder)
    for path in model_dir().iterdir():
        if not (folder / path.name).exists() and path.suffix != ".safetensors":
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def trained_in_4bit(in_4bit: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    root = tmp_path_factory.mktemp("trained")
    rows = [{"instruction": f"{i}번째 운동은 어떻게 하나요?", "input": "", "output": LEARNED} for i in range(ROWS)]
    plan = trainer_job.make(root, in_4bit, rows).plan
    complete(plan, 0.0, {"maxSteps": 8, "checkpointSteps": 8, "learningRate": 1e-3, "warmupSteps": 0})
    plan["training"]["lora"] |= {"useRSLoRA": True, "rank": 16, "alpha": 16}
    plan["model"]["quantization"] = "NF4"
    plan["dataset"] |= {"duplicates": "Keep", "minimumExamples": ROWS}
    plan["evaluation"] = {"prompts": [QUESTION], "maxNewTokens": 24}
    plan["export"] = {"gguf": ["Q8_0"], "loraGGUF": True, "original": {"path": str(model_dir())}}
    (root / "plan.json").write_text(json.dumps(plan))
    job = Job(root)
    for stage in ("prepare", "train"):
        assert job.finish(stage) == 0, job.said(stage)
    return job


def assert_proven(job: Job, *names: str) -> None:
    artifacts = {a["name"]: a for a in json.loads((job.run / "manifest.json").read_text())["artifacts"]}
    for name in names:
        assert float(artifacts[name]["parity"]["retainedGain"]) == pytest.approx(1, abs=0.2)
    (question,) = json.loads((job.run / "answers.json").read_text())["questions"]
    assert LEARNED not in question["base"]
    assert question["tuned"].strip() == LEARNED
    assert question["gguf"]["Q8_0"].strip() == LEARNED


def test_added_to_the_original_weights_and_alone(trained_in_4bit: Job, tmp_path: Path) -> None:
    job = trained_in_4bit.copied(tmp_path / "job")
    assert job.finish("export") == 0, job.said("export")
    assert_proven(job, "Q8_0", "LoRA")


def test_added_to_the_weights_of_training(trained_in_4bit: Job, tmp_path: Path) -> None:
    job = trained_in_4bit.copied(tmp_path / "job")
    # What the same job has that names no original model; to train it again would give the same adapter.
    for path, changes in (
        (job.root / "plan.json", {"export": {"gguf": ["Q8_0"]}}),
        (job.run / "prepared/prepared.json", {"original": None}),
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert job.finish("export") == 0, job.said("export")
    assert_proven(job, "Q8_0")
