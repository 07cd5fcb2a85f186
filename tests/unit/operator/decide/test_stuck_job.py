"""A Job whose pods have ended and which is never marked Failed: it is recreated, and nothing is counted."""

from datetime import timedelta

import pytest

from finetune_api.spec import STAGES, Stage
from finetune_operator.decide.job_and_pod import is_live_job
from finetune_operator.decide.stuck_job import seconds_left
from tests.unit.operator.world import Object, World, failure


def stuck(stage: Stage = "train", *, blind: bool = True) -> World:
    """A world in which the Job controller learned of a pod by its deletion, which has ended, a second ago."""
    world = World()
    world.reconcile()
    for _ in range(STAGES.index(stage)):
        world.run()
    job = world.live_job()
    pod = world.start_pod(job)
    world.run_pod(pod)
    world.reconcile()
    if blind:
        world.blind(job)
    world.now += timedelta(hours=5)
    world.delete_pod(pod)
    world.end_pod(pod, 75, failure(stage, 75, "Preempted."))
    world.settle()
    world.now += timedelta(seconds=1)
    world.reconcile()
    return world


def end_deletion(world: World) -> None:
    world.settle()
    world.reconcile()


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_is_never_marked_failed_is_recreated(stage: Stage) -> None:
    world = stuck(stage)
    first = f"coach-00001-{stage}-0"
    world.wait(60)
    assert next(j for j in world.jobs if j["metadata"]["name"] == first)["metadata"]["deletionTimestamp"]
    end_deletion(world)
    world.wait(10)
    assert world.live_job()["metadata"]["name"] == f"coach-00001-{stage}-1"
    assert first not in [j["metadata"]["name"] for j in world.jobs]


def test_kubernetes_has_a_minute_from_its_last_word_to_conclude() -> None:
    world = stuck()
    assert (world.reason, world.last_requeue) == ("Training", 59)
    world.wait(58)
    assert "deletionTimestamp" not in world.live_job()["metadata"]
    assert world.last_requeue == 1


def test_a_job_is_deleted_only_once_it_is_written_why() -> None:
    world = stuck()
    world.now += timedelta(seconds=60)
    world.pass_until_written()
    assert world.reason == "JobUndecided"
    assert "deletionTimestamp" not in world.live_job()["metadata"]


def test_without_the_times_of_its_fields_a_job_has_the_minute_from_its_creation() -> None:
    world = stuck()
    for job in world.jobs:
        del job["metadata"]["managedFields"]
    world.reconcile()
    assert [j["metadata"]["name"] for j in world.jobs if "deletionTimestamp" in j["metadata"]] == [
        "coach-00001-train-0"
    ]


def test_a_pod_that_is_not_yet_in_the_count_has_failed_too() -> None:
    world = stuck()
    job = world.live_job()
    job["status"] = {"uncountedTerminatedPods": {"failed": ["pod-of-it"]}}
    assert seconds_left(job, (), world.now) == 59


def test_a_verdict_that_comes_late_counts() -> None:
    world = stuck()
    job: Object = world.live_job()
    del job["blind"]
    world.settle()
    world.reconcile()
    assert world.stage("train")["lastFailure"]["message"].startswith("The train pod was lost: Job has reached")
    assert world.stage("train")["countedFailures"] == 1


def test_what_is_lost_so_is_reported_and_costs_no_retry() -> None:
    world = stuck()
    world.wait(60)
    end_deletion(world)
    stage = world.stage("train")
    assert (stage["attempt"], stage["countedFailures"], stage["lastFailure"]["reason"]) == (1, 0, "PodLost")


def test_a_job_that_says_at_once_that_it_failed_waits_for_nothing() -> None:
    assert stuck(blind=False).reason == "RetryBackoff"


def test_it_is_deleted_too_when_its_job_is_suspended() -> None:
    world = stuck()
    world.patch(suspend=True)
    world.wait(60)
    end_deletion(world)
    assert (world.status["phase"], [x for x in world.jobs if is_live_job(x)]) == ("Suspended", [])
