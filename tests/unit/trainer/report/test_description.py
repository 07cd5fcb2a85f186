"""Which run a report is of."""

from typing import Any

from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults
from finetune_api.render import render
from finetune_api.report import RunReport
from finetune_api.status import DatasetStatus
from finetune_trainer.report.description import describe
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.sources.resolved import ResolvedModel
from tests.support.trainer_job import JOB

URI = "s3://bucket/run"
PREPARED = Prepared(
    run_id="ab" * 32,
    model=ResolvedModel(revision="c0ffee", reference="org/model", architecture="LlamaForCausalLM", files=[]),
    template="Model",
    chat_template="the template",
    system_prompt="친절한 상담원입니다.",
    stop_token_ids=[2],
    stop_strings=["</s>"],
    total_steps=4,
    dataset=DatasetStatus(examples=60, supervised_tokens=900),
    questions=[],
)


def described(**training: Any) -> RunReport:
    job = FineTuneJob.model_validate({**JOB, "spec": JOB["spec"] | {"training": training}})
    return describe(render(job, Defaults()), PREPARED, URI)


def test_it_names_the_run_its_model_and_its_folder() -> None:
    found = described()
    assert (found.run_id, found.model, found.revision, found.output_uri) == ("ab" * 32, "org/model", "c0ffee", URI)


def test_settings_are_named_by_their_field() -> None:
    found = described(batchSize=4, lora={"rank": 8, "targetModules": ["q_proj", "v_proj"]}).settings
    assert found["training.batchSize"] == "4"
    assert found["training.lora.rank"] == "8"
    assert found["training.lora.targetModules"] == "q_proj, v_proj"
    assert found["training.trainOnResponsesOnly"] == "true"
    assert "model.maxSequenceLength" in found


def test_settings_that_are_not_set_are_left_out() -> None:
    assert "training.neftuneNoiseAlpha" not in described().settings


def test_no_place_and_no_text_of_the_job_is_a_setting() -> None:
    assert {name.split(".")[0] for name in described().settings} == {"model", "training"}
    assert {name for name in described().settings if name.startswith("model.")} == {
        "model.quantization",
        "model.maxSequenceLength",
    }
