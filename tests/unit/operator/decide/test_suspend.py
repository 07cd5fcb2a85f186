"""spec.suspend, step by step."""

from typing import Any

import pytest

from finetune_api.spec import STAGES, Stage
from finetune_operator.decide.job_and_pod import is_live_pod
from tests.unit.operator.world import Object, World, failure, spec, success


def started(stage: Stage, **members: Any) -> tuple[World, Object]:
    """A world whose job runs that stage, and the pod of it."""
    world = World(spec(**members))
    world.reconcile()
    for _ in STAGES[: STAGES.index(stage)]:
        world.run()
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.reconcile()
    return world, pod


def suspend(world: World) -> None:
    world.patch(suspend=True)
    world.reconcile()


def resume(world: World) -> None:
    world.patch(suspend=False)
    world.reconcile()


def suspended(world: World) -> Any:
    found = world.condition("Suspended")
    assert found is not None
    return found["status"]


def end_by_sigterm(world: World, pod: Object, stage: Stage = "train", seconds_after: int = 0) -> None:
    world.wait(seconds_after)
    world.end_pod(pod, 75, failure(stage, 75, "Stopped.", checkpoint_step=5))


@pytest.mark.parametrize("stage", STAGES)
def test_suspending_leaves_no_pod_and_resuming_makes_an_uncounted_attempt(stage: Stage) -> None:
    world, pod = started(stage)
    suspend(world)
    assert pod["metadata"]["deletionTimestamp"]
    end_by_sigterm(world, pod, stage)
    world.settle()
    world.reconcile()
    assert not [p for p in world.pods if is_live_pod(p)]
    assert world.stage(stage)["state"] == "Pending"
    count = len(world.created)
    world.wait(86400)
    assert len(world.created) == count
    resume(world)
    assert world.live_job()["metadata"]["name"] == f"coach-00001-{stage}-1"
    assert world.stage(stage)["countedFailures"] == 0


def test_a_suspended_job_says_so_while_its_pod_still_ends() -> None:
    world, _ = started("train")
    suspend(world)
    assert (world.status["phase"], suspended(world), world.reason) == ("Suspended", "True", "Suspended")
    assert "waiting for coach-00001-train-0 to terminate" in world.condition("Ready")["message"]  # type: ignore[index]
    assert world.condition("Reconciling") is None


def test_a_suspended_job_at_rest_says_where_it_stands() -> None:
    world, pod = started("train")
    suspend(world)
    end_by_sigterm(world, pod)
    world.settle()
    world.reconcile()
    assert world.condition("Ready")["message"] == (  # type: ignore[index]
        "The job is suspended before train; to resume it, set spec.suspend to false."
    )
    assert world.last_requeue is None


def reached(world: World, attempt: int, step: int) -> None:
    """The pod of an attempt of train reports a step."""
    assert world.resource is not None
    progress = {"stage": "train", "attempt": attempt, "activity": "Training", "step": step}
    world.resource["status"] = {**world.resource["status"], "progress": progress}


def message(world: World) -> Any:
    return world.condition("Suspended")["message"]  # type: ignore[index]


def test_a_job_that_has_trained_says_after_which_step_it_is_suspended() -> None:
    world, pod = started("train")
    reached(world, 0, 27)
    suspend(world)
    end_by_sigterm(world, pod)
    world.settle()
    world.reconcile()
    assert message(world) == "The job is suspended after step 27; to resume it, set spec.suspend to false."


def test_a_job_that_is_suspended_after_a_failure_has_only_its_checkpoint() -> None:
    world, pod = started("train")
    reached(world, 0, 27)
    world.end_pod(pod, 1, failure("train", 1, "Broken.", checkpoint_step=20))
    world.settle()
    world.reconcile()
    suspend(world)
    world.settle()
    world.reconcile()
    assert message(world) == "The job is suspended after step 20; to resume it, set spec.suspend to false."


def test_steps_of_an_earlier_attempt_say_nothing_of_a_later_one() -> None:
    world, pod = started("train")
    reached(world, 0, 27)
    suspend(world)
    end_by_sigterm(world, pod)
    world.settle()
    resume(world)
    suspend(world)
    world.settle()
    world.reconcile()
    assert message(world) == "The job is suspended before train; to resume it, set spec.suspend to false."


def test_a_job_is_deleted_only_once_it_is_written_that_it_is_suspended() -> None:
    world, _ = started("train")
    world.patch(suspend=True)
    world.pass_until_written()
    assert suspended(world) == "True"
    assert "deletionTimestamp" not in world.live_job()["metadata"]


def test_a_job_that_is_created_suspended_is_accepted_and_starts_nothing() -> None:
    world = World(spec(suspend=True))
    world.reconcile()
    assert world.condition("Accepted")["status"] == "True"  # type: ignore[index]
    assert world.status["snapshot"]["trainerImage"] == "registry.local/trainer:1"
    assert (world.created, world.status["phase"]) == ([], "Suspended")
    resume(world)
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-0"


def test_a_job_that_is_resumed_starts_without_a_pause() -> None:
    world, pod = started("train")
    suspend(world)
    end_by_sigterm(world, pod)
    world.settle()
    resume(world)
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-1"


def test_a_pause_after_a_failure_is_kept_when_the_job_is_resumed() -> None:
    world, pod = started("train")
    world.end_pod(pod, 1)
    world.settle()
    world.reconcile()
    suspend(world)
    resume(world)
    assert world.reason == "RetryBackoff"


def test_a_job_that_is_resumed_while_its_pod_ends_waits_for_it() -> None:
    world, pod = started("train")
    suspend(world)
    resume(world)
    assert (suspended(world), len(world.jobs)) == ("True", 2)
    end_by_sigterm(world, pod)
    world.reconcile()
    assert (suspended(world), world.reason) == ("False", "WaitingForPreviousRun")
    world.settle()
    world.reconcile()
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-1"
    assert "lastFailure" not in world.stage("train")


def test_a_job_that_is_resumed_before_anything_was_deleted_runs_on() -> None:
    world, pod = started("train")
    world.patch(suspend=True)
    world.pass_until_written()
    resume(world)
    assert (suspended(world), world.reason) == ("False", "Training")
    assert pod["status"]["phase"] == "Running"


def test_a_stage_that_completes_while_it_is_deleted_is_done() -> None:
    world, pod = started("train")
    suspend(world)
    world.end_pod(pod, 0, success("train"))
    world.reconcile()
    assert world.stage("train")["state"] == "Succeeded"
    world.settle()
    resume(world)
    assert world.live_job()["metadata"]["name"] == "coach-00001-export-0"


def test_a_stage_whose_pod_is_over_is_not_deleted_before_its_job_says_so() -> None:
    world, pod = started("train")
    world.end_pod(pod, 0, success("train"))
    suspend(world)
    assert "deletionTimestamp" not in world.live_job()["metadata"]
    world.settle()
    world.reconcile()
    assert world.stage("train")["state"] == "Succeeded"


def test_a_job_that_completed_unseen_is_not_deleted() -> None:
    world, pod = started("train")
    world.patch(suspend=True)
    world.pass_until_written()
    deleting = world.operator_pass()
    next(deleting)
    next(deleting)  # it has decided to delete
    world.end_pod(pod, 0, success("train"))
    world.settle()
    for _ in deleting:
        pass
    assert "deletionTimestamp" not in world.jobs[-1]["metadata"]
    world.reconcile()
    assert world.stage("train")["state"] == "Succeeded"


def test_the_last_stage_may_end_the_job_while_it_is_being_suspended() -> None:
    world, pod = started("export")
    suspend(world)
    world.end_pod(pod, 0, success("export"))
    world.reconcile()
    assert (world.status["phase"], suspended(world)) == ("Succeeded", "False")


def test_the_gpu_time_of_a_suspended_attempt_counts() -> None:
    world, pod = started("train")
    suspend(world)
    end_by_sigterm(world, pod, seconds_after=120)
    world.reconcile()
    assert world.status["gpuSeconds"] == 120
    assert world.stage("train")["checkpointStep"] == 5


def test_the_time_in_which_a_job_is_suspended_is_not_active() -> None:
    world, pod = started("train", activeDeadlineSeconds=1000)
    suspend(world)
    end_by_sigterm(world, pod)
    world.settle()
    world.reconcile()
    world.wait(86400)
    resume(world)
    world.wait(100)
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-1"


def test_what_a_pod_says_while_it_is_suspended_is_no_failure() -> None:
    world, pod = started("train", retries={"maximum": 0})
    suspend(world)
    world.end_pod(pod, 65, failure("train", 65, "Cut short."))
    world.settle()
    world.reconcile()
    assert (world.finished(), world.stage("train")["state"]) == (False, "Pending")


def test_a_job_without_a_pod_is_suspended_too() -> None:
    world = World()
    world.reconcile()
    suspend(world)
    world.settle()
    world.reconcile()
    assert (world.jobs, world.stage("prepare")["attempt"]) == ([], 1)


def test_suspending_a_finished_job_changes_nothing() -> None:
    world = World()
    world.reconcile()
    world.run(65)
    suspend(world)
    assert (world.status["phase"], suspended(world)) == ("Failed", "False")


def test_suspending_and_resuming_are_reported_once_each() -> None:
    world, pod = started("train")
    before = len(world.events)
    suspend(world)
    end_by_sigterm(world, pod)
    world.settle()
    world.reconcile()
    resume(world)
    world.wait(1)
    assert [(e.type, e.reason) for e in world.events[before:]] == [
        ("Normal", "Suspended"),
        ("Normal", "Resumed"),
        ("Normal", "StageStarted"),
    ]
