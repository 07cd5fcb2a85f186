"""Jobs that name a queue or a scheduler that nobody serves here; tests/interop/test_kueue.py has a real Kueue."""

from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import World


def test_a_job_that_names_a_queue_does_not_run_past_it(operator: OperatorProcess, world: World) -> None:
    world.apply(scheduling={"kueue": {"queueName": "gpu"}})
    ready = eventually(
        lambda: c if (c := world.condition("Ready")).get("reason") == "Queued" else {}, "the job waits for its queue"
    )
    assert "does not seem to have Kueue" in ready["message"]
    # The Job controller has acted on it, and made no pod.
    eventually(lambda: world.items("jobs")[0].get("status", {}).get("conditions"), "the Job is seen")
    assert world.items("pods") == []


def test_a_job_that_names_a_scheduler_waits_for_it(operator: OperatorProcess, world: World) -> None:
    world.apply(scheduling={"schedulerName": "volcano"})
    ready = eventually(
        lambda: c if (c := world.condition("Ready")).get("reason") == "Unschedulable" else {},
        "the pod is not scheduled",
    )
    assert "The scheduler volcano has not handled the pod yet" in ready["message"]
    assert [pod["spec"]["schedulerName"] for pod in world.items("pods")] == ["volcano"]
    world.run("prepare")
    eventually(lambda: world.condition("Ready").get("reason") != "Unschedulable", "the pod has its node")
