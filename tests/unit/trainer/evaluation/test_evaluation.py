"""The evaluation never judges by nothing and never writes what it has not measured."""

from types import SimpleNamespace
from typing import Any

import pytest

from finetune_api.layout import JobLayout
from finetune_api.plan import Plan
from finetune_api.status import DatasetStatus
from finetune_trainer.errors import GuardError
from finetune_trainer.evaluation.evaluation import Evaluation
from finetune_trainer.progress.reporter import ProgressReporter
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.sources.resolved import ResolvedModel
from finetune_trainer.storage.folder import FileStore
from tests.support.trainer_job import TrainerJob

PREPARED = Prepared(
    run_id="ab" * 32,
    model=ResolvedModel(revision="c0ffee", reference="org/model", architecture="LlamaForCausalLM", files=[]),
    template="Model",
    chat_template="the template",
    stop_token_ids=[2],
    stop_strings=["</s>"],
    total_steps=4,
    dataset=DatasetStatus(examples=60, supervised_tokens=900),
    questions=[],
)


@pytest.fixture
def evaluation(job: TrainerJob) -> Evaluation:
    """Without hold-out rows, training rows and a model."""
    reporter, store = ProgressReporter("train", 0), FileStore(job.output)
    plan, layout = Plan.model_validate(job.plan), JobLayout("gym", "coach", "1")
    model: Any = SimpleNamespace(tokenizer=None)
    return Evaluation(Context(plan, layout, store, reporter, job.root, 0, StopFlag()), PREPARED, model, [], [])


def test_no_step_is_judged_without_hold_out_rows(evaluation: Evaluation) -> None:
    with pytest.raises(GuardError, match="step 3 was to be evaluated without hold-out rows"):
        evaluation.during(3)


def test_what_is_not_complete_is_not_written(evaluation: Evaluation, job: TrainerJob) -> None:
    with pytest.raises(GuardError, match="before it was complete"):
        evaluation.write()
    assert not list(job.output.rglob("answers.json"))
