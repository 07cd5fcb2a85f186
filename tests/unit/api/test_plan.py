import json
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from finetune_api import plan
from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults, Plan
from finetune_api.references import S3Connection
from finetune_api.render import render
from tests.unit.api import strategies

METADATA = {"name": "coach", "namespace": "research", "uid": "0a1b2c3d-0000-4000-8000-000000000000"}
SMALLEST: dict[str, Any] = {
    "model": {"s3": {"uri": "s3://models/llama/"}},
    "dataset": {"sources": [{"s3": {"uri": "s3://data/train.jsonl"}}]},
    "output": {"s3": {"uri": "s3://results/"}},
}


def rendered(changes: dict[str, Any] | None = None, defaults: Defaults | None = None) -> Plan:
    job = FineTuneJob.model_validate({"metadata": METADATA, "spec": {**SMALLEST, **(changes or {})}})
    return render(job, defaults or Defaults())


def chart(**s3: Any) -> Defaults:
    return Defaults(s3=S3Connection.model_validate(s3))


def test_the_smallest_job_trains_by_the_published_recipe() -> None:
    assert rendered().training.to_json() == {
        "method": "SFT",
        "lora": {
            "rank": 16,
            "alpha": 16,
            "dropout": 0.0,
            "targetModules": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
            "useRSLoRA": False,
        },
        "batchSize": 8,
        "microBatchSize": 2,
        "maxSteps": 60,
        "learningRate": 0.0002,
        "learningRateSchedule": "Linear",
        "warmupSteps": 5,
        "weightDecay": 0.01,
        "maxGradNorm": 1.0,
        "optimizer": "AdamW8bit",
        "precision": "Auto",
        "gradientCheckpointing": "Auto",
        "trainOnResponsesOnly": True,
        "seed": 3407,
        "checkpointSeconds": 300,
    }


def test_the_plan_names_the_job() -> None:
    assert rendered().job.to_json() == {k: METADATA[k] for k in ("namespace", "name", "uid")}


def test_epochs_replace_the_default_number_of_steps() -> None:
    training = rendered({"training": {"epochs": 2}}).training
    assert (training.epochs, training.max_steps) == (2, None)


def test_an_odd_batch_is_split_into_single_examples() -> None:
    assert rendered({"training": {"batchSize": 5}}).training.micro_batch_size == 1


def test_checkpoints_by_steps_replace_those_by_time() -> None:
    training = rendered({"training": {"checkpoint": {"everySteps": 20}}}).training
    assert (training.checkpoint_steps, training.checkpoint_seconds) == (20, None)


def test_the_order_of_target_modules_and_gguf_types_means_nothing() -> None:
    def bytes_of(modules: list[str], types: list[str]) -> bytes:
        changes = {"training": {"lora": {"targetModules": modules}}, "export": {"gguf": types}}
        return rendered(changes).to_bytes()

    assert bytes_of(["q_proj", "k_proj"], ["Q8_0", "F16"]) == bytes_of(["k_proj", "q_proj"], ["F16", "Q8_0"])


MEMBERS: dict[str, tuple[Any, Any, str, Any]] = {
    # member: (value of the output, value of the chart, field of the plan, what the output's value becomes there)
    "endpoint": ("https://a", "https://b", "endpoint", "https://a"),
    "region": ("us-east-1", "eu-west-1", "region", "us-east-1"),
    "forcePathStyle": (False, True, "force_path_style", False),
    "credentialsSecretRef": (
        {"name": "mine"},
        {"name": "theirs"},
        "credentials_dir",
        "/var/run/finetune/secrets/mine",
    ),
    "caBundle": (
        {"configMap": {"name": "mine", "key": "ca.crt"}},
        {"configMap": {"name": "theirs", "key": "ca.crt"}},
        "ca_file",
        "/var/run/finetune/ca/mine/ca.crt",
    ),
}


@pytest.mark.parametrize("member", MEMBERS)
def test_an_s3_source_inherits_a_member_from_the_output_before_the_chart(member: str) -> None:
    ours, theirs, field, expected = MEMBERS[member]
    output = {"output": {"s3": {"uri": "s3://results/", member: ours}}}
    found = rendered(output, chart(**{member: theirs})).dataset.sources[0].s3
    assert getattr(found, field) == expected


@pytest.mark.parametrize("member", MEMBERS)
def test_an_s3_source_keeps_a_member_of_its_own(member: str) -> None:
    ours, theirs, field, expected = MEMBERS[member]
    changes = {
        "model": {"s3": {"uri": "s3://models/llama/", member: ours}},
        "output": {"s3": {"uri": "s3://results/", member: theirs}},
    }
    assert getattr(rendered(changes).model.s3, field) == expected


@pytest.mark.parametrize("member", MEMBERS)
def test_the_output_inherits_a_member_from_the_chart(member: str) -> None:
    value, _, field, expected = MEMBERS[member]
    assert getattr(rendered(defaults=chart(**{member: value})).output.s3, field) == expected


def test_an_s3_target_without_settings_is_aws_with_the_identity_of_the_pod() -> None:
    assert rendered().output.to_json() == {"s3": {"uri": "s3://results/", "forcePathStyle": False}}


def test_a_hub_model_goes_through_the_mirror_of_the_chart() -> None:
    model = {
        "huggingFace": {
            "repository": "unsloth/llama-3-8b-bnb-4bit",
            "tokenSecretRef": {"name": "hf", "key": "token"},
        }
    }
    found = rendered({"model": model}, Defaults(hugging_face_endpoint="https://hub.corp")).model
    assert found.hub is not None
    assert found.hub.to_json() == {
        "repository": "unsloth/llama-3-8b-bnb-4bit",
        "revision": "main",
        "endpoint": "https://hub.corp",
        "tokenFile": "/var/run/finetune/secrets/hf/token",
    }
    assert (found.s3, found.path) == (None, None)


def test_mounted_sources_are_found_by_their_number() -> None:
    sources = [
        {"configMap": {"name": "rows", "key": "a.jsonl"}},
        {"name": "second", "persistentVolumeClaim": {"claimName": "d", "path": "x/b.jsonl"}},
    ]
    found = rendered({"dataset": {"sources": sources}}).dataset.sources
    assert [(s.name, s.path) for s in found] == [
        ("source-1", "/var/run/finetune/dataset/0/a.jsonl"),
        ("second", "/var/run/finetune/dataset/1/x/b.jsonl"),
    ]


def test_a_model_on_a_volume_is_a_folder_below_its_mount() -> None:
    model = {"persistentVolumeClaim": {"claimName": "models", "path": "llama"}}
    assert rendered({"model": model}).model.path == "/var/run/finetune/model/llama"


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ({}, 0),
        ({"image": {"reference": "of a later version"}}, 0),
        ({"s3": {"uri": "s3://models/"}, "huggingFace": {"repository": "a/b"}}, 2),
    ],
)
def test_a_model_in_no_place_that_we_know_is_refused(model: dict[str, Any], count: int) -> None:
    sentence = f"exactly one of huggingFace, s3, persistentVolumeClaim must be set, and {count} are"
    with pytest.raises(ValidationError, match=sentence):
        rendered({"model": model})


def test_members_of_a_later_version_are_ignored() -> None:
    assert rendered({"tracking": {"mlflow": {}}}).to_bytes() == rendered().to_bytes()


def test_the_checksum_of_a_plan_is_the_same_everywhere() -> None:
    # If this changes, plans of jobs in progress render differently after an upgrade: raise PLAN_VERSION.
    assert plan.sha256(rendered().to_bytes()) == "729617181ea7ad899af88e4b9ccb6e257cbf2ef3d0006733930823cd32adf2b6"


@strategies.unhurried
@given(strategies.specs, strategies.connections)
def test_any_valid_spec_renders_to_a_plan_that_reads_back(spec: dict[str, Any], s3: dict[str, Any]) -> None:
    found = rendered(spec, chart(**s3))
    assert Plan.model_validate_json(found.to_bytes()) == found


@strategies.unhurried
@given(strategies.specs)
def test_the_bytes_of_a_plan_do_not_depend_on_the_order_of_the_spec(spec: dict[str, Any]) -> None:
    reordered = json.loads(json.dumps(spec, sort_keys=True))
    assert rendered(reordered).to_bytes() == rendered(spec).to_bytes()


@strategies.unhurried
@given(strategies.specs)
def test_a_plan_is_plain_json_and_never_reaches_the_limit_of_a_config_map(spec: dict[str, Any]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    data = rendered(spec).to_bytes()
    json.loads(data, parse_constant=refuse)
    assert len(data) < 1024 * 1024
