"""spec.retryGeneration, step by step."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.plan import Defaults
from finetune_api.policy import Policy
from finetune_api.references import S3Connection
from finetune_api.spec import STAGES, Stage
from finetune_api.status import EvaluationStatus
from tests.unit.operator.world import RUN_ID, SETTINGS, World, failure, spec, success


def failed(stage: Stage = "train", code: int = 79, **members: Any) -> World:
    """A world whose job failed at that stage."""
    world = World(spec(**members))
    world.reconcile()
    for _ in STAGES[: STAGES.index(stage)]:
        world.run()
    world.run(code, failure(stage, code, "What happened."), node="gpu-1")
    assert world.status["phase"] == "Failed"
    return world


def retry(world: World, generation: int = 1) -> None:
    world.patch(retryGeneration=generation)
    world.reconcile()


@pytest.mark.parametrize("stage", STAGES)
def test_a_failed_job_is_opened_again_at_its_failed_stage(stage: Stage) -> None:
    world = failed(stage, 65 if stage == "prepare" else 79)
    retry(world)
    assert world.live_job()["metadata"]["name"] == f"coach-00001-{stage}-1"
    for _ in STAGES[STAGES.index(stage) :]:
        world.run()
    assert world.status["phase"] == "Succeeded"


def test_nothing_of_the_failure_is_left_in_the_status() -> None:
    world = failed()
    retry(world)
    assert not {"failure", "completionTime"} & world.status.keys()
    assert "lastFailure" not in world.stage("train")
    found = {c["type"]: c["status"] for c in world.status["conditions"]}
    assert (found["Finished"], found["Failed"], found["Succeeded"]) == ("False", "False", "Unknown")
    assert "Stalled" not in found
    assert world.status["retryGeneration"] == 1


def test_a_job_that_is_opened_again_has_all_its_retries() -> None:
    world = World(spec(retries={"maximum": 1}))
    world.reconcile()
    for _ in range(2):
        world.run(1)
        world.wait()
    assert world.finished()
    retry(world)
    assert world.stage("prepare")["countedFailures"] == 0
    world.run(1)
    assert not world.finished()


def test_a_generation_opens_a_job_once() -> None:
    world = failed()
    retry(world)
    world.run(79, failure("train", 79, "Again."))
    world.wait(86400)
    assert (world.finished(), world.stage("train")["attempt"]) == (True, 1)
    retry(world, 2)
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-2"


def test_a_succeeded_job_is_never_opened_again() -> None:
    world = World()
    world.reconcile()
    for _ in STAGES:
        world.run()
    seen, before = len(world.events), world.status
    retry(world)
    assert world.status["stages"] == before["stages"]
    assert (world.status["completionTime"], world.status["retryGeneration"]) == (before["completionTime"], 0)
    assert world.events[seen:] == []


def test_a_generation_that_is_raised_while_the_job_runs_asks_for_nothing() -> None:
    world = World()
    world.reconcile()
    retry(world)
    world.run(65)
    world.wait()
    assert (world.status["phase"], world.status["retryGeneration"]) == ("Failed", 1)


def test_a_job_that_is_created_with_a_generation_is_in_it() -> None:
    world = World(spec(retryGeneration=3))
    world.reconcile()
    world.run(65)
    world.wait()
    assert (world.status["phase"], world.status["retryGeneration"]) == ("Failed", 3)


def test_a_job_that_was_refused_is_accepted_once_its_endpoint_is_allowed() -> None:
    world = World()
    world.settings = replace(SETTINGS, defaults=Defaults(policy=Policy(endpoints=["only.local"])))
    world.reconcile()
    assert world.status["failure"]["reason"] == "EndpointNotAllowed"
    retry(world)
    assert (world.status["phase"], world.status["retryGeneration"]) == ("Failed", 1)
    world.settings = SETTINGS
    retry(world, 2)
    assert world.condition("Accepted")["status"] == "True"  # type: ignore[index]
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-0"


def test_a_job_that_was_refused_between_acceptance_and_start_is_accepted_again() -> None:
    world = World()
    world.pass_until_written()
    other = Defaults(s3=S3Connection(endpoint="https://other.local"), policy=Policy(endpoints=["only.local"]))
    world.settings = replace(SETTINGS, defaults=other)
    world.reconcile()
    assert world.status["failure"]["reason"] == "EndpointNotAllowed"
    world.settings = replace(SETTINGS, defaults=other.model_copy(update={"policy": Policy()}))
    retry(world)
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-0"


def test_a_job_whose_spec_was_invalid_is_accepted_once_it_is_corrected() -> None:
    world = World(spec(compute={"scratch": {"size": "much"}}))
    world.reconcile()
    assert world.status["failure"]["reason"] == "InvalidSpec"
    world.edit()
    world.reconcile()
    assert world.finished()
    retry(world)
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-0"
    assert "failure" not in world.status


def test_a_job_that_is_opened_again_may_be_suspended() -> None:
    world = failed()
    world.patch(retryGeneration=1, suspend=True)
    world.reconcile()
    assert (world.status["phase"], world.stage("train")["attempt"]) == ("Suspended", 1)


def test_a_node_that_was_unusable_before_is_tried_again() -> None:
    world = failed(code=80, retries={"maximum": 0})
    retry(world)
    assert "affinity" not in world.live_job()["spec"]["template"]["spec"]


def test_a_reused_result_that_missed_the_gate_is_trained_and_exported() -> None:
    world = World(spec(evaluation={"gate": {"onMiss": "Fail"}}))
    world.reconcile()
    worse = EvaluationStatus(verdict="Worse")
    world.run(message=success("prepare", reused_from=f"team/other/{RUN_ID}", evaluation=worse))
    assert world.status["failure"]["reason"] == "GateMissed"
    retry(world)
    world.run(message=success("train", evaluation=EvaluationStatus(verdict="Better")))
    world.run()
    assert (world.status["phase"], "reusedFrom" in world.status) == ("Succeeded", False)
    assert {s["name"]: s["state"] for s in world.status["stages"]} == dict.fromkeys(STAGES, "Succeeded")


def test_a_result_that_missed_the_gate_is_judged_again_without_training() -> None:
    world = World(spec(evaluation={"gate": {"onMiss": "Fail"}}))
    world.reconcile()
    world.run()
    world.run(message=success("train", evaluation=EvaluationStatus(verdict="Worse")))
    assert world.status["failure"]["reason"] == "GateMissed"
    retry(world)
    assert "--report" in world.live_job()["spec"]["template"]["spec"]["containers"][0]["args"]


def test_a_lost_result_is_still_only_read_when_the_job_is_opened_again() -> None:
    world = World(spec(retries={"maximum": 0}))
    world.reconcile()
    world.run()
    world.run(message="no JSON")
    world.wait()
    world.run(message="no JSON")
    assert world.status["failure"]["reason"] == "ResultLost"
    retry(world)
    assert "--report" in world.live_job()["spec"]["template"]["spec"]["containers"][0]["args"]


def test_opening_a_job_again_is_reported() -> None:
    world = failed()
    seen = len(world.events)
    retry(world)
    assert [e.reason for e in world.events[seen:]] == ["Reopened", "StageStarted"]
