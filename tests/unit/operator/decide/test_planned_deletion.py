"""The operator writes why it deletes a Job, deletes it, and recognizes that it did: whatever happens in between."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from finetune_operator.decide.job_and_pod import is_live_pod
from tests.unit.operator.world import Object, World, spec

UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes match."}


def training() -> tuple[World, Object]:
    """A world with a train Job, and the Job's pod, which has not started."""
    world = World(spec(compute={"nodeSelector": {"gpu": "a100"}}))
    world.reconcile()
    world.run()
    return world, world.start_pod(world.live_job())


def suspended() -> World:
    world, pod = training()
    world.run_pod(pod)
    world.reconcile()
    world.patch(suspend=True)
    return world


def edited() -> World:
    world, pod = training()
    pod["status"]["conditions"] = [UNSCHEDULABLE]
    world.reconcile()
    world.edit(nodeSelector={"gpu": "h100"})
    return world


def stuck() -> World:
    world, pod = training()
    world.run_pod(pod)
    world.reconcile()
    world.blind(world.live_job())
    world.delete_pod(pod)
    world.end_pod(pod, 75)
    world.settle()
    world.reconcile()
    world.now += timedelta(seconds=61)
    return world


WANTED = {"Suspended": suspended, "ComputeChanged": edited, "JobUndecided": stuck}
FAILURES = {"Suspended": None, "ComputeChanged": None, "JobUndecided": "PodLost"}
every_reason = pytest.mark.parametrize(("reason", "wanted"), WANTED.items())


def end_deletion(world: World) -> None:
    """Let the pods terminate and the Job go, then start the next attempt."""
    for pod in filter(is_live_pod, world.pods):
        world.end_pod(pod, 75)
    world.settle()
    world.patch(suspend=False)
    world.reconcile()
    world.wait()


def assert_recognized(world: World, reason: str) -> None:
    stage = world.stage("train")
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-1"
    assert (stage["attempt"], stage["countedFailures"]) == (1, 0)
    assert stage.get("lastFailure", {}).get("reason") == FAILURES[reason]
    assert "plannedDeletion" not in stage


@every_reason
def test_the_reason_is_written_before_the_job_is_deleted(reason: str, wanted: Callable[[], World]) -> None:
    world = wanted()
    job = world.live_job()
    world.pass_until_written()
    assert world.stage("train")["plannedDeletion"] == {"jobUid": job["metadata"]["uid"], "reason": reason}
    assert "deletionTimestamp" not in job["metadata"]
    world.reconcile()
    assert job["metadata"]["deletionTimestamp"]


@every_reason
@pytest.mark.parametrize("calls", range(9))
def test_an_operator_that_dies_after_any_call_is_continued_by_the_next(
    reason: str, wanted: Callable[[], World], calls: int
) -> None:
    world = wanted()
    passes = (call for _ in range(3) for call in world.operator_pass())
    for _, _ in zip(range(calls), passes, strict=False):
        pass
    world.reconcile()
    end_deletion(world)
    assert_recognized(world, reason)


@every_reason
def test_a_job_that_somebody_else_deletes_once_the_reason_is_written_counts_as_planned(
    reason: str, wanted: Callable[[], World]
) -> None:
    world = wanted()
    job = world.live_job()
    world.pass_until_written()
    world.delete_job(job)
    end_deletion(world)
    assert_recognized(world, reason)


@every_reason
@pytest.mark.parametrize("stage", ["written", "being deleted", "gone"])
def test_a_status_of_the_earlier_version_has_the_reason_in_its_conditions(
    reason: str, wanted: Callable[[], World], stage: str
) -> None:
    world = wanted()
    world.pass_until_written()
    if stage != "written":
        world.reconcile()
    if stage == "gone":
        for pod in filter(is_live_pod, world.pods):
            world.end_pod(pod, 75)
        world.settle()
    world.rewrite_as_the_earlier_version()
    if stage != "written":
        # What the spec says now explains nothing.
        world.patch(suspend=False)
    world.reconcile()
    end_deletion(world)
    assert_recognized(world, reason)


@pytest.mark.parametrize(("wanted", "undo"), [(suspended, {"suspend": False}), (edited, {"compute": None})])
def test_a_reason_that_no_longer_holds_is_dropped_unless_the_deletion_has_begun(
    wanted: Callable[[], World], undo: Object
) -> None:
    world = wanted()
    world.pass_until_written()
    world.patch(**({"compute": {"nodeSelector": {"gpu": "a100"}}} if "compute" in undo else undo))
    world.reconcile()
    assert "plannedDeletion" not in world.stage("train")
    assert "deletionTimestamp" not in world.live_job()["metadata"]
    world.delete_job(world.live_job())
    world.reconcile()
    assert world.stage("train")["lastFailure"]["reason"] == "JobDeleted"


@pytest.mark.parametrize("earlier_version", [False, True])
def test_a_pod_that_starts_while_its_job_is_being_deleted_changes_nothing(earlier_version: bool) -> None:
    world = edited()
    world.reconcile()
    if earlier_version:
        world.rewrite_as_the_earlier_version()
    (pod,) = (p for p in world.pods if is_live_pod(p))
    world.run_pod(pod)
    world.reconcile()
    assert world.reason == "Training"
    end_deletion(world)
    assert_recognized(world, "ComputeChanged")
