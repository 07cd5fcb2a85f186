"""Several pods that train together are one attempt: it starts, ends and costs as a whole."""

from typing import Any

import pytest

from finetune_api.crd import MAXIMUM_NAME_LENGTH
from tests.unit.operator.world import INDEX, Object, World, failure, spec, success

STOPPED = "training stopped because node 1 of 2 ended first"


def to_train(**members: Any) -> World:
    """A world whose train of two nodes has its Job, but no pod yet."""
    world = World(spec(**{"compute": {"nodes": 2}, **members}))
    world.reconcile()
    world.run()
    return world


def started(world: World) -> list[Object]:
    pods = [world.start_pod(world.live_job()), world.start_pod(world.live_job())]
    world.reconcile()
    return pods


def training(**members: Any) -> tuple[World, list[Object]]:
    world = to_train(**members)
    pods = started(world)
    for number, pod in enumerate(pods):
        world.run_pod(pod, node=f"node-{number}")
    world.reconcile()
    return world, pods


def settled(world: World) -> None:
    world.settle()
    world.reconcile()


def ready(world: World) -> tuple[str, str]:
    found = world.condition("Ready")
    assert found is not None
    return found["reason"], found["message"]


def unschedulable(pod: Object) -> None:
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available."}
    pod["status"]["conditions"] = [why]


def test_the_pods_have_names_by_which_they_find_each_other() -> None:
    world = to_train()
    job = world.live_job()
    [service] = world.services
    name, pod_spec = service["metadata"]["name"], job["spec"]["template"]["spec"]
    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 2, 2)
    assert job["spec"]["backoffLimit"] == 0
    assert pod_spec["subdomain"] == name == "train-coach-00001"
    options = ["--nodes", "2", "--leader", f"coach-00001-train-0-0.{name}"]
    assert pod_spec["containers"][0]["args"][-4:] == options
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["metadata"]["ownerReferences"][0]["uid"] == world.job["metadata"]["uid"]


def test_every_attempt_finds_the_service_of_the_first() -> None:
    world, pods = training()
    world.services[0]["metadata"]["mark"] = "first"
    for pod in pods:
        world.end_pod(pod, 1)
    settled(world)
    world.wait()
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-1"
    assert [s["metadata"]["mark"] for s in world.services] == ["first"]


def test_the_other_stages_have_one_pod_and_no_service() -> None:
    world = World(spec(compute={"nodes": 2}))
    world.reconcile()
    assert "completionMode" not in world.live_job()["spec"]
    assert world.services == []


def test_a_result_is_read_again_by_one_pod() -> None:
    world, pods = training()
    for pod in pods:
        world.end_pod(pod, 0)
    settled(world)
    world.services.clear()
    world.wait()
    assert world.services == []
    job = world.live_job()
    assert "--report" in job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert (job["spec"].get("completionMode"), job["spec"]["completions"]) == (None, 1)


def test_the_longest_name_and_a_long_row_of_attempts_make_a_host_name() -> None:
    """A pod of an Indexed Job is called <Job>-<index>, and a host name has at most 63 characters."""
    job = f"{'a' * MAXIMUM_NAME_LENGTH}-00001-train-99999"
    assert len(f"{job}-15") <= 63
    assert len(f"train-{'a' * MAXIMUM_NAME_LENGTH}-00001") <= 63


def test_a_success_is_that_of_the_pod_that_leads() -> None:
    world, pods = training()
    world.end_pod(pods[0], 0, success("train", effective={"gpu": "H100"}))
    world.now = world.now.replace(minute=world.now.minute + 1)
    world.end_pod(pods[1], 0, success("train", effective={"gpu": "of the other"}))
    settled(world)
    assert world.stage("train")["state"] == "Succeeded"
    assert world.status["effective"]["gpu"] == "H100"


def test_what_becomes_of_the_others_after_the_one_that_leads_succeeded_is_no_failure() -> None:
    world, pods = training()
    world.end_pod(pods[0], 0, success("train"))
    world.end_pod(pods[1], 137)
    settled(world)
    assert world.stage("train")["state"] == "Succeeded"
    assert world.live_job()["metadata"]["name"] == "coach-00001-export-0"


def test_the_result_of_another_pod_is_not_taken_for_that_of_the_one_that_leads() -> None:
    world, pods = training()
    for pod in pods:
        world.end_pod(pod, 0, success("train"))
    world.settle()
    world.pods.remove(pods[0])
    world.reconcile()
    assert world.stage("train")["lastFailure"]["reason"] == "ResultLost"
    assert world.stage("train")["reportOnly"]


@pytest.mark.parametrize("first", [0, 1])
def test_an_attempt_fails_as_the_pod_at_fault_did_and_not_as_the_one_that_it_stopped(first: int) -> None:
    world, pods = training()
    for number in (first, 1 - first):
        if number == 0:
            world.end_pod(pods[0], 75, failure("train", 75, STOPPED, checkpoint_step=30))
        else:
            world.end_pod(pods[1], 80, failure("train", 80, "GPU 3 is broken."))
        world.now = world.now.replace(second=world.now.second + 5)
    settled(world)
    train = world.stage("train")
    assert (train["lastFailure"]["reason"], train["lastFailure"]["exitCode"]) == ("GPUUnusable", 80)
    assert train["lastFailure"]["message"] == "GPU 3 is broken."
    assert (train["countedFailures"], train["checkpointStep"]) == (1, 30)
    world.wait()
    assert "node-1" in str(world.live_job()["spec"]["template"]["spec"]["affinity"])
    assert "node-0" not in str(world.live_job()["spec"]["template"]["spec"]["affinity"])


def test_the_node_of_a_pod_that_is_gone_is_avoided() -> None:
    """The Job controller deletes what runs when it sees that one failed, also the one that is about to say why."""
    world, pods = training()
    world.end_pod(pods[0], 75, failure("train", 75, STOPPED))
    world.end_pod(pods[1], 80, failure("train", 80, "GPU 3 is broken."))
    settled(world)
    world.pods.remove(pods[1])
    world.wait()
    assert "node-1" in str(world.live_job()["spec"]["template"]["spec"]["affinity"])
    assert world.stage("train")["unusableNodes"] == ["node-1"]


def test_of_two_that_failed_by_themselves_the_first_to_end_counts() -> None:
    world, pods = training()
    world.end_pod(pods[1], 79, failure("train", 79, "Too large."))
    world.now = world.now.replace(second=world.now.second + 5)
    world.end_pod(pods[0], 137)
    settled(world)
    assert world.status["failure"]["message"].startswith("Too large.")


def test_a_pod_that_is_evicted_is_at_fault_though_it_says_as_the_others_do_that_it_was_stopped() -> None:
    world, pods = training()
    world.end_pod(pods[0], 75, failure("train", 75, STOPPED))
    world.now = world.now.replace(second=world.now.second + 5)
    world.end_pod(pods[1], 75, failure("train", 75, "asked to stop"), disrupted=True)
    settled(world)
    train = world.stage("train")
    assert (train["lastFailure"]["reason"], train["countedFailures"]) == ("Disrupted", 0)


def test_a_checkpoint_that_the_one_that_leads_saved_makes_the_network_failure_of_another_free() -> None:
    world, pods = training()
    world.end_pod(pods[0], 75, failure("train", 75, STOPPED, checkpoint_step=30))
    world.end_pod(pods[1], 69, failure("train", 69, "No bucket."))
    settled(world)
    train = world.stage("train")
    assert (train["lastFailure"]["reason"], train["countedFailures"]) == ("StorageUnavailable", 0)


def test_a_pod_that_is_deleted_ends_the_attempt_and_the_next_one_starts() -> None:
    world, pods = training()
    world.delete_pod(pods[1])
    world.end_pod(pods[1], 75, failure("train", 75, "asked to stop"))
    world.settle()
    assert pods[0]["metadata"]["deletionTimestamp"]
    world.reconcile()
    assert world.stage("train")["attempt"] == 0
    world.end_pod(pods[0], 75, failure("train", 75, STOPPED, checkpoint_step=30))
    world.settle()
    world.wait()
    assert world.stage("train")["attempt"] == 1
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-1"


def test_nothing_starts_while_one_pod_of_the_last_attempt_still_ends() -> None:
    world, pods = training()
    world.delete_job(world.live_job())
    world.end_pod(pods[0], 75)
    world.settle()
    world.wait()
    assert [j for j in world.jobs if j["metadata"]["labels"]["finetune.dev/stage"] == "train"] == []
    world.end_pod(pods[1], 75)
    world.settle()
    world.wait()
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-1"


def test_training_has_started_only_when_all_pods_run() -> None:
    world = to_train()
    pods = started(world)
    assert ready(world) == ("Training", "Waiting for 2 of 2 train pods to start.")
    world.run_pod(pods[0])
    world.reconcile()
    assert ready(world) == ("Training", "Waiting for 1 of 2 train pods to start.")
    world.run_pod(pods[1])
    world.reconcile()
    assert ready(world) == ("Training", "train is running, attempt 1.")


@pytest.mark.parametrize("stuck", [0, 1])
def test_the_pod_that_waits_is_the_one_that_is_diagnosed(stuck: int) -> None:
    world = to_train()
    pods = started(world)
    world.run_pod(pods[1 - stuck])
    unschedulable(pods[stuck])
    world.reconcile()
    assert ready(world)[0] == "Unschedulable"
    assert world.status["phase"] == "Pending"


def test_a_quota_with_room_for_one_pod_is_reported() -> None:
    world = to_train()
    job = world.live_job()
    world.run_pod(world.start_pod(job))
    refused = {"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota: gpus"}
    involved = {"uid": job["metadata"]["uid"]}
    world.cluster_events = [
        {"metadata": {}, "involvedObject": involved, "eventTime": "2026-01-01T00:00:00Z", **refused}
    ]
    world.reconcile()
    assert ready(world)[0] == "QuotaExceeded"


def test_the_time_to_start_continues_until_the_last_pod_runs() -> None:
    world = to_train(startDeadlineSeconds=600)
    pods = started(world)
    world.run_pod(pods[0])
    world.live_job()["status"] = {"active": 2, "ready": 1}
    unschedulable(pods[1])
    world.wait(300)
    assert not world.finished()
    world.wait(301)
    world.settle()
    world.reconcile()
    assert world.status["failure"]["reason"] == "Unschedulable"
    assert pods[0]["metadata"]["deletionTimestamp"], "a pod of a failed job runs on"


def test_a_training_that_has_started_has_no_time_to_start() -> None:
    world, _ = training(startDeadlineSeconds=600)
    world.wait(5000)
    assert not world.finished()


def test_suspending_ends_all_pods() -> None:
    world, pods = training()
    world.patch(suspend=True)
    world.reconcile()
    assert all(p["metadata"].get("deletionTimestamp") for p in pods)
    world.end_pod(pods[0], 75, failure("train", 75, "asked to stop", checkpoint_step=30))
    settled(world)
    assert "waiting for" in ready(world)[1]
    world.end_pod(pods[1], 75)
    settled(world)
    assert world.status["phase"] == "Suspended"
    assert (world.jobs[1:], [p for p in world.pods if INDEX in p["metadata"]["labels"]]) == ([], [])


def test_a_pod_that_waits_in_vain_gives_way_to_fewer_when_compute_is_edited() -> None:
    world = to_train()
    pods = started(world)
    world.run_pod(pods[0])
    unschedulable(pods[1])
    world.reconcile()
    world.edit(nodes=1)
    world.reconcile()
    for pod in pods:
        assert pod["metadata"]["deletionTimestamp"]
        world.end_pod(pod, 75)
    world.settle()
    world.wait()
    job = world.live_job()
    assert (job["metadata"]["name"], job["spec"]["completions"]) == ("coach-00001-train-1", 1)
    assert world.stage("train")["countedFailures"] == 0


def test_each_gpu_of_each_pod_counts() -> None:
    world, pods = training(compute={"nodes": 2, "accelerator": {"extendedResource": {"count": 4}}})
    world.wait(100)
    assert world.status["gpuCount"] == 8
    for pod in pods:
        world.end_pod(pod, 0, success("train"))
    settled(world)
    assert world.status["gpuSeconds"] == 800


def test_pods_that_begin_one_after_another_count_from_their_own_start() -> None:
    world = to_train()
    pods = started(world)
    world.run_pod(pods[0])
    world.wait(50)
    world.run_pod(pods[1])
    world.wait(100)
    for pod in pods:
        world.end_pod(pod, 0, success("train"))
    settled(world)
    assert world.status["gpuSeconds"] == 250


def test_a_pod_whose_node_tells_late_that_it_runs_counts_from_its_own_start() -> None:
    world = to_train()
    pods = started(world)
    world.wait(50)
    world.run_pod(pods[1])
    late = pods[1]["status"]
    pods[1]["status"] = {"phase": "Pending"}
    world.wait(50)
    world.run_pod(pods[0])
    world.reconcile()
    pods[1]["status"] = late
    world.wait(100)
    for pod in pods:
        world.end_pod(pod, 0, success("train"))
    settled(world)
    assert world.status["gpuSeconds"] == 250


def test_a_pod_that_goes_first_counts_to_the_end_of_the_others() -> None:
    """Nobody knows when it ended, and its GPUs were taken for as long as the attempt lasted."""
    world = to_train()
    pods = started(world)
    world.run_pod(pods[0])
    world.wait(50)
    world.run_pod(pods[1])
    world.wait(50)
    world.pods.remove(pods[0])
    world.wait(100)
    world.end_pod(pods[1], 75)
    settled(world)
    assert world.status["gpuSeconds"] == 350


def test_a_pod_that_is_gone_before_the_others_end_counts() -> None:
    world, pods = training()
    world.wait(100)
    world.end_pod(pods[0], 137)
    world.end_pod(pods[1], 75)
    world.settle()
    world.pods.remove(pods[1])
    world.reconcile()
    assert world.status["gpuSeconds"] == 200
