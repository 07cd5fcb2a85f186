"""Jobs that do not start, or do not end, on a real API server; the tests play kubelet and queue."""

import json
import time
from datetime import UTC, datetime

from finetune_operator.clock import parse_time
from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import Object, World


def _jobs(world: World) -> list[Object]:
    return eventually(lambda: world.items("jobs"), "the Job")


def _job(world: World) -> Object:
    [job] = _jobs(world)
    return job


def _hold(world: World, job: Object, *, held: bool) -> Object:
    """Do what a queue does, and wait until the Job controller has acted on it; return the condition."""
    world.kubectl("patch", "job", job["metadata"]["name"], "-p", json.dumps({"spec": {"suspend": held}}))

    def found() -> Object:
        conditions = _job(world).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == "Suspended" and c["status"] == str(held)), {})

    return eventually(found, f"Suspended={held}")


def test_a_pod_that_does_not_start_fails_the_job_and_is_removed(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.hold("prepare", "ImagePullBackOff", "Back-off pulling image")
    eventually(lambda: world.condition("Ready").get("reason") == "ImagePullFailed", "what the pod waits for is seen")
    world.patch(startDeadlineSeconds=3)
    world.wait_for("Finished")
    failure = world.status()["failure"]
    assert failure["reason"] == "ImagePullFailed"
    assert "raise spec.startDeadlineSeconds" in failure["message"]
    eventually(lambda: not world.items("jobs") and not world.items("pods"), "Job and pod are gone")


def test_a_job_that_a_quota_refuses_says_so_and_fails_in_the_end(operator: OperatorProcess, world: World) -> None:
    world.kubectl("create", "quota", "few", "--hard=count/jobs.batch=0")
    eventually(lambda: world.items("resourcequotas")[0].get("status", {}).get("hard"), "the quota counts")
    world.apply()
    ready = eventually(
        lambda: c if (c := world.condition("Ready")).get("reason") == "QuotaExceeded" else {}, "QuotaExceeded"
    )
    assert "does not allow the Job" in ready["message"]
    assert "count/jobs.batch" in ready["message"]
    world.patch(startDeadlineSeconds=5)
    world.wait_for("Finished")
    failure = world.status()["failure"]
    assert (failure["stage"], failure["reason"]) == ("prepare", "QuotaExceeded")
    assert "raise spec.startDeadlineSeconds" in failure["message"]


def test_a_queue_stops_both_clocks(operator: OperatorProcess, world: World) -> None:
    world.apply(activeDeadlineSeconds=600)
    job = _job(world)
    _hold(world, job, held=True)
    eventually(lambda: "activeSince" not in world.status(), "the clock stands still")
    world.patch(startDeadlineSeconds=4)
    active = world.status()["activeSeconds"]
    time.sleep(5)  # longer than the pod may take to start: nothing must happen
    assert world.condition("Finished")["status"] == "False"
    admitted = _hold(world, job, held=False)
    world.wait_for("Finished")
    status = world.status()
    waited = parse_time(status["completionTime"]) - parse_time(admitted["lastTransitionTime"])
    assert waited.total_seconds() >= 4
    assert status["failure"]["reason"] == "StartDeadlineExceeded"
    # Timestamps are of whole seconds.
    assert status["activeSeconds"] <= active + waited.total_seconds() + 2


def test_a_job_that_takes_too_long_is_asked_to_stop_and_gets_its_grace(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.bind(world.pod("prepare"))
    pod = world.run("prepare")
    eventually(lambda: "is running" in world.condition("Ready")["message"], "the operator saw the pod run")
    world.patch(activeDeadlineSeconds=5)
    world.wait_for("Finished")
    assert world.status()["failure"]["reason"] == "DeadlineExceeded"

    def stopping() -> Object:
        [found] = world.items("pods")
        return found if "deletionTimestamp" in found["metadata"] else {}

    assert eventually(stopping, "the pod is being stopped")["metadata"]["deletionGracePeriodSeconds"] == 180
    assert "deletionTimestamp" in _job(world)["metadata"]
    # What the kubelet does once the container has ended.
    world.let_go(pod)
    eventually(lambda: not world.items("jobs") and not world.items("pods"), "Job and pod are gone")
    assert [stage["attempt"] for stage in world.status()["stages"]] == [0, 0, 0]


def test_the_gpu_time_of_a_pod_that_is_preempted_counts_though_it_is_gone(
    operator: OperatorProcess, world: World
) -> None:
    world.apply()
    world.end("prepare")
    world.bind(world.pod("train"))
    pod = world.run("train")
    since = parse_time(eventually(lambda: world.status().get("gpuSince", ""), "the GPU is in use"))
    time.sleep(2)  # of which at least one has to be counted
    job = next(j for j in _jobs(world) if "-train-" in j["metadata"]["name"])
    world.kubectl("patch", "job", job["metadata"]["name"], "-p", json.dumps({"spec": {"suspend": True}}))
    eventually(lambda: [p for p in world.items("pods") if "deletionTimestamp" in p["metadata"]], "the pod is to end")
    world.let_go(pod)
    seconds = eventually(lambda: world.status().get("gpuSeconds", 0), "the time is counted")
    assert 1 <= seconds <= (datetime.now(UTC) - since).total_seconds()
    assert "gpuSince" not in world.status()
