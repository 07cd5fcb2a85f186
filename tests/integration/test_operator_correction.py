"""A job is corrected before its first container starts, after a failure before training, and too late."""

import json

from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import World

CORRECTED = {"s3": {"uri": "s3://models/other/"}}


def plan_of(world: World, pod: dict[str, object]) -> str:
    """The plan that a pod reads."""
    text = json.dumps(pod["spec"])
    maps = json.loads(world.kubectl("get", "configmaps", "-o", "json"))["items"]
    [plan] = [c["data"]["plan.json"] for c in maps if "-plan-" in (name := c["metadata"]["name"]) and name in text]
    return str(plan)


def test_a_job_that_waits_is_corrected(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.pod("prepare")
    world.patch(model=CORRECTED)
    assert "s3://models/other" in plan_of(world, world.pod("prepare", attempt=2, seconds=60))
    world.end("prepare", attempt=2)
    world.end("train")
    world.end("export")
    world.wait_for("Succeeded")


def test_a_job_that_failed_before_training_is_corrected_and_reopened(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.end("prepare", exit_code=66)
    world.wait_for("Failed")
    world.patch(model=CORRECTED, retryGeneration=1)
    assert "s3://models/other" in plan_of(world, world.pod("prepare", attempt=1, seconds=60))


def test_a_job_whose_container_runs_is_fixed(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.run("prepare")
    eventually(lambda: "specEditable" not in world.status(), "the container is seen")
    spec = json.dumps({"spec": {"model": CORRECTED}})
    command = ("kubectl", "-n", world.namespace, "patch", "ftj", world.name, "--type=merge", "-p", spec)
    done = world.plane.run(*command)
    assert "model cannot be changed once the job has started" in done.stderr
