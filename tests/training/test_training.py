"""Real training: it learns, and its adapter is usable."""

import json
from pathlib import Path

import pytest

from finetune_trainer.evaluation.reference import Reference
from local_platform.smollm2 import model_dir
from tests.training.conftest import STEPS, Job

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]


def test_the_loss_falls_on_rows_that_were_not_trained_on(trained: Job) -> None:
    evaluation = json.loads((trained.root / "train.json").read_text())["evaluation"]
    assert float(evaluation["holdoutLossTuned"]) < float(evaluation["holdoutLossBase"]) - 0.2


def test_what_ran_is_reported(trained: Job) -> None:
    result = json.loads((trained.root / "train.json").read_text())
    assert result["effective"]["gpu"] == "none (CPU)"
    assert result["effective"]["optimizer"] == "AdamW"
    assert result["checkpointStep"] == STEPS
    assert [m["step"] for m in trained.metrics()] == list(range(1, STEPS + 1))


def test_the_adapter_loads_with_peft_and_predicts_as_it_did_in_training(trained: Job) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model_dir(), dtype=torch.float32, local_files_only=True)
    model = PeftModel.from_pretrained(base, trained.run / "adapter").eval()
    rows = Reference.model_validate_json((trained.run / "prepared/reference.json").read_text()).rows[:4]
    for row in rows:
        ids, mask = torch.tensor([row.input_ids]), torch.tensor([row.completion_mask])
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=ids.masked_fill(mask == 0, -100)).loss)
        assert loss == pytest.approx(row.nll_tuned, abs=1e-4)


def test_a_second_attempt_of_a_finished_run_ends_at_once(trained: Job, tmp_path: Path) -> None:
    job = trained.copied(tmp_path / "job")
    assert job.finish("train", attempt=1) == 0
    assert "nothing to do" in job.said("train", 1)
    assert "Training step" not in job.said("train", 1)
    assert job.metrics() == trained.metrics()
    first = json.loads((trained.root / "train.json").read_text())
    assert job.result()["artifacts"] == first["artifacts"]
