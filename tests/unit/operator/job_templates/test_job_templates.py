"""What the pods look like."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

from finetune_api import cleanup
from finetune_api import render as rendering
from finetune_api.cleanup import Neighbours
from finetune_api.job import FineTuneJob, ObjectMeta
from finetune_api.spec import STAGES, FineTuneJobSpec, Stage
from finetune_operator.decide import snapshot
from finetune_operator.job_templates import Attempt, render
from finetune_operator.neighbours import FullList
from tests.unit.operator.world import SETTINGS, World, spec

Object = dict[str, Any]
METADATA = ObjectMeta(name="coach", namespace="team", uid="12345-6789")
CA = {"configMap": {"name": "corporate", "key": "ca.pem"}}


def _hub_file(secret: str, key: str) -> Object:
    token = {"name": secret, "key": key}
    return {"huggingFace": {"repository": "org/rows", "path": "a.csv", "tokenSecretRef": token}}


FULL = spec(
    model={
        "huggingFace": {"repository": "org/model", "tokenSecretRef": {"name": "hf", "key": "token"}},
        "adapter": {"s3": {"uri": "s3://old/adapter/", "credentialsSecretRef": {"name": "old-s3"}}},
    },
    dataset={
        "sources": [
            {"configMap": {"name": "rows", "key": "train.jsonl"}},
            {"persistentVolumeClaim": {"claimName": "data", "path": "a.jsonl"}},
            {"persistentVolumeClaim": {"claimName": "data", "path": "b.jsonl"}},
            {"s3": {"uri": "s3://data/c.jsonl", "credentialsSecretRef": {"name": "data-s3"}}},
            _hub_file("data-hf", "token"),
        ],
        "holdout": {
            "sources": [
                {"configMap": {"name": "exam", "key": "exam.jsonl"}},
                _hub_file("data-hf", "other-token"),
                {"s3": {"uri": "s3://data/e.jsonl", "credentialsSecretRef": {"name": "exam-s3"}}},
            ]
        },
        "templateRef": {"name": "template", "key": "chat.jinja"},
    },
    scheduling={
        "kueue": {"queueName": "gpu", "workloadPriorityClassName": "urgent"},
        "schedulerName": "volcano",
    },
    tracking={"mlflow": {"uri": "http://mlflow.corp", "credentialsSecretRef": {"name": "mlflow"}}},
    output={"s3": {"uri": "s3://models/tuned", "credentialsSecretRef": {"name": "s3"}, "caBundle": CA}},
    compute={
        "accelerator": {"extendedResource": {"name": "amd.com/gpu"}},
        "resources": {"train": {"requests": {"cpu": 4}, "limits": {"memory": "32Gi"}}},
        "scratch": {"size": "100Gi"},
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
        "priorityClassName": "high",
        "runtimeClassName": "nvidia",
        "serviceAccountName": "trainer",
        "imagePullSecrets": [{"name": "pull"}],
        "fsGroup": 1000,
        "podLabels": {"team": "coaching", "finetune.dev/stage": "forged"},
        "podAnnotations": {"note": "text"},
    },
)


def job(stage: Stage, job_spec: Object = FULL, *, avoid: tuple[str, ...] = (), report_only: bool = False) -> Object:
    parsed = FineTuneJobSpec.model_validate(job_spec)
    plan = rendering.render(FineTuneJob(metadata=METADATA, spec=parsed), SETTINGS.defaults)
    taken = snapshot.take(plan.to_bytes(), parsed, SETTINGS)
    return render(stage, Attempt(METADATA, parsed, plan, taken, SETTINGS, 2, avoid, report_only=report_only))


def pod(stage: Stage, job_spec: Object = FULL, *, avoid: tuple[str, ...] = ()) -> Object:
    found: Object = job(stage, job_spec, avoid=avoid)["spec"]["template"]["spec"]
    return found


def container(stage: Stage, job_spec: Object = FULL) -> Object:
    found: Object
    (found,) = pod(stage, job_spec)["containers"]
    return found


def mounted(stage: Stage, job_spec: Object = FULL) -> dict[str, Object]:
    """The volume at each path."""
    rendered = pod(stage, job_spec)
    volumes = {v["name"]: v for v in rendered["volumes"]}
    return {m["mountPath"]: volumes[m["name"]] for m in rendered["containers"][0]["volumeMounts"]}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("job_spec", [spec(), FULL], ids=["smallest", "full"])
def test_the_job_is_valid_kubernetes(stage: Stage, job_spec: Object) -> None:
    kubernetes_validate.validate(job(stage, job_spec, avoid=("node-a", "node-b")), "1.36", strict=True)


@pytest.mark.parametrize("stage", STAGES)
def test_the_name_tells_job_stage_and_attempt(stage: Stage) -> None:
    assert job(stage)["metadata"]["name"] == f"coach-12345-{stage}-2"


@pytest.mark.parametrize("stage", STAGES)
def test_the_pod_meets_the_restricted_security_standard(stage: Stage) -> None:
    assert pod(stage)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
        "fsGroup": 1000,
    }
    context = container(stage)["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("stage", STAGES)
def test_the_pod_gets_no_token_for_the_api_server(stage: Stage) -> None:
    rendered = pod(stage)
    assert rendered["automountServiceAccountToken"] is False
    tokens = [s for v in rendered["volumes"] for s in v.get("projected", {}).get("sources", [])]
    assert [t["serviceAccountToken"]["audience"] for t in tokens] == ["finetune.dev/progress"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_operator_alone_retries(stage: Stage) -> None:
    rendered = job(stage)["spec"]
    assert rendered["backoffLimit"] == 0
    assert rendered["template"]["spec"]["restartPolicy"] == "Never"


def test_a_disruption_is_reported_before_an_exit_code() -> None:
    rules = job("train", spec())["spec"]["podFailurePolicy"]["rules"]
    assert [next(k for k in rule if k != "action") for rule in rules] == ["onPodConditions", "onExitCodes"]
    assert rules[1]["onExitCodes"]["containerName"] == "trainer"


def test_a_result_is_read_again_in_the_queue_for_what_needs_no_gpu() -> None:
    queued = spec(scheduling={"kueue": {"queueName": "gpu", "stageQueueNames": {"export": "cpu"}}})
    labels = job("train", queued, report_only=True)["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "cpu"


@pytest.mark.parametrize("stage", STAGES)
def test_the_arguments_pin_the_plan(stage: Stage) -> None:
    arguments = container(stage)["args"]
    assert arguments[0] == stage
    assert arguments[1:3] == ["--plan", "/etc/finetune/plan/plan.json"]
    assert arguments[5:] == ["--attempt", "2"]


@pytest.mark.parametrize("stage", STAGES)
def test_reading_a_result_again_takes_the_bucket_and_next_to_nothing_else(stage: Stage) -> None:
    rendered = job(stage, report_only=True)
    kubernetes_validate.validate(rendered, "1.36", strict=True)
    template = rendered["spec"]["template"]["spec"]
    (container,) = template["containers"]
    assert container["args"][0] == stage
    assert container["args"][-1] == "--report"
    assert container["resources"] == {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "1", "memory": "512Mi"},
    }
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container["env"]
    assert [v["secret"]["secretName"] for v in template["volumes"] if "secret" in v] == ["s3"]
    assert not [v for v in template["volumes"] if "persistentVolumeClaim" in v]


def test_only_train_asks_for_a_gpu() -> None:
    asking = [s for s in STAGES if "amd.com/gpu" in container(s)["resources"].get("limits", {})]
    assert asking == ["train"]


def test_train_takes_several_gpus_and_starts_a_process_for_each() -> None:
    eight = spec(compute={"accelerator": {"extendedResource": {"count": 8}}})
    (found,) = job("train", eight)["spec"]["template"]["spec"]["containers"]
    assert found["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert found["args"][-2:] == ["--processes", "8"]


@pytest.mark.parametrize(
    ("stage", "count", "report_only"),
    [("prepare", 8, False), ("export", 8, False), ("train", 8, True), ("train", 1, False)],
)
def test_nothing_else_is_reported_of_several_processes(stage: Stage, count: int, report_only: bool) -> None:
    several = spec(compute={"accelerator": {"extendedResource": {"count": count}}})
    rendered = job(stage, several, report_only=report_only)["spec"]
    assert "--processes" not in rendered["template"]["spec"]["containers"][0]["args"]
    assert (rendered["completions"], rendered["parallelism"]) == (1, 1)


def test_the_other_stages_hide_gpus_from_the_container_runtime() -> None:
    void = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}
    assert [s for s in STAGES if void in container(s)["env"]] == ["prepare", "export"]


def test_a_limit_replaces_the_default_request() -> None:
    assert container("train")["resources"] == {
        "requests": {"cpu": "4"},
        "limits": {"memory": "32Gi", "amd.com/gpu": "1"},
    }


def test_defaults_stand_where_the_job_says_nothing() -> None:
    assert container("prepare")["resources"] == {"requests": {"cpu": "1", "memory": "2Gi"}}


def test_the_dataset_is_mounted_in_prepare_only() -> None:
    found = {s: [p for p in mounted(s) if p.startswith("/var/run/finetune/dataset")] for s in STAGES}
    assert found == {"prepare": [f"/var/run/finetune/dataset/{i}" for i in (0, 1, 2, 5)], "train": [], "export": []}


def test_hold_out_rows_are_mounted_where_the_plan_looks_for_them() -> None:
    assert mounted("prepare")["/var/run/finetune/dataset/5"]["configMap"] == {
        "name": "exam",
        "items": [{"key": "exam.jsonl", "path": "exam.jsonl"}],
    }


def test_the_template_is_mounted_in_prepare_only() -> None:
    found = {s: mounted(s).get("/var/run/finetune/template") for s in STAGES}
    assert [s for s, volume in found.items() if volume] == ["prepare"]
    assert found["prepare"] is not None
    assert found["prepare"]["configMap"]["name"] == "template"


def test_a_claim_that_two_sources_use_is_one_volume() -> None:
    claims = [v for v in pod("prepare")["volumes"] if "persistentVolumeClaim" in v]
    assert len(claims) == 1


@pytest.mark.parametrize(
    ("secret", "stages"),
    [
        ("data-s3", ["prepare"]),
        ("exam-s3", ["prepare"]),
        ("data-hf", ["prepare"]),
        ("old-s3", ["prepare", "train"]),
        ("mlflow", ["train"]),
        ("hf", list(STAGES)),
        ("s3", list(STAGES)),
    ],
)
def test_a_secret_is_mounted_only_where_it_is_used(secret: str, stages: list[Stage]) -> None:
    assert [s for s in STAGES if f"/var/run/finetune/secrets/{secret}" in mounted(s)] == stages


def test_two_keys_of_one_secret_are_mounted_together() -> None:
    items = mounted("prepare")["/var/run/finetune/secrets/data-hf"]["secret"]["items"]
    assert [item["key"] for item in items] == ["other-token", "token"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_of_the_plan_that_a_stage_uses_is_mounted(stage: Stage) -> None:
    found = mounted(stage)
    assert found["/var/run/finetune/secrets/s3"]["secret"]["secretName"] == "s3"
    assert found["/var/run/finetune/ca/corporate"]["configMap"]["items"] == [{"key": "ca.pem", "path": "ca.pem"}]


@pytest.mark.parametrize("stage", STAGES)
def test_only_the_one_key_of_a_hub_token_is_mounted(stage: Stage) -> None:
    secret = mounted(stage)["/var/run/finetune/secrets/hf"]["secret"]
    assert secret["items"] == [{"key": "token", "path": "token"}]


def test_a_secret_with_both_credentials_and_hub_token_is_mounted_once() -> None:
    model = {"huggingFace": {"repository": "org/model", "tokenSecretRef": {"name": "s3", "key": "token"}}}
    secrets = [v for v in pod("prepare", spec(model=model))["volumes"] if "secret" in v]
    assert [s["secret"] for s in secrets] == [{"secretName": "s3", "defaultMode": 0o440}]


@pytest.mark.parametrize("stage", STAGES)
def test_a_model_on_a_volume_is_mounted_read_only_in_every_stage(stage: Stage) -> None:
    rendered = pod(stage, spec(model={"persistentVolumeClaim": {"claimName": "models", "path": "llama"}}))
    mounts = {m["mountPath"]: m for m in rendered["containers"][0]["volumeMounts"]}
    assert mounts["/var/run/finetune/model"]["readOnly"] is True


def test_only_scratch_space_is_writable() -> None:
    mounts = container("train")["volumeMounts"]
    assert sorted(m["mountPath"] for m in mounts if not m.get("readOnly")) == ["/dev/shm", "/scratch", "/tmp"]


def test_scratch_space_is_bounded_by_the_job() -> None:
    assert mounted("train")["/scratch"]["emptyDir"] == {"sizeLimit": "100Gi"}


def test_a_pod_label_of_the_user_does_not_replace_ours() -> None:
    labels = job("train")["spec"]["template"]["metadata"]["labels"]
    assert (labels["team"], labels["finetune.dev/stage"]) == ("coaching", "train")


def test_nodes_are_avoided_by_name() -> None:
    required = pod("train", avoid=("a", "b"))["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    # Requirements of one term are all to be met; terms are alternatives.
    (term,) = required["nodeSelectorTerms"]
    assert [f["values"] for f in term["matchFields"]] == [["a"], ["b"]]


def test_progress_goes_to_the_jobs_own_address() -> None:
    environment = {e["name"]: e["value"] for e in container("train")["env"]}
    assert environment["FINETUNE_PROGRESS_URL"] == (
        "https://finetune-operator.finetune-system.svc:8443/v1/namespaces/team/finetunejobs/coach/progress"
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_name_of_the_greatest_length_fits_the_pods(stage: Stage) -> None:
    metadata = METADATA.model_copy(update={"name": "x" * 40})
    parsed = FineTuneJobSpec.model_validate(spec())
    plan = rendering.render(FineTuneJob(metadata=metadata, spec=parsed), SETTINGS.defaults)
    taken = snapshot.take(plan.to_bytes(), parsed, SETTINGS)
    name = render(stage, Attempt(metadata, parsed, plan, taken, SETTINGS, 99))["metadata"]["name"]
    assert len(f"{name}-abcde") <= 63


def test_the_config_maps_are_valid_kubernetes() -> None:
    world = World()
    world.reconcile()
    for config_map in world.config_maps:
        kubernetes_validate.validate(config_map, "1.36", strict=True)


def test_the_status_of_a_whole_run_fits_the_schema() -> None:
    crd = yaml.safe_load(Path("crds/finetune.dev_finetunejobs.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    validator = Draft202012Validator(json.loads(json.dumps(schema)))
    world = World()
    world.reconcile()
    world.run(1)
    world.wait()
    for _ in range(3):
        world.run()
    for stored in world.history:
        validator.validate(stored["status"])
        assert set(stored["status"]) <= set(schema["properties"])


@pytest.mark.parametrize("stage", ["prepare", "export"])
def test_what_reads_the_original_weights_has_the_key_to_them(stage: Stage) -> None:
    original = {"huggingFace": {"repository": "org/model", "tokenSecretRef": {"name": "original-hf", "key": "token"}}}
    found = mounted(stage, spec(export={"gguf": ["F16"], "originalModel": original}))
    assert found["/var/run/finetune/secrets/original-hf"]["secret"]["items"] == [{"key": "token", "path": "token"}]


@pytest.mark.parametrize("stage", STAGES)
def test_another_scheduler_is_named_in_the_pod_alone_if_at_all(stage: Stage) -> None:
    assert pod(stage)["schedulerName"] == "volcano"
    assert "schedulerName" not in pod(stage, spec())


def test_only_prepare_is_told_of_the_other_jobs_and_the_plan_is_the_same() -> None:
    full_list = FullList("cluster", datetime(2026, 1, 1, tzinfo=UTC), kept={"team": ["12345678"]})
    settings = replace(SETTINGS, full_list=full_list)
    parsed = FineTuneJobSpec.model_validate(FULL)
    plan = rendering.render(FineTuneJob(metadata=METADATA, spec=parsed), settings.defaults)
    taken = snapshot.take(plan.to_bytes(), parsed, settings)
    assert taken == snapshot.take(plan.to_bytes(), parsed, SETTINGS)
    found = {}
    for stage in STAGES:
        rendered = render(stage, Attempt(METADATA, parsed, plan, taken, settings, 0))
        environment = rendered["spec"]["template"]["spec"]["containers"][0]["env"]
        found[stage] = [e["value"] for e in environment if e["name"] == cleanup.VARIABLE]
    assert (found["train"], found["export"]) == ([], [])
    assert [Neighbours.model_validate_json(text) for text in found["prepare"]] == [full_list.of("team")]
