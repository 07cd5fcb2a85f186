"""A job ends in time, and time in a queue is not its own."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.decide.deadlines import admitted_since
from tests.unit.operator.world import Object, World, spec


def started(**members: Any) -> World:
    """A job whose prepare has a Job, without a pod."""
    world = World(spec(**members))
    world.reconcile()
    return world


def pending(**members: Any) -> World:
    """A job whose prepare has a pod that does not run."""
    world = started(**members)
    world.start_pod(world.live_job())
    world.reconcile()
    return world


def image_missing(world: World) -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    world.pods[0]["status"]["containerStatuses"] = [{"name": "trainer", "state": waiting}]


def failure(world: World) -> Object:
    found: Object = world.status["failure"]
    return found


def test_a_pod_that_never_starts_fails_the_job_after_half_an_hour() -> None:
    world = pending()
    world.wait(1799)
    assert not world.finished()
    world.wait(1)
    assert world.finished()
    assert (failure(world)["stage"], failure(world)["reason"]) == ("prepare", "StartDeadlineExceeded")
    assert "spec.startDeadlineSeconds" in failure(world)["message"]


def test_the_failure_has_the_reason_why_the_pod_did_not_start() -> None:
    world = pending(startDeadlineSeconds=60)
    image_missing(world)
    world.wait(60)
    assert failure(world)["reason"] == "ImagePullFailed"
    assert "cannot be pulled" in failure(world)["message"]
    assert "spec.startDeadlineSeconds" in failure(world)["message"]


def test_a_job_that_gets_no_pod_at_all_fails_too() -> None:
    world = started(startDeadlineSeconds=60)
    world.wait(60)
    assert failure(world)["reason"] == "StartDeadlineExceeded"


def test_a_pod_that_runs_has_kept_its_start_deadline() -> None:
    world = pending(startDeadlineSeconds=60)
    world.run_pod(world.pods[0])
    world.wait(10_000)
    assert not world.finished()


@pytest.mark.parametrize(
    "left",
    [
        {"failed": 1},
        {"uncountedTerminatedPods": {"failed": ["uid"]}},
        {"conditions": [{"type": "FailureTarget", "status": "True"}]},
    ],
)
def test_a_pod_that_ran_and_is_gone_did_not_start_late(left: Object) -> None:
    world = pending(startDeadlineSeconds=60)
    world.pods.clear()
    world.live_job()["status"] = left
    world.wait(60)
    assert not world.finished()


def test_the_start_deadline_counts_from_admission() -> None:
    world = started(startDeadlineSeconds=60)
    world.hold(world.live_job())
    world.wait(10_000)
    assert not world.finished()
    world.admit(world.live_job())
    world.wait(59)
    assert not world.finished()
    world.wait(1)
    assert world.finished()


def test_the_next_look_is_due_when_the_deadline_is() -> None:
    world = pending(startDeadlineSeconds=60)
    world.wait(58)
    assert world.last_requeue == 2


def test_a_later_stage_has_the_whole_start_deadline_to_itself() -> None:
    world = started(startDeadlineSeconds=60)
    world.run(seconds=1000)
    world.start_pod(world.live_job())
    world.wait(59)
    assert not world.finished()
    world.wait(1)
    assert failure(world)["stage"] == "train"


def test_a_job_that_is_over_has_its_live_job_deleted() -> None:
    world = pending(startDeadlineSeconds=60)
    world.wait(60)
    assert world.live_job()["metadata"]["deletionTimestamp"]
    world.end_pod(world.pods[0], 137)
    world.settle()
    assert (world.jobs, world.pods) == ([], [])


def test_the_verdict_is_written_before_the_job_is_deleted() -> None:
    world = pending(startDeadlineSeconds=60)
    world.now += timedelta(seconds=60)
    world.pass_until_written()
    assert world.stage("prepare")["state"] == "Failed"
    assert "deletionTimestamp" not in world.live_job()["metadata"]
    # Whatever happens to the Job now, the verdict stands.
    world.jobs.clear()
    world.pods.clear()
    world.reconcile()
    assert failure(world)["reason"] == "StartDeadlineExceeded"
    assert len([x for x in world.created if x["kind"] == "Job"]) == 1


def test_a_deletion_that_was_lost_is_asked_for_again() -> None:
    world = pending(startDeadlineSeconds=60)
    world.wait(60)
    del world.live_job()["metadata"]["deletionTimestamp"]
    world.reconcile()
    assert world.live_job()["metadata"]["deletionTimestamp"]


def test_without_an_active_deadline_a_job_runs_as_long_as_it_takes() -> None:
    world = started()
    world.run(seconds=1_000_000)
    assert not world.finished()


def test_the_active_deadline_counts_all_stages_and_attempts() -> None:
    world = started(activeDeadlineSeconds=300)
    world.run(seconds=100)
    world.run(1, seconds=100)
    world.wait(10)
    world.run_pod(world.start_pod(world.live_job()))
    world.wait(99)
    assert not world.finished()
    world.wait(1)
    assert (failure(world)["stage"], failure(world)["reason"]) == ("train", "DeadlineExceeded")
    assert "spec.activeDeadlineSeconds" in failure(world)["message"]
    assert world.live_job()["metadata"]["deletionTimestamp"]
    assert world.status["activeSeconds"] == 300


def test_a_pause_between_attempts_is_not_active() -> None:
    world = started(activeDeadlineSeconds=300)
    world.run(1, seconds=100)
    assert "activeSince" not in world.status
    world.wait(5000)
    assert world.status["activeSeconds"] == 100
    assert not world.finished()


def test_time_in_the_queue_is_not_active() -> None:
    world = started(activeDeadlineSeconds=300)
    world.wait(100)
    world.hold(world.live_job())
    world.wait(5000)
    assert world.status["activeSeconds"] == 100
    world.admit(world.live_job())
    world.wait(199)
    assert not world.finished()
    world.wait(1)
    assert failure(world)["reason"] == "DeadlineExceeded"


def test_an_operator_that_was_away_knows_when_the_queue_took_the_job() -> None:
    world = started(activeDeadlineSeconds=300)
    world.now += timedelta(seconds=100)
    world.hold(world.live_job())
    world.wait(5000)
    assert world.status["activeSeconds"] == 100


def test_time_is_never_counted_that_may_have_been_in_the_queue() -> None:
    world = started(activeDeadlineSeconds=300)
    world.now += timedelta(seconds=100)
    world.hold(world.live_job())
    world.now += timedelta(seconds=5000)
    world.admit(world.live_job())
    world.reconcile()
    assert world.status.get("activeSeconds", 0) <= 100
    assert not world.finished()


def test_nothing_starts_any_more_when_the_active_time_is_used_up() -> None:
    world = started(activeDeadlineSeconds=300)
    world.run(seconds=300)
    assert failure(world)["reason"] == "DeadlineExceeded"
    assert len([x for x in world.created if x["kind"] == "Job"]) == 1


def test_a_job_that_was_done_in_time_succeeds_though_it_is_seen_late() -> None:
    world = started(activeDeadlineSeconds=300)
    for _ in range(3):
        world.run(seconds=90)
    assert world.status["phase"] == "Succeeded"


def test_a_running_job_is_looked_at_when_its_time_is_up() -> None:
    world = pending(activeDeadlineSeconds=300)
    world.run_pod(world.pods[0])
    world.wait(100)
    assert world.last_requeue == 200


def test_a_raised_deadline_counts_at_once() -> None:
    world = pending(startDeadlineSeconds=60)
    world.job["spec"]["startDeadlineSeconds"] = 120
    world.wait(60)
    assert not world.finished()


@pytest.mark.parametrize(
    ("suspend", "conditions", "since"),
    [
        (None, [], "2026-01-01T00:00:00Z"),
        (False, [], "2026-01-01T00:00:00Z"),
        (True, [], None),
        (True, ["True"], None),
        # The Job controller has not acted yet.
        (False, ["True"], None),
        (True, ["False"], None),
        (False, ["False"], "2026-01-01T01:00:00Z"),
    ],
)
def test_the_time_of_admission_is_read_from_the_job(
    suspend: bool | None, conditions: list[str], since: str | None
) -> None:
    job = {
        "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"suspend": suspend},
        "status": {
            "conditions": [
                {"type": "Suspended", "status": value, "lastTransitionTime": "2026-01-01T01:00:00Z"}
                for value in conditions
            ]
        },
    }
    assert admitted_since(job) == since
