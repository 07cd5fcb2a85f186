"""An edit of spec.compute reaches a pod that cannot start; one that runs is left alone."""

from typing import Any

import pytest

from finetune_api.compute import ComputeSpec
from finetune_operator.job_templates.compute_digest import digest
from tests.unit.operator.world import Object, World, spec


@pytest.fixture
def world() -> World:
    world = World(spec(compute={"nodeSelector": {"gpu": "a100"}}))
    world.reconcile()
    world.run()
    return world


def pend(world: World) -> Object:
    """Give the live Job a pod that no node takes."""
    pod = world.start_pod(world.live_job())
    why = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes match."}
    pod["status"]["conditions"] = [why]
    world.reconcile()
    return pod


def let_go(world: World, pod: Object) -> None:
    """A pod that never was on a node is gone at once."""
    world.pods.remove(pod)
    world.settle()
    world.reconcile()


def test_a_pod_that_no_node_takes_is_recreated_as_the_spec_now_says(world: World) -> None:
    pod = pend(world)
    assert world.reason == "Unschedulable"
    world.edit(nodeSelector={"gpu": "h100"})
    world.reconcile()
    assert world.live_job()["metadata"]["deletionTimestamp"]
    assert world.reason == "ComputeChanged"
    let_go(world, pod)
    job = world.live_job()
    assert job["metadata"]["name"] == "coach-00001-train-1"
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"gpu": "h100"}


def test_that_costs_no_retry_and_is_no_failure(world: World) -> None:
    pod = pend(world)
    world.edit(nodeSelector={"gpu": "h100"})
    world.reconcile()
    let_go(world, pod)
    stage = world.stage("train")
    assert (stage["attempt"], stage["countedFailures"], "lastFailure" in stage) == (1, 0, False)
    assert [e.type for e in world.events if e.reason == "ComputeChanged"] == ["Normal"]


def test_the_reason_is_written_before_the_job_is_deleted(world: World) -> None:
    pend(world)
    world.edit(nodeSelector={"gpu": "h100"})
    world.pass_until_written()
    assert world.reason == "ComputeChanged"
    assert "deletionTimestamp" not in world.live_job()["metadata"]


def test_a_job_without_a_pod_is_recreated_too(world: World) -> None:
    job = world.live_job()
    world.cluster_events.append(
        {
            "involvedObject": {"uid": job["metadata"]["uid"]},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": "pods is forbidden: exceeded quota: cpus",
            "lastTimestamp": "2026-01-01T00:00:01Z",
            "metadata": {},
        }
    )
    world.reconcile()
    assert world.reason == "QuotaExceeded"
    world.edit(resources={"train": {"requests": {"cpu": "1"}}})
    world.reconcile()
    world.settle()
    world.reconcile()
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-1"


def test_a_pod_that_runs_is_left_alone_and_the_user_is_informed_once(world: World) -> None:
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.reconcile()
    world.edit(nodeSelector={"gpu": "h100"})
    world.reconcile()
    world.wait()
    assert "deletionTimestamp" not in world.live_job()["metadata"]
    ready = world.condition("Ready")
    assert ready is not None
    assert ready["message"] == (
        "train is running, attempt 1. spec.compute was changed since; the next attempt uses it."
    )
    assert [e.reason for e in world.events].count("ComputeChanged") == 1


def test_the_attempt_after_one_that_ran_has_the_edit(world: World) -> None:
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.edit(resources={"train": {"limits": {"memory": "64Gi"}}})
    world.reconcile()
    world.end_pod(pod, 137, reason="OOMKilled")
    world.settle()
    world.reconcile()
    world.wait()
    (container,) = world.live_job()["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "64Gi"


def run_out_of_memory(world: World, edit: dict[str, Any] | None = None) -> None:
    """Let the pod be killed for its memory, and wait for the next attempt; an edit comes while it runs."""
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.reconcile()
    if edit is not None:
        world.edit(**edit)
    world.end_pod(pod, 137, reason="OOMKilled")
    world.settle()
    world.reconcile()
    world.wait()


def memory(limit: str) -> dict[str, Any]:
    return {"resources": {"train": {"limits": {"memory": limit}}}}


def test_the_same_limit_twice_is_too_low(world: World) -> None:
    run_out_of_memory(world)
    run_out_of_memory(world)
    assert world.status["failure"]["reason"] == "OOMKilled"


@pytest.mark.parametrize("edit", [memory("64Gi"), {"scratch": {"size": "1Ti"}}])
def test_a_limit_that_is_raised_while_the_second_attempt_still_has_the_old_one_is_tried(
    world: World, edit: dict[str, Any]
) -> None:
    run_out_of_memory(world)
    run_out_of_memory(world, edit)
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-2"


def test_a_limit_that_is_raised_between_two_attempts_has_two_attempts_of_its_own(world: World) -> None:
    run_out_of_memory(world, memory("64Gi"))
    run_out_of_memory(world)
    assert not world.finished()
    run_out_of_memory(world)
    assert world.finished()
    assert world.stage("train")["attempt"] == 2


@pytest.mark.parametrize(("first", "second"), [(memory("64Gi"), None), (None, memory("64Gi"))])
def test_of_a_job_that_is_gone_only_the_next_one_tells_of_an_edit(
    world: World, first: dict[str, Any] | None, second: dict[str, Any] | None
) -> None:
    run_out_of_memory(world, first)
    world.jobs = [job for job in world.jobs if job["metadata"]["name"] != "coach-00001-train-0"]
    run_out_of_memory(world, second)
    assert world.finished() is (second is None)


def test_a_pod_that_begins_to_run_after_all_is_left_alone(world: World) -> None:
    pod = pend(world)
    world.edit(nodeSelector={"gpu": "h100"})
    world.pass_until_written()
    world.run_pod(pod)
    world.reconcile()
    assert "deletionTimestamp" not in world.live_job()["metadata"]
    assert world.reason == "Training"


def test_a_deletion_that_has_begun_is_seen_through_when_the_edit_is_taken_back(world: World) -> None:
    pod = pend(world)
    world.edit(nodeSelector={"gpu": "h100"})
    world.reconcile()
    world.edit(nodeSelector={"gpu": "a100"})
    world.reconcile()
    let_go(world, pod)
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-1"
    assert world.stage("train")["countedFailures"] == 0


def test_a_job_of_an_earlier_version_is_left_alone(world: World) -> None:
    pend(world)
    del world.live_job()["metadata"]["annotations"]
    world.edit(nodeSelector={"gpu": "h100"})
    world.reconcile()
    assert "deletionTimestamp" not in world.live_job()["metadata"]
    assert world.reason == "Unschedulable"


def test_a_pod_about_which_nothing_is_wrong_is_given_time(world: World) -> None:
    world.start_pod(world.live_job())
    world.edit(nodeSelector={"gpu": "h100"})
    world.reconcile()
    assert "deletionTimestamp" not in world.live_job()["metadata"]


def test_a_pod_that_only_reads_a_result_stays_one(world: World) -> None:
    world.lose()
    pod = pend(world)
    world.edit(nodeSelector={"cpu": "yes"})
    world.reconcile()
    let_go(world, pod)
    (container,) = world.live_job()["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == "--report"


@pytest.mark.parametrize(
    ("compute", "differs"),
    [
        ({}, False),
        ({"resources": {}}, False),
        ({"resources": {"export": {"limits": {"memory": "8Gi"}}}}, False),
        ({"accelerator": {"memoryMiB": 16000}}, False),
        ({"resources": {"train": {"limits": {"memory": "8Gi"}}}}, True),
        ({"accelerator": {"extendedResource": {"name": "amd.com/gpu"}}}, True),
        ({"accelerator": {"extendedResource": {"count": 1}}}, False),
        ({"accelerator": {"extendedResource": {"count": 2}}}, True),
        ({"nodes": 1}, False),
        ({"nodes": 2}, True),
        ({"fsGroup": 0}, True),
        ({"tolerations": [{"key": "gpu"}]}, True),
        ({"imagePullSecrets": [{"name": "pull"}]}, True),
    ],
)
def test_only_what_shapes_the_stages_own_pod_counts(compute: dict[str, Any], differs: bool) -> None:
    before = digest(ComputeSpec(), "train", report_only=False)
    after = digest(ComputeSpec.model_validate(compute), "train", report_only=False)
    assert (before != after) is differs


def test_the_digest_of_a_job_never_changes_with_the_version() -> None:
    """Otherwise an upgrade would recreate waiting pods."""
    compute = ComputeSpec.model_validate({"nodeSelector": {"gpu": "a100"}, "tolerations": [{"key": "gpu"}]})
    assert digest(compute, "train", report_only=False) == "09a3e015f18547e3"
