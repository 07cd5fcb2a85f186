"""What names a run, and what does not."""

from typing import Any

import pytest

from finetune_api.plan import GatePlan, Plan, S3Target, SourcePlan, WeightsPlan
from finetune_trainer.prepare.run_id import compute
from finetune_trainer.sources.resolved import ModelFile, ResolvedAdapter, ResolvedModel
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
        ("dataset", {"columns": {"output": "답변"}}),
        ("dataset", {"chat_template_kwargs": {"enable_thinking": "false"}}),
        ("dataset", {"duplicates": "Keep"}),
        ("dataset", {"sources": [SourcePlan(name="coach", path="a", format="Alpaca")]}),
        ("training", {"precision": "FP16"}),
        ("training", {"keep": "Last"}),
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
        ("training", {"checkpoint_steps": 5}),
        ("training", {"hang_timeout_seconds": 5}),
        ("training", {"gradient_checkpointing": "Offload"}),
        ("evaluation", {"gate": GatePlan(holdout_loss="MustImprove", on_miss="Fail")}),
        ("dataset", {"sources": [SourcePlan(name="coach", url="https://elsewhere/train.jsonl")]}),
        ("dataset", {"template_file": "/elsewhere/template.jinja"}),
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


def test_the_held_out_file_and_the_earlier_adapter_change_it(plan: Plan) -> None:
    adapters = [ResolvedAdapter(uri="s3://a/b", sha256=sha256) for sha256 in ("1", "2")]
    found = {
        compute(plan, MODEL, "Model", ["d"]),
        compute(plan, MODEL, "Model", ["d", "e"]),
        compute(plan, MODEL, "Model", ["d"], ["e"]),
        *(compute(plan, MODEL, "Model", ["d"], [], adapter) for adapter in adapters),
    }
    assert len(found) == 5


def test_adapter_counts_by_its_bytes_not_its_place(plan: Plan) -> None:
    places = [ResolvedAdapter(uri=uri, run_id=run, sha256="1") for uri, run in (("s3://a/b", None), ("s3://c", "r"))]
    assert len({compute(plan, MODEL, "Model", ["d"], [], place) for place in places}) == 1


def test_job_that_reuses_nothing_has_runs_of_its_own(plan: Plan) -> None:
    never = _changed(plan, "output", reuse="Never")
    uids = [_changed(never, "job", uid=uid) for uid in ("1", "1", "2")]
    assert len({compute(p, MODEL, "Model", ["d"]) for p in uids}) == 2


def test_what_is_merged_into_counts_as_decided_and_not_as_written(plan: Plan) -> None:
    default = _changed(plan, "export", gguf=["Q8_0"])
    named = _changed(plan, "export", gguf=["Q8_0"], merge_base="Original")
    ids = [compute(p, MODEL, "Model", ["d"], merge_base="Original") for p in (default, named)]
    assert ids[0] == ids[1] != compute(default, MODEL, "Model", ["d"], merge_base="Trained")


def test_the_original_counts_by_its_files_and_not_by_its_place(plan: Plan) -> None:
    stored = MODEL.model_copy(update={"stored_in_4bit": True})

    def identity(path: str, revision: str) -> str:
        merging = _changed(plan, "export", gguf=["Q8_0"], original=WeightsPlan(path=path))
        return compute(merging, stored, "Model", ["d"], original=MODEL.model_copy(update={"revision": revision}))

    assert identity("/a", "r1") == identity("/b", "r1") != identity("/a", "r2")
