import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from finetune_api import plan
from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults, Plan
from finetune_api.policy import Policy
from finetune_api.references import S3Connection
from finetune_api.render import render
from tests.unit.api import strategies

VERSION_1 = Path(__file__).with_name("plan_version_1.json")
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
        "learningRate": 0.0002,
        "learningRateSchedule": "Linear",
        "weightDecay": 0.01,
        "maxGradNorm": 1.0,
        "adamBeta2": 0.999,
        "keep": "Best",
        "optimizer": "AdamW8bit",
        "precision": "Auto",
        "gradientCheckpointing": "Auto",
        "trainOnResponsesOnly": True,
        "seed": 3407,
        "checkpointSeconds": 300,
        "hangTimeoutSeconds": 1800,
    }


def test_the_plan_names_the_job() -> None:
    assert rendered().job.to_json() == {k: METADATA[k] for k in ("namespace", "name", "uid")}


@pytest.mark.parametrize(
    ("training", "epochs", "steps"), [({}, None, None), ({"epochs": 2}, 2, None), ({"maxSteps": 80}, None, 80)]
)
def test_the_length_is_left_to_the_trainer_unless_it_is_set(
    training: dict[str, Any], epochs: int | None, steps: int | None
) -> None:
    found = rendered({"training": training}).training
    assert (found.epochs, found.max_steps) == (epochs, steps)


def test_the_micro_batch_is_left_to_the_trainer_unless_it_is_set() -> None:
    assert rendered().training.micro_batch_size is None
    assert rendered({"training": {"microBatchSize": 4}}).training.micro_batch_size == 4


@pytest.mark.parametrize(("method", "rate"), [("SFT", 2e-4), ("DPO", 5e-6), ("ORPO", 8e-6), ("KTO", 5e-6)])
def test_the_learning_rate_follows_from_the_method(method: str, rate: float) -> None:
    assert rendered({"training": {"method": method}}).training.learning_rate == rate


def test_a_learning_rate_of_the_job_counts_whatever_the_method() -> None:
    assert rendered({"training": {"method": "DPO", "learningRate": "1e-6"}}).training.learning_rate == 1e-6


@pytest.mark.parametrize(
    ("training", "preference"),
    [
        ({}, None),
        ({"method": "DPO"}, {"beta": 0.1, "desirableWeight": 1.0, "undesirableWeight": 1.0}),
        ({"method": "ORPO", "orpo": {"beta": "0.2"}}, {"beta": 0.2, "desirableWeight": 1.0, "undesirableWeight": 1.0}),
        (
            {"method": "KTO", "kto": {"desirableWeight": "1.5", "undesirableWeight": "0.5"}},
            {"beta": 0.1, "desirableWeight": 1.5, "undesirableWeight": 0.5},
        ),
    ],
)
def test_the_settings_of_the_method_are_explicit(training: dict[str, Any], preference: dict[str, Any] | None) -> None:
    found = rendered({"training": training}).training.preference
    assert (found.to_json() if found else None) == preference


@pytest.mark.parametrize(
    ("training", "steps", "ratio"),
    [({}, None, None), ({"warmupSteps": 0}, 0, None), ({"warmupRatio": "0.03"}, None, 0.03)],
)
def test_the_warm_up_is_in_steps_unless_it_is_a_ratio(
    training: dict[str, Any], steps: int, ratio: float | None
) -> None:
    found = rendered({"training": training}).training
    assert (found.warmup_steps, found.warmup_ratio) == (steps, ratio)


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
    found = rendered().output.s3
    assert found is not None
    assert found.to_json() == {"uri": "s3://results/", "forcePathStyle": False}


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


def test_holdout_sources_are_mounted_after_the_others() -> None:
    rows = {"configMap": {"name": "rows", "key": "a.jsonl"}}
    held = [rows, {"name": "exam", "persistentVolumeClaim": {"claimName": "d", "path": "b.jsonl"}}]
    found = rendered({"dataset": {"sources": [rows, rows], "holdout": {"sources": held}}}).dataset.holdout_sources
    assert [(s.name, s.path) for s in found] == [
        ("holdout-1", "/var/run/finetune/dataset/2/a.jsonl"),
        ("exam", "/var/run/finetune/dataset/3/b.jsonl"),
    ]


def test_each_source_has_the_format_that_counts_for_it() -> None:
    sources = [SMALLEST["dataset"]["sources"][0], {**SMALLEST["dataset"]["sources"][0], "format": "ShareGPT"}]
    found = rendered({"dataset": {"sources": sources, "format": "Alpaca"}}).dataset
    assert [s.format for s in found.sources] == ["Alpaca", "ShareGPT"]


def test_a_file_on_a_web_server_keeps_its_checksum() -> None:
    http = {"url": "https://files.corp/train.csv", "sha256": "0a" * 32}
    [source] = rendered({"dataset": {"sources": [{"http": http}]}}).dataset.sources
    assert (source.url, source.sha256, source.path, source.s3, source.hub) == (
        *(http["url"], http["sha256"]),
        *(None, None, None),
    )


@pytest.mark.parametrize(
    ("own", "endpoint"), [(None, "https://hub.corp"), ("https://datasets.corp", "https://datasets.corp")]
)
def test_a_dataset_repository_has_a_mirror_of_its_own_or_the_chart_s(own: str | None, endpoint: str) -> None:
    hub = {"repository": "org/rows", "path": "data/train.parquet", "tokenSecretRef": {"name": "hf", "key": "token"}}
    sources = [{"huggingFace": {**hub, **({"endpoint": own} if own else {})}}]
    [source] = rendered(
        {"dataset": {"sources": sources}}, Defaults(hugging_face_endpoint="https://hub.corp")
    ).dataset.sources
    assert source.hub is not None
    assert source.hub.to_json() == {
        "repository": "org/rows",
        "revision": "main",
        "endpoint": endpoint,
        "tokenFile": "/var/run/finetune/secrets/hf/token",
        "path": "data/train.parquet",
    }


def test_a_template_of_the_user_is_a_file_in_its_mount() -> None:
    dataset = {**SMALLEST["dataset"], "templateRef": {"name": "template", "key": "chat.jinja"}}
    assert rendered({"dataset": dataset}).dataset.template_file == "/var/run/finetune/template/chat.jinja"


def test_an_adapter_in_a_bucket_inherits_as_every_s3_location_does() -> None:
    model = {**SMALLEST["model"], "adapter": {"s3": {"uri": "s3://results/coach/adapter/"}}}
    adapter = rendered({"model": model}, chart(endpoint="https://minio.corp")).model.adapter
    assert adapter is not None
    assert adapter.to_json() == {
        "s3": {"uri": "s3://results/coach/adapter/", "endpoint": "https://minio.corp", "forcePathStyle": False}
    }


def test_an_adapter_of_another_job_is_named() -> None:
    model = {**SMALLEST["model"], "adapter": {"fineTuneJobRef": {"name": "first"}}}
    adapter = rendered({"model": model}).model.adapter
    assert adapter is not None
    assert adapter.to_json() == {"job": "first"}


def test_an_mlflow_experiment_is_named_after_the_job() -> None:
    mlflow = {"uri": "http://mlflow.corp:5000", "credentialsSecretRef": {"name": "mlflow"}}
    found = rendered({"tracking": {"mlflow": mlflow}}).mlflow
    assert found is not None
    assert found.to_json() == {
        "uri": "http://mlflow.corp:5000",
        "experiment": "research/coach",
        "credentialsDir": "/var/run/finetune/secrets/mlflow",
    }


def test_an_identical_run_is_used_again_unless_the_job_forbids_it() -> None:
    assert rendered().output.reuse == "Identical"
    assert rendered({"output": {"s3": {"uri": "s3://results/"}, "reuse": "Never"}}).output.reuse == "Never"


def test_the_gate_is_there_only_if_it_is_asked_for() -> None:
    assert rendered().evaluation.gate is None
    gate = rendered({"evaluation": {"gate": {"onMiss": "Fail"}}}).evaluation.gate
    assert gate is not None
    assert gate.to_json() == {"holdoutLoss": "MustImprove", "onMiss": "Fail"}


def test_what_the_administrator_allows_is_part_of_the_plan() -> None:
    defaults = Defaults(policy=Policy(endpoints=["*.corp"]))
    assert rendered(defaults=defaults).policy.endpoints == ["*.corp"]


def test_the_memory_of_the_gpu_is_known_before_there_is_one() -> None:
    assert rendered({"compute": {"accelerator": {"memoryMiB": 16000}}}).gpu_memory_mib == 16000


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
    assert rendered({"tracking": {"another": {"uri": "http://x"}}}).to_bytes() == rendered().to_bytes()


def test_the_checksum_of_a_plan_is_the_same_everywhere() -> None:
    # If this changes, plans of jobs in progress render differently after an upgrade, so that one whose ConfigMap is
    # lost cannot be made again. If an older trainer would do something else with the new one: raise PLAN_VERSION.
    assert plan.sha256(rendered().to_bytes()) == "039c9d7019ccd7b40e52846c567bf1010b38fabe086c211980cc9a5580f6876d"


def test_a_plan_of_the_first_version_means_what_it_meant() -> None:
    found = Plan.model_validate_json(VERSION_1.read_bytes())
    assert (found.plan_version, found.output.reuse, found.evaluation.gate, found.mlflow) == (1, "Never", None, None)
    training = found.training
    assert (training.keep, training.early_stopping_patience, training.preference) == ("Last", None, None)
    assert (training.adam_beta2, training.warmup_steps, training.warmup_ratio) == (0.999, 5, None)
    assert (training.neftune_noise_alpha, training.micro_batch_size) == (None, 2)
    assert training.hang_timeout_seconds is None
    dataset = found.dataset
    assert (dataset.columns, dataset.holdout_sources, dataset.template_file) == ({}, [], None)
    # It left exact duplicates out and cut what was too long.
    assert (dataset.duplicates, dataset.truncation) == ("Drop", "Warn")
    assert (found.model.adapter, found.gpu_memory_mib, found.policy.endpoints) == (None, None, [])


def test_no_member_of_a_plan_of_the_first_version_is_lost() -> None:
    def lost(old: Any, new: Any) -> bool:
        if isinstance(old, dict):
            return not isinstance(new, dict) or any(lost(value, new.get(key)) for key, value in old.items())
        if isinstance(old, list):
            return len(old) != len(new) or any(lost(*pair) for pair in zip(old, new, strict=True))
        return bool(old != new)

    data = VERSION_1.read_bytes()
    assert not lost(json.loads(data), Plan.model_validate_json(data).to_json())


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
