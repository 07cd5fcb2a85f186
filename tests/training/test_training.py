"""Real training: it learns, its adapter is usable, and interruptions change nothing."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.reference import Reference
from tests.support.smollm2 import model_dir
from tests.training.conftest import STEPS, Job, make_job

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


def test_a_second_attempt_of_a_finished_run_ends_at_once(trained: Job) -> None:
    before = trained.metrics()
    started = time.monotonic()
    assert trained.finish("train", attempt=1) == 0
    assert time.monotonic() - started < 15
    assert trained.metrics() == before
    first = json.loads((trained.root / "train.json").read_text())
    assert trained.result()["artifacts"] == first["artifacts"]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, dict[str, Any]]:
    """The same job, stopped by SIGTERM once and by kill -9 once; with the termination message of the first."""
    job = make_job(tmp_path_factory.mktemp("interrupted"))
    process = job.start("train", attempt=0)
    code = job.interrupt(process, signal.SIGTERM, lambda: "Training step 0" in job.said("train", 0))
    assert code == 75, job.said("train", 0)
    stopped = job.result()
    process = job.start("train", attempt=1)
    assert job.interrupt(process, signal.SIGKILL, lambda: max(job.checkpoints) > 2) == -signal.SIGKILL
    assert job.finish("train", attempt=2) == 0, job.said("train", 2)
    return job, stopped


def test_sigterm_saves_and_says_from_where_it_goes_on(interrupted: tuple[Job, dict[str, Any]]) -> None:
    _, stopped = interrupted
    assert stopped["reason"] == "Preempted"
    assert stopped["checkpointStep"] in (1, 2)


def test_an_interrupted_run_learns_the_same_rows_with_the_same_losses(
    trained: Job, interrupted: tuple[Job, dict[str, Any]]
) -> None:
    job, _ = interrupted
    assert job.run.name == trained.run.name
    assert [m["rows"] for m in job.metrics()] == [m["rows"] for m in trained.metrics()]
    for name in ("loss", "gradNorm", "learningRate"):
        # Nothing but the order of floating-point additions in threads may differ.
        assert [m[name] for m in job.metrics()] == pytest.approx([m[name] for m in trained.metrics()], rel=1e-4)


def test_an_interrupted_run_ends_with_the_same_adapter(trained: Job, interrupted: tuple[Job, dict[str, Any]]) -> None:
    from safetensors.torch import load_file
    from torch.testing import assert_close

    job, _ = interrupted
    name = Path("adapter/adapter_model.safetensors")
    assert_close(load_file(job.run / name), load_file(trained.run / name), rtol=1e-3, atol=1e-5)
