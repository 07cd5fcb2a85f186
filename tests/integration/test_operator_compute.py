"""spec.compute is edited while a stage has its Job already."""

import json

from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import World

TOLERATIONS = [{"key": "gpu", "operator": "Exists"}]


def test_a_pod_that_cannot_start_is_recreated_with_the_edit(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.end("prepare")
    pod = world.pod("train")
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: taint gpu."}
    patch = json.dumps({"status": {"conditions": [why]}})
    world.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p", patch)
    eventually(lambda: world.condition("Ready").get("reason") == "Unschedulable", "Unschedulable")
    world.patch(compute={"tolerations": TOLERATIONS})
    recreated = world.pod("train", attempt=1)
    assert TOLERATIONS[0] in recreated["spec"]["tolerations"]
    [train] = [s for s in world.status()["stages"] if s["name"] == "train"]
    assert (train["countedFailures"], "lastFailure" in train) == (0, False)
    world.end("train", attempt=1)
    world.end("export")
    world.wait_for("Succeeded")


def test_a_pod_that_runs_is_left_alone_and_the_next_one_has_the_edit(operator: OperatorProcess, world: World) -> None:
    world.apply()
    running = world.run("prepare")
    eventually(lambda: world.status()["phase"] == "Preparing", "the pod is seen")
    world.patch(compute={"resources": {"prepare": {"limits": {"memory": "8Gi"}}}})
    eventually(lambda: "next attempt" in world.condition("Ready")["message"], "the user is warned")
    assert world.pod("prepare")["metadata"]["uid"] == running["metadata"]["uid"]
    world.end("prepare", exit_code=1)
    retried = world.pod("prepare", attempt=1, seconds=60)
    assert retried["spec"]["containers"][0]["resources"]["limits"]["memory"] == "8Gi"
