"""Training on several nodes, on a real API server with its Job controller; the tests play kubelet."""

import json
import time
from datetime import UTC, datetime

import pytest

from finetune_operator.clock import parse_time
from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import Object, World


@pytest.fixture
def world(world: World, operator: OperatorProcess) -> World:
    """A FineTuneJob whose train takes two nodes, and has both pods."""
    world.apply(compute={"nodes": 2})
    world.end("prepare")
    for index in (0, 1):
        # Only a kubelet can let a pod go that is bound, as in a cluster with nodes.
        world.bind(world.pod("train", index=index), f"node-{index}")
    return world


def _train(world: World) -> Object:
    found: Object = next(s for s in world.status()["stages"] if s["name"] == "train")
    return found


def test_each_pod_has_a_name_and_a_number_and_the_first_has_the_result(world: World) -> None:
    pods = [world.pod("train", index=index) for index in (0, 1)]
    [service] = world.items("services", "-l", f"finetune.dev/job={world.name}")
    uid = world.job()["metadata"]["uid"]
    assert service["metadata"]["name"] == f"train-coach-{uid[:5]}"
    assert service["spec"]["clusterIP"] == "None"
    assert [owner["uid"] for owner in service["metadata"]["ownerReferences"]] == [uid]
    job = f"coach-{uid[:5]}-train-0"
    assert [p["spec"]["hostname"] for p in pods] == [f"{job}-0", f"{job}-1"]
    assert {p["spec"]["subdomain"] for p in pods} == {service["metadata"]["name"]}
    arguments = pods[1]["spec"]["containers"][0]["args"]
    assert arguments[-4:] == ["--nodes", "2", "--leader", f"{job}-0.{service['metadata']['name']}"]
    assert "JOB_COMPLETION_INDEX" in [variable["name"] for variable in pods[1]["spec"]["containers"][0]["env"]]

    world.end("train", index=0, effective={"gpu": "H100"})
    world.end("train", index=1, effective={"gpu": "of the other"})
    world.end("export")
    world.wait_for("Succeeded")
    assert world.status()["effective"]["gpu"] == "H100"


def test_training_has_started_only_when_both_pods_run(world: World) -> None:
    world.run("train", index=0)
    waiting = world.pod("train", index=1)
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: taint gpu."}
    patch = json.dumps({"status": {"conditions": [why]}})
    world.kubectl("patch", "pod", waiting["metadata"]["name"], "--subresource=status", "--type=merge", "-p", patch)
    eventually(lambda: world.condition("Ready").get("reason") == "Unschedulable", "the waiting pod is reported")
    world.run("train", index=1)
    eventually(lambda: "train is running" in world.condition("Ready")["message"], "both run")


def test_the_pod_at_fault_is_reported_and_the_next_attempt_has_the_edited_nodes(world: World) -> None:
    for index in (0, 1):
        world.run("train", index=index)
    eventually(lambda: "train is running" in world.condition("Ready")["message"], "both run")
    world.patch(compute={"nodes": 1})
    stopped = "training stopped because node 1 of 2 ended first"
    world.end("train", index=0, exit_code=75, message=stopped, checkpoint_step=30)
    other = eventually(
        lambda: p if "deletionTimestamp" in (p := world.pod("train", index=1))["metadata"] else {},
        "the Job controller ends the other pod",
    )
    world.end("train", index=1, exit_code=80, message="GPU 3 is broken.")
    failure = eventually(lambda: _train(world).get("lastFailure", {}), "the failure")
    assert (failure["reason"], failure["message"]) == ("GPUUnusable", "GPU 3 is broken.")
    assert (_train(world)["countedFailures"], _train(world)["checkpointStep"]) == (1, 30)
    world.let_go(other)
    again = world.pod("train", attempt=1, seconds=60)
    assert "--nodes" not in again["spec"]["containers"][0]["args"]
    assert "node-1" in json.dumps(again["spec"]["affinity"])
    world.end("train", attempt=1)
    world.end("export")
    world.wait_for("Succeeded")


def test_a_pod_that_is_deleted_ends_the_attempt_and_the_time_of_both_counts(world: World) -> None:
    pods = [world.run("train", index=index) for index in (0, 1)]
    since = parse_time(eventually(lambda: world.status().get("gpuSince", ""), "the GPUs are in use"))
    eventually(lambda: world.status().get("gpuCount") == 2, "both are counted")
    time.sleep(2)  # of which at least one has to be counted, for each
    world.kubectl("delete", "pod", pods[1]["metadata"]["name"], "--wait=false")
    world.end("train", index=1, exit_code=75, message="asked to stop")
    world.let_go(pods[1])
    eventually(lambda: "deletionTimestamp" in world.pod("train", index=0)["metadata"], "the other is to end, too")
    world.end("train", index=0, exit_code=75, message="stopped", checkpoint_step=30)
    world.let_go(pods[0])
    world.pod("train", attempt=1, index=1, seconds=60)
    assert _train(world)["attempt"] == 1
    assert 2 <= world.status()["gpuSeconds"] <= 2 * (datetime.now(UTC) - since).total_seconds()
