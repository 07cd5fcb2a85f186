"""Training with far too high a rate ends early and says so, in one process or several, and after a resume."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.evaluation.evaluation import Evaluation
from finetune_trainer.methods.step_callback import Progress
from finetune_trainer.train.divergence import STEPS
from finetune_trainer.train.step_control import StepControl
from tests.support import tiny_model
from tests.training.conftest import Job, coach_rows, make_tiny_job
from tests.training.test_processes import TWO

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


def tiny_job(root: Path, model: Path, rate: float, **settings: Any) -> Job:
    settings = {"batchSize": 8, "maxSteps": 40, "warmupSteps": 0, "learningRate": rate} | settings
    return make_tiny_job(root, model, coach_rows(60, 24), 0.0, **settings)


@pytest.mark.parametrize("options", [[], TWO], ids=["one process", "two processes"])
def test_it_fails_with_the_rate_to_use_and_fails_again_without_a_step(
    model: Path, tmp_path: Path, options: list[str]
) -> None:
    job = tiny_job(tmp_path, model, 1e3)
    for attempt in range(2):
        assert job.finish("train", attempt, options) == 82, job.said("train", attempt)
        result = job.result()
        assert result["reason"] == "TrainingDiverged"
        assert result["message"].startswith("training diverged: the loss ")
        assert result["message"].endswith('spec.training.learningRate "100", a tenth of its present one')
    assert job.checkpoints[-1] <= STEPS + 3
    assert "Training step" not in job.said("train", 1)


def diverge_after_a_while() -> None:
    """In the process that trains: one loss is no number. The base seems worse, since the tiny model learns little."""
    before: Callable[[Evaluation], None] = Evaluation.before
    logged: Callable[[StepControl, int, float], None] = StepControl.logged

    def spoiled(self: Progress, done: int, loss: float) -> None:
        assert isinstance(self, StepControl)
        logged(self, done, float("nan") if done == 18 else loss)

    def worsened(self: Evaluation) -> None:
        before(self)
        scores = [replace(score, loss=score.loss + 1) for score in self._base.scores]
        self._base = self._base.model_copy(update={"scores": scores})

    Evaluation.before = worsened  # type: ignore[method-assign]
    StepControl.logged = spoiled  # type: ignore[method-assign, assignment]


def test_a_better_step_from_before_is_kept_with_a_warning(model: Path, tmp_path: Path) -> None:
    job = tiny_job(tmp_path, model, 3e-2)
    assert job.finish("train", before=diverge_after_a_while) == 0, job.said("train")
    evaluation = job.result()["evaluation"]
    assert (evaluation["verdict"], evaluation["bestStep"]) == ("Better", 8)
    assert evaluation["warnings"][0].startswith("TrainingDiverged: the loss became nan at step 18; ")
    assert [m["step"] for m in job.metrics()] == list(range(1, 20))
    json.loads((job.run / "report.json").read_text(), parse_constant=pytest.fail)
