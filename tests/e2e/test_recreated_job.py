"""A FineTuneJob that is deleted and created again under its name."""

from collections.abc import Callable

import pytest

from local_platform.platform import Platform

from .jobs import DIAGNOSIS_SECONDS, Watch, create, demo_job, live_pods, ready_with

pytestmark = pytest.mark.e2e


def test_recreated_job_never_has_two_live_train_pods(
    platform: Platform, namespace: str, watch: Callable[[str, str], Watch]
) -> None:
    pods = watch("pods", namespace)
    # No node has this label: the train pod stays Pending, which is live too, while prepare runs anywhere.
    job = demo_job("again", export__gguf=[], compute__accelerator={"extendedResource": {"name": "example.com/none"}})
    create(platform, namespace, job)
    platform.wait("a Pending train pod", lambda: live_pods(platform, namespace, "train"), DIAGNOSIS_SECONDS)
    ready = platform.wait(
        "the status says why", lambda: ready_with(platform, namespace, "again", "Unschedulable"), DIAGNOSIS_SECONDS
    )
    assert "example.com/none" in ready["message"]
    # Foreground deletion would hide the race: the new job is there before the old one's pods are gone.
    platform.kubectl("delete", "ftj", "again", "-n", namespace, "--cascade=background", "--wait", "--ignore-not-found")
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
