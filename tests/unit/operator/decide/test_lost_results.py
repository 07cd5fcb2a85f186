"""A stage that succeeded is never run again because its result was lost: it is read from the bucket."""

import pytest

from finetune_api.spec import STAGES, Stage
from finetune_api.status import EvaluationStatus
from tests.unit.operator.world import Object, World, failure, spec, success


def lost_in(stage: Stage, world: World | None = None) -> World:
    world = world or World()
    world.reconcile()
    for _ in range(STAGES.index(stage)):
        world.run()
    world.lose()
    return world


@pytest.fixture
def world() -> World:
    return lost_in("train")


def container(world: World) -> Object:
    found: Object
    (found,) = world.live_job()["spec"]["template"]["spec"]["containers"]
    return found


def reports(world: World) -> bool:
    return "--report" in container(world)["args"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_result_lost_with_its_pod_is_read_again_by_an_attempt_of_its_own(stage: Stage) -> None:
    world = lost_in(stage)
    assert world.live_job()["metadata"]["name"] == f"coach-00001-{stage}-1"
    assert reports(world)
    assert world.stage(stage)["reportOnly"] is True


def test_a_pod_that_says_nothing_readable_is_not_asked_to_train_again() -> None:
    world = World()
    world.reconcile()
    world.run()
    world.run(message="no JSON")
    world.wait()
    assert reports(world)


def test_losing_a_result_costs_no_retry(world: World) -> None:
    assert world.stage("train")["countedFailures"] == 0


def test_what_is_read_reaches_the_status_and_the_job_continues(world: World) -> None:
    world.run(message=success("train", evaluation=EvaluationStatus(verdict="Better")))
    assert world.status["evaluation"]["verdict"] == "Better"
    assert world.live_job()["metadata"]["name"] == "coach-00001-export-0"
    assert not reports(world)


def test_reading_a_result_takes_no_gpu_time(world: World) -> None:
    before = world.status.get("gpuSeconds")
    world.run(seconds=100)
    assert world.status.get("gpuSeconds") == before


def test_the_user_reads_what_runs(world: World) -> None:
    ready = world.condition("Ready")
    assert ready is not None
    assert ready["message"] == "Waiting for the train pod to start."
    world.run_pod(world.start_pod(world.live_job()))
    world.reconcile()
    ready = world.condition("Ready")
    assert ready is not None
    assert ready["message"] == "Reading the result of train is running, attempt 2."


@pytest.mark.parametrize("code", [1, 69, 77, 137])
def test_a_bucket_that_is_away_is_asked_again_later_and_that_counts(world: World, code: int) -> None:
    world.run(code, failure("train", code, "The bucket is away."))
    assert world.stage("train")["countedFailures"] == 1
    assert world.last_requeue == 10
    world.wait()
    assert reports(world)


def test_a_report_that_runs_out_of_memory_does_not_blame_the_job(world: World) -> None:
    world.run(137, reason="OOMKilled")
    assert "spec.compute" not in world.stage("train")["lastFailure"]["message"]


@pytest.mark.parametrize("code", [72, 2])
def test_the_stage_runs_again_if_there_is_no_result_or_no_such_option(world: World, code: int) -> None:
    world.run(code, failure("train", code, "train left no result.") if code == 72 else "")
    assert world.stage("train")["countedFailures"] == 1
    world.wait()
    assert not reports(world)
    assert "reportOnly" not in world.stage("train")


def test_a_disruption_of_a_report_is_followed_by_a_report(world: World) -> None:
    world.run(137, disrupted=True)
    world.wait()
    assert reports(world)
    assert world.stage("train")["countedFailures"] == 0


def test_a_deleted_job_of_a_report_is_followed_by_a_report(world: World) -> None:
    world.delete_job(world.live_job())
    world.reconcile()
    world.wait()
    assert reports(world)


def test_results_that_are_lost_over_and_over_fail_the_job_in_the_end() -> None:
    world = lost_in("train", World(spec(retries={"maximum": 2})))
    for _ in range(3):
        assert not world.finished()
        world.lose()
    assert world.status["failure"]["reason"] == "ResultLost"
    assert world.status["failure"]["message"].endswith("It failed 3 times.")


def test_the_plan_not_being_the_accepted_one_is_final(world: World) -> None:
    world.run(64, failure("train", 64, "The plan was changed."))
    assert world.finished()
