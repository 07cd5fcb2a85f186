"""Jobs that wait in a queue of Kueue."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_api.spec import STAGES, Stage
from finetune_operator.decide.kueue_wait import why
from tests.unit.operator.world import World, failure, spec

Object = dict[str, Any]
MESSAGE = "insufficient unused quota for nvidia.com/gpu in flavor any, 1 more needed"


def scheduling(**kueue: Any) -> Object:
    return {"kueue": {"queueName": "gpu", **kueue}}


def workload(active: bool = True, **conditions: tuple[str, str]) -> Object:
    """Conditions by type: status and message."""
    found = [
        {"type": kind, "status": status, "reason": "Preempted" if kind == "Evicted" else "Pending", "message": message}
        for kind, (status, message) in conditions.items()
    ]
    metadata = {"name": "job-coach", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {"active": active}, "status": {"conditions": found}}


@pytest.fixture
def world() -> World:
    return World(spec(scheduling=scheduling()))


def to_train(world: World) -> Object:
    """Let prepare end; return the Job of train, which waits."""
    world.reconcile()
    world.admit(world.live_job())
    world.run()
    return world.live_job()


def test_a_job_without_a_queue_starts_at_once() -> None:
    world = World()
    world.reconcile()
    job = world.live_job()
    assert "suspend" not in job["spec"]
    assert not any("kueue" in label for label in job["metadata"]["labels"])


def test_each_stage_waits_in_its_queue_with_the_priority_of_the_job() -> None:
    queues = {"prepare": "cpu", "export": "cpu-long"}
    world = World(spec(scheduling=scheduling(stageQueueNames=queues, workloadPriorityClassName="urgent")))
    world.reconcile()
    found: dict[Stage, str] = {}
    for stage in STAGES:
        job = world.live_job()
        assert job["spec"]["suspend"] is True
        assert job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "urgent"
        assert not any("kueue" in label for label in job["spec"]["template"]["metadata"]["labels"])
        found[stage] = job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
        world.admit(job)
        world.run()
    assert found == {"prepare": "cpu", "train": "gpu", "export": "cpu-long"}


def test_without_queues_of_their_own_all_stages_wait_in_that_of_the_job(world: World) -> None:
    queues = set()
    world.reconcile()
    for _ in STAGES:
        job = world.live_job()
        queues.add(job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"])
        world.admit(job)
        world.run()
    assert queues == {"gpu"}


def test_a_queue_is_not_part_of_what_is_trained(world: World) -> None:
    other = World()
    for each in (world, other):
        each.reconcile()
    assert world.status["snapshot"]["planSha256"] == other.status["snapshot"]["planSha256"]


def test_a_waiting_job_says_so_in_the_words_of_the_queue(world: World) -> None:
    to_train(world)
    world.workloads = [workload(QuotaReserved=("False", MESSAGE))]
    world.reconcile()
    ready = world.condition("Ready")
    assert ready is not None
    assert (ready["reason"], ready["message"]) == ("Queued", f"Waiting in the queue gpu: {MESSAGE}")
    assert world.status["phase"] == "Pending"
    [event] = [e for e in world.events if e.reason == "Queued"]
    assert event.type == "Normal"


def test_a_free_queue_is_not_worth_an_event(world: World) -> None:
    world.reconcile()
    world.workloads = [workload()]
    world.reconcile()
    world.workloads = [workload(QuotaReserved=("True", ""), Admitted=("True", ""))]
    world.reconcile()
    world.admit(world.live_job())
    world.run()
    assert "Queued" not in {e.reason for e in world.events}


def test_a_waiting_job_is_looked_at_again(world: World) -> None:
    to_train(world)
    world.workloads = [workload(QuotaReserved=("False", MESSAGE))]
    world.reconcile()
    assert world.last_requeue == 5
    world.wait(121)
    assert world.last_requeue == 30


@pytest.mark.parametrize("code", [75, 69, 1])
def test_preemption_keeps_the_attempt_and_its_place_in_the_queue(world: World, code: int) -> None:
    job = to_train(world)
    world.admit(job)
    pod = world.start_pod(job)
    world.run_pod(pod)
    world.reconcile()
    created = len(world.created)
    world.hold(job)
    world.workloads = [workload(Evicted=("True", "Preempted to accommodate a workload"), QuotaReserved=("True", ""))]
    world.reconcile()
    ready = world.condition("Ready")
    assert ready is not None
    assert ready["message"] == "Waiting in the queue gpu again (Preempted): Preempted to accommodate a workload"
    world.end_pod(pod, code, failure("train", code, "It was asked to stop.", checkpoint_step=3))
    world.settle()
    world.wait()
    assert len(world.created) == created
    assert (world.stage("train")["state"], world.stage("train")["attempt"]) == ("Running", 0)
    world.admit(job)
    world.run()
    assert world.stage("train")["state"] == "Succeeded"
    assert world.stage("train")["countedFailures"] == 0


def test_a_failure_in_a_queue_is_judged_as_any_other(world: World) -> None:
    world.admit(to_train(world))
    world.run(79, failure("train", 79, "It does not fit."))
    assert world.status["failure"]["reason"] == "OutOfGPUMemory"


MINUTE = timedelta(minutes=1)
JOB: Object = {"metadata": {"name": "coach-train-0", "labels": {"kueue.x-k8s.io/queue-name": "gpu"}}}


@pytest.mark.parametrize(
    ("workloads", "words"),
    [
        (None, "does not seem to have Kueue"),
        ([], "does not manage this namespace"),
        ([workload()], "has not handled it yet"),
        ([workload(QuotaReserved=("False", "LocalQueue gpu doesn't exist"))], "LocalQueue gpu doesn't exist"),
        ([workload(QuotaReserved=("True", ""), Admitted=("False", ""))], "admission checks"),
        ([workload(active=False)], "job-coach is deactivated. Set its spec.active to true"),
        (
            [workload(Evicted=("True", "x"), QuotaReserved=("False", MESSAGE), Admitted=("False", ""))],
            f"again (Preempted): {MESSAGE}",
        ),
    ],
)
def test_every_cause_is_reported(workloads: list[Object] | None, words: str) -> None:
    assert words in str(why(JOB, workloads, MINUTE))


def test_an_admission_that_is_over_is_not_taken_for_one_that_counts() -> None:
    found = workload(Evicted=("True", "Preempted"), QuotaReserved=("True", ""), Admitted=("True", ""))
    assert "Preempted" in str(why(JOB, [found], MINUTE))


def test_after_an_eviction_that_is_over_a_job_is_about_to_start() -> None:
    found = workload(Evicted=("False", "Preempted"), QuotaReserved=("True", ""), Admitted=("True", ""))
    assert why(JOB, [found], MINUTE) is None


def test_a_job_that_somebody_suspended_says_how_to_resume_it() -> None:
    job = {"metadata": {"name": "coach-train-0", "labels": {}}}
    assert "Set spec.suspend of that Job to false" in str(why(job, None, MINUTE))


def test_a_long_message_is_cut() -> None:
    assert len(str(why(JOB, [workload(QuotaReserved=("False", "x" * 9000))], MINUTE))) < 1100
