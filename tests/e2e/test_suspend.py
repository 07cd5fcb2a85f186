"""A job that is suspended while it trains."""

from collections.abc import Callable
from typing import Any

import pytest

from local_platform.platform import Platform

from .jobs import (
    DIAGNOSIS_SECONDS,
    Watch,
    assert_resumed_once,
    condition,
    create,
    finished,
    has_checkpoint,
    live_pods,
    stage,
    tiny_job,
    wait_for_stage,
)

pytestmark = pytest.mark.e2e

# Of the random model, some 0.1 s each on two cores.
STEPS = 100


def test_a_suspended_job_saves_a_checkpoint_and_resumes_from_it(
    platform: Platform, namespace: str, random_model: str, watch: Callable[[str, str], Watch]
) -> None:
    pods = watch("pods", namespace)
    # The only checkpoint is the one that SIGTERM brings about.
    job = tiny_job("paused", random_model, steps=STEPS, checkpoint_every=STEPS)
    uid = create(platform, namespace, job)
    wait_for_stage(platform, namespace, "paused", "train")
    platform.wait("some steps", lambda: (shown(platform, namespace).get("step") or 0) > 0, DIAGNOSIS_SECONDS)
    patch = ("patch", "ftj", "paused", "-n", namespace, "--type=merge", "-p")
    platform.kubectl(*patch, '{"spec": {"suspend": true}}')
    platform.wait(
        "the job is suspended",
        lambda: (
            "is suspended after step" in condition(platform.job(namespace, "paused"), "Suspended").get("message", "")
        ),
        DIAGNOSIS_SECONDS,
    )
    assert live_pods(platform, namespace, "train") == []
    assert has_checkpoint(platform, namespace, uid)
    platform.kubectl(*patch, '{"spec": {"suspend": false}}')
    job = finished(platform, namespace, "paused")
    status = job["status"]
    assert status["phase"] == "Succeeded", status.get("failure")
    assert (stage(job, "train")["attempt"], stage(job, "train")["countedFailures"]) == (1, 0)
    assert_resumed_once(platform, job, STEPS)
    assert pods.most_live_at_once("train") == 1


def shown(platform: Platform, namespace: str) -> dict[str, Any]:
    """Return the progress of the suspended job."""
    found: dict[str, Any] = platform.job(namespace, "paused").get("status", {}).get("progress", {})
    return found
