"""A job that is suspended while it trains."""

from collections.abc import Callable
from typing import Any

import pytest

from local_platform.platform import Platform

from .jobs import (
    DIAGNOSIS_SECONDS,
    Watch,
    condition,
    create,
    demo_job,
    finished,
    live_pods,
    recorded_steps,
    stage,
    wait_for_stage,
)

pytestmark = pytest.mark.e2e

# Of the random model, some 0.1 s each on two cores.
STEPS = 100


def test_a_suspended_job_saves_a_checkpoint_and_resumes_from_it(
    platform: Platform, namespace: str, random_model: str, watch: Callable[[str, str], Watch]
) -> None:
    pods = watch("pods", namespace)
    changes: dict[str, Any] = {
        "training__maxSteps": STEPS,
        # The only checkpoint is the one that SIGTERM brings about.
        "training__checkpoint": {"everySteps": STEPS},
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
    steps = recorded_steps(platform, job)
    assert steps == sorted(set(steps)), "a step was recorded twice"
    assert steps[-1] == STEPS
    second = platform.read(f"{namespace}/paused/{status['runId']}/logs/train-1.log").decode()
    assert "resum" in second.lower()
    assert pods.most_live_at_once("train") == 1


def shown(platform: Platform, namespace: str) -> dict[str, Any]:
    """Return the progress of the suspended job."""
    found: dict[str, Any] = platform.job(namespace, "paused").get("status", {}).get("progress", {})
    return found
