"""What a whole training leaves for people who have to judge it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_api.report import Report
from finetune_api.status import EvaluationStatus
from finetune_trainer.evaluation.reference import Reference
from tests.support import tiny_model, trainer_job
from tests.training.conftest import Job

PROMPTS = ["스쿼트는 어떻게 하나요?", "What is a deadlift?"]
pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]


def _trained(root: Path, system_prompt: str | None, prompts: list[str]) -> Job:
    root.mkdir()
    model = tiny_model.build(root / "tiny")
    plan = trainer_job.make(root, model).plan
    plan["model"]["quantization"] = "None"
    plan["training"] |= {"batchSize": 4, "microBatchSize": 2, "maxSteps": 5, "learningRate": 0.1, "warmupSteps": 0}
    if system_prompt:
        plan["dataset"]["systemPrompt"] = system_prompt
    plan["evaluation"] = {"prompts": prompts, "maxNewTokens": 4}
    plan["export"] = {"gguf": []}
    (root / "plan.json").write_text(json.dumps(plan))
    job = Job(root)
    for stage in ("prepare", "train"):
        assert job.finish(stage) == 0, job.said(stage)
    shutil.copy(job.termination_log, root / "train.json")
    return job


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job with a system prompt and prompts of its own."""
    return _trained(tmp_path_factory.mktemp("judged") / "job", "You are a coach.", PROMPTS)


def _answers(job: Job) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((job.run / "answers.json").read_text())["questions"]
    return found


def _report(job: Job) -> Report:
    return Report.model_validate_json((job.run / "report.json").read_text())


def test_the_status_has_verdict_and_figures(judged: Job) -> None:
    found = EvaluationStatus.model_validate(json.loads((judged.root / "train.json").read_text())["evaluation"])

    assert found.verdict == "Better"
    assert float(found.holdout_loss_base or 0) > float(found.holdout_loss_tuned or 0)
    assert float(found.standard_error or 0) > 0
    assert float(found.forgetting or 0) > 0
    assert found.best_step in {1, 2, 3, 4, 5}
    assert (found.reward_accuracy, found.reward_margin) == (None, None)


def test_every_question_is_answered_with_and_without_the_system_prompt(judged: Job) -> None:
    questions = _answers(judged)

    assert [q["prompt"] for q in questions] == PROMPTS
    assert all(isinstance(q[who], str) for q in questions for who in ("base", "baseWithSystemPrompt", "tuned"))
    assert all(set(q["flags"]) == {"base", "baseWithSystemPrompt", "tuned", "gguf"} for q in questions)


def test_the_reference_has_the_prompts_that_the_tuned_model_was_asked(judged: Job) -> None:
    compared = Reference.model_validate_json((judged.run / "prepared/reference.json").read_text())

    assert all("You are a coach." in prompt.text for prompt in compared.prompts)
    assert all(row.nll_tuned < row.nll_base for row in compared.rows)


def test_the_report_tells_of_data_training_and_evaluation(judged: Job) -> None:
    report = _report(judged)
    assert report.data is not None
    assert report.training is not None
    assert report.evaluation is not None

    assert [point.step for point in report.training.loss] == [1, 2, 3, 4, 5]
    assert [point.step for point in report.training.holdout_loss] == [5]
    assert report.evaluation.sentence.startswith(
        f"On {report.evaluation.holdout_rows} rows it never saw, the loss fell"
    )
    assert [answer.prompt for answer in report.evaluation.answers] == PROMPTS
    assert {"train", "evaluateBase", "evaluateTuned"} <= report.timings.keys()


def test_the_event_files_have_training_and_hold_out_loss(judged: Job) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(judged.run / "tensorboard"))
    events.Reload()

    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    assert [event.step for event in events.Scalars("holdout/loss")] == [5]


def test_without_a_system_prompt_none_is_invented(tmp_path: Path) -> None:
    job = _trained(tmp_path / "job", None, [])
    questions = _answers(job)

    assert len(questions) == 5
    assert all(q["baseWithSystemPrompt"] is None for q in questions)
    assert all(q["reference"] for q in questions)
