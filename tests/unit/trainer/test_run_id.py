"""What names a run, and what does not."""

from typing import Any

import pytest

from finetune_api.plan import Plan, S3Target
from finetune_trainer.prepared import ModelFile, ResolvedModel
from finetune_trainer.run_id import compute
from tests.support.trainer_job import TrainerJob

MODEL = ResolvedModel(
    revision="r1", reference="org/base", architecture="A", files=[ModelFile(path="a", size_bytes=1, identity="i")]
)


@pytest.fixture
def plan(job: TrainerJob) -> Plan:
    return Plan.model_validate(job.plan)


def _changed(plan: Plan, section: str, **members: Any) -> Plan:
    return plan.model_copy(update={section: getattr(plan, section).model_copy(update=members)})


@pytest.mark.parametrize(
    ("section", "members"),
    [
        ("training", {"seed": 1}),
        ("training", {"batch_size": 16}),
        ("training", {"learning_rate": 1e-5}),
        ("model", {"quantization": "None"}),
        ("model", {"max_sequence_length": 128}),
        ("dataset", {"system_prompt": "짧게 답해"}),
        ("dataset", {"holdout_percent": 10}),
        ("evaluation", {"prompts": ["a"]}),
        ("export", {"gguf": ["Q8_0"]}),
    ],
)
def test_settings_that_matter_change_it(plan: Plan, section: str, members: dict[str, Any]) -> None:
    assert compute(_changed(plan, section, **members), MODEL, "Model", ["d"]) != compute(plan, MODEL, "Model", ["d"])


@pytest.mark.parametrize(
    ("section", "members"),
    [
        ("training", {"micro_batch_size": 1}),
        ("training", {"checkpoint_seconds": 5}),
        ("output", {"path": "/elsewhere"}),
        ("model", {"path": None, "s3": S3Target(uri="s3://other/place")}),
        ("job", {"name": "another"}),
    ],
)
def test_where_and_how_it_runs_does_not(plan: Plan, section: str, members: dict[str, Any]) -> None:
    assert compute(_changed(plan, section, **members), MODEL, "Model", ["d"]) == compute(plan, MODEL, "Model", ["d"])


def test_data_model_template_and_build_change_it(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        compute(plan, MODEL, "Model", ["d"]),
        compute(plan, MODEL, "Model", ["e"]),
        compute(plan, MODEL, "Alpaca", ["d"]),
        compute(plan, MODEL.model_copy(update={"revision": "r2"}), "Model", ["d"]),
    }
    monkeypatch.setenv("FINETUNE_BUILD_ID", "next")
    found.add(compute(plan, MODEL, "Model", ["d"]))
    assert len(found) == 5
