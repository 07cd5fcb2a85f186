"""Whole jobs in real pods: what a user relies on, and what goes wrong on a bad day."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from local_platform.platform import OPERATOR_NAMESPACE, RELEASE, Platform, PlatformError, secret

from .jobs import (
    Watch,
    condition,
    create,
    demo_job,
    finished,
    kill_operator,
    kill_trainer,
    live_pods,
    restart,
    stage,
    wait_for_stage,
)

pytestmark = pytest.mark.e2e

# More than any of it takes on a busy machine.
DIAGNOSIS_SECONDS = 600
# Of the random model, some 0.1 s each on two cores: the trainer is killed long before the last one.
FAULTS_STEPS = 300
PAUSED_STEPS = 100


def test_job_survives_operator_kills_api_server_restart_and_kill_9_of_the_trainer(
    platform: Platform, namespace: str, random_model: str, watch: Callable[[str, str], Watch]
) -> None:
    pods = watch("pods", namespace)
    changes: dict[str, Any] = {
        "training__maxSteps": FAULTS_STEPS,
        "training__checkpoint": {"everySteps": 20},
        "export__gguf": [],
    }
    changes |= {"model__s3": {"uri": random_model}, "model__quantization": "None"}
    uid = create(platform, namespace, demo_job("faults", **changes))
    wait_for_stage(platform, namespace, "faults", "prepare")
    kill_operator(platform)
    wait_for_stage(platform, namespace, "faults", "train")
    (train_pod,) = live_pods(platform, namespace, "train")
    kill_operator(platform)
    restart("apiserver")
    platform.wait(
        "a checkpoint in the bucket",
        lambda: any("complete.json" in k for k in platform.objects(f"{namespace}/.runs/{uid}/checkpoints/")),
        DIAGNOSIS_SECONDS,
    )
    kill_trainer(train_pod["metadata"]["uid"])
    platform.wait("export's Job", lambda: has_job(platform, namespace, "export"), DIAGNOSIS_SECONDS)
    kill_operator(platform)
    job = finished(platform, namespace, "faults")
    status = job["status"]
    assert status["phase"] == "Succeeded", status.get("failure")
    assert stage(job, "train")["attempt"] == 1
    steps = [json.loads(line)["step"] for line in platform.read(metrics(status, namespace)).splitlines() if line]
    assert steps == sorted(set(steps)), "a step was recorded twice"
    assert steps[-1] == FAULTS_STEPS
    second = platform.read(f"{namespace}/faults/{status['runId']}/logs/train-1.log").decode()
    assert "resum" in second.lower()
    adapters = [k for k in platform.objects(f"{namespace}/faults/") if k.endswith("adapter_model.safetensors")]
    assert len(adapters) == 1
    assert pods.most_live_at_once("train") == 1

    platform.kubectl("delete", "ftj", "faults", "-n", namespace, "--wait")
    platform.wait("no pod, Job or ConfigMap is left", lambda: not children(platform, namespace), DIAGNOSIS_SECONDS)


def test_a_suspended_job_saves_a_checkpoint_and_resumes_from_it(
    platform: Platform, namespace: str, random_model: str, watch: Callable[[str, str], Watch]
) -> None:
    pods = watch("pods", namespace)
    changes: dict[str, Any] = {
        "training__maxSteps": PAUSED_STEPS,
        # The only checkpoint is the one that SIGTERM brings about.
        "training__checkpoint": {"everySteps": PAUSED_STEPS},
        "export__gguf": [],
    }
    changes |= {"model__s3": {"uri": random_model}, "model__quantization": "None"}
    uid = create(platform, namespace, demo_job("paused", **changes))
    wait_for_stage(platform, namespace, "paused", "train")
    platform.wait("some steps", lambda: (shown(platform, namespace).get("step") or 0) > 0, DIAGNOSIS_SECONDS)
    patch = ("patch", "ftj", "paused", "-n", namespace, "--type=merge", "-p")
    platform.kubectl(*patch, '{"spec": {"suspend": true}}')
    platform.wait(
        "the job is suspended",
        lambda: "is suspended" in condition(platform.job(namespace, "paused"), "Suspended").get("message", ""),
        DIAGNOSIS_SECONDS,
    )
    assert live_pods(platform, namespace, "train") == []
    assert any("complete.json" in k for k in platform.objects(f"{namespace}/.runs/{uid}/checkpoints/"))
    platform.kubectl(*patch, '{"spec": {"suspend": false}}')
    job = finished(platform, namespace, "paused")
    status = job["status"]
    assert status["phase"] == "Succeeded", status.get("failure")
    assert (stage(job, "train")["attempt"], stage(job, "train")["countedFailures"]) == (1, 0)
    steps = [
        json.loads(line)["step"] for line in platform.read(metrics(status, namespace, "paused")).splitlines() if line
    ]
    assert steps == sorted(set(steps)), "a step was recorded twice"
    assert steps[-1] == PAUSED_STEPS
    second = platform.read(f"{namespace}/paused/{status['runId']}/logs/train-1.log").decode()
    assert "resum" in second.lower()
    assert pods.most_live_at_once("train") == 1


def shown(platform: Platform, namespace: str) -> dict[str, Any]:
    """Return the progress of the suspended job."""
    found: dict[str, Any] = platform.job(namespace, "paused").get("status", {}).get("progress", {})
    return found


def has_job(platform: Platform, namespace: str, stage_name: str) -> bool:
    """Say whether a stage has begun: its Job stays when its pod is over."""
    return bool(platform.get("jobs", "-n", namespace, "-l", f"finetune.dev/stage={stage_name}")["items"])


def metrics(status: dict[str, str], namespace: str, name: str = "faults") -> str:
    """Return the key of the run's metrics."""
    return f"{namespace}/{name}/{status['runId']}/metrics.jsonl"


def children(platform: Platform, namespace: str) -> list[str]:
    """Return what still belongs to any FineTuneJob of a namespace."""
    selector = "app.kubernetes.io/managed-by=finetune-operator"
    return platform.kubectl("get", "jobs,pods,configmaps", "-n", namespace, "-l", selector, "-o", "name").split()


def test_recreated_job_never_has_two_live_train_pods(
    platform: Platform, namespace: str, watch: Callable[[str, str], Watch]
) -> None:
    pods = watch("pods", namespace)
    # No node has this label: the train pod stays Pending, which is live too, while prepare runs anywhere.
    job = demo_job("again", export__gguf=[], compute__accelerator={"extendedResource": {"name": "example.com/none"}})
    create(platform, namespace, job)
    platform.wait("a Pending train pod", lambda: live_pods(platform, namespace, "train"), DIAGNOSIS_SECONDS)
    ready = platform.wait(
        "the status says why", lambda: reason(platform, namespace, "again", "Unschedulable"), DIAGNOSIS_SECONDS
    )
    assert "example.com/none" in ready["message"]
    # Foreground deletion would hide the race: the new job is there before the old one's pods are gone.
    platform.kubectl("delete", "ftj", "again", "-n", namespace, "--cascade=background", "--wait")
    create(platform, namespace, job)
    platform.wait(
        "the new job's train pod",
        lambda: len({p["metadata"]["uid"] for p in pods.objects() if is_train(p)}) == 2,
        DIAGNOSIS_SECONDS,
    )
    assert pods.most_live_at_once("train") == 1


def is_train(pod: dict[str, dict[str, dict[str, str]]]) -> bool:
    """Say whether a pod trains."""
    return pod["metadata"]["labels"].get("finetune.dev/stage") == "train"


def reason(platform: Platform, namespace: str, name: str, expected: str) -> dict[str, str] | None:
    """Return the Ready condition once it has a reason."""
    ready = condition(platform.job(namespace, name), "Ready")
    return ready if ready.get("reason") == expected else None


def test_bad_row_fails_with_its_line_number(platform: Platform, namespace: str) -> None:
    rows = (json.dumps({"instruction": f"question {i}", "output": f"answer {i}"}) for i in range(60))
    lines = [*rows]
    lines[16] = '{"instruction": "no answer here"}'
    data = {"train.jsonl": "\n".join(lines)}
    platform.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows", "namespace": namespace}, "data": data}
    )
    source = {"name": "coach", "configMap": {"name": "rows", "key": "train.jsonl"}}
    create(platform, namespace, demo_job("bad-row", dataset__sources=[source], export__gguf=[]))
    job = finished(platform, namespace, "bad-row")
    failure = job["status"]["failure"]
    assert failure["stage"] == "prepare"
    assert failure["exitCode"] == 65
    assert failure["reason"] == "InvalidDataset"
    assert 'source "coach", line 17' in failure["message"]
    assert condition(job, "Stalled")["status"] == "True"
    assert any(k.endswith("prepare-0.log") for k in platform.objects(f"{namespace}/"))


def test_missing_secret_is_named_in_the_status(platform: Platform, namespace: str) -> None:
    platform.kubectl("delete", "secret", "s3", "-n", namespace)
    create(platform, namespace, demo_job("no-secret"))
    ready = platform.wait(
        "the status says why", lambda: reason(platform, namespace, "no-secret", "SecretNotFound"), DIAGNOSIS_SECONDS
    )
    assert "Secret s3 does not exist" in ready["message"]


def test_wrong_s3_key_fails_as_access_denied(platform: Platform, namespace: str) -> None:
    platform.apply(secret("s3", namespace, "nobody", "wrong"))
    create(platform, namespace, demo_job("wrong-key", export__gguf=[]))
    failure = finished(platform, namespace, "wrong-key")["status"]["failure"]
    assert failure["exitCode"] == 77
    assert failure["reason"] == "AccessDenied"
    assert failure["stage"] == "prepare"
    assert "wrong" not in failure["message"].split()


def test_operator_cannot_read_secrets(platform: Platform, namespace: str) -> None:
    account = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{RELEASE}"
    with pytest.raises(PlatformError, match="forbidden"):
        platform.kubectl("get", "secret", "s3", "-n", namespace, "--as", account)
