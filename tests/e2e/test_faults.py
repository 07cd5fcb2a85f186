"""A job whose operator, API server and trainer are killed while it runs: nothing is lost and nothing done twice."""

from collections.abc import Callable

import pytest

from local_platform.platform import Platform

from .jobs import (
    DIAGNOSIS_SECONDS,
    Watch,
    assert_resumed_once,
    create,
    finished,
    has_checkpoint,
    kill_operator,
    kill_trainer,
    live_pods,
    restart,
    stage,
    tiny_job,
    wait_for_stage,
)

pytestmark = pytest.mark.e2e

# Of the random model, some 0.1 s each on two cores: the trainer is killed long before the last one.
STEPS = 300


def test_job_survives_operator_kills_api_server_restart_and_kill_9_of_the_trainer(
    platform: Platform, namespace: str, random_model: str, watch: Callable[[str, str], Watch]
) -> None:
    pods = watch("pods", namespace)
    job = tiny_job("faults", random_model, steps=STEPS, checkpoint_every=20)
    uid = create(platform, namespace, job)
    wait_for_stage(platform, namespace, "faults", "prepare")
    kill_operator(platform)
    wait_for_stage(platform, namespace, "faults", "train")
    (train_pod,) = live_pods(platform, namespace, "train")
    kill_operator(platform)
    restart("apiserver")
    platform.wait("a checkpoint in the bucket", lambda: has_checkpoint(platform, namespace, uid), DIAGNOSIS_SECONDS)
    kill_trainer(train_pod["metadata"]["uid"])
    platform.wait("export's Job", lambda: has_job(platform, namespace, "export"), DIAGNOSIS_SECONDS)
    kill_operator(platform)
    job = finished(platform, namespace, "faults")
    status = job["status"]
    assert status["phase"] == "Succeeded", status.get("failure")
    assert stage(job, "train")["attempt"] == 1
    assert_resumed_once(platform, job, STEPS)
    adapters = [k for k in platform.objects(f"{namespace}/faults/") if k.endswith("adapter_model.safetensors")]
    assert len(adapters) == 1
    assert pods.most_live_at_once("train") == 1

    platform.kubectl("delete", "ftj", "faults", "-n", namespace, "--wait", "--ignore-not-found")
    platform.wait("no pod, Job or ConfigMap is left", lambda: not children(platform, namespace), DIAGNOSIS_SECONDS)


def has_job(platform: Platform, namespace: str, stage_name: str) -> bool:
    """Say whether a stage has begun: its Job stays when its pod is over."""
    return bool(platform.get("jobs", "-n", namespace, "-l", f"finetune.dev/stage={stage_name}")["items"])


def children(platform: Platform, namespace: str) -> list[str]:
    """Return what still belongs to any FineTuneJob of a namespace."""
    selector = "app.kubernetes.io/managed-by=finetune-operator"
    return platform.kubectl("get", "jobs,pods,configmaps", "-n", namespace, "-l", selector, "-o", "name").split()
