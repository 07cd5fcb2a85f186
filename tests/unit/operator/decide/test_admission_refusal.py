"""A Job that the cluster refuses is reported, retried, and given up in the end."""

from dataclasses import replace
from datetime import timedelta

import pytest

from finetune_api.plan import Defaults
from finetune_api.references import S3Connection
from tests.unit.operator.world import World, spec

QUOTA = 'jobs.batch "coach" is forbidden: exceeded quota: few, requested: count/jobs.batch=1, limited to 0.'
WEBHOOK = 'admission webhook "guard.corp" denied the request: no team label'


@pytest.fixture
def world() -> World:
    """A job whose train is refused."""
    world = World(spec(startDeadlineSeconds=600))
    world.reconcile()
    world.refusal = QUOTA
    world.run()
    return world


@pytest.mark.parametrize(
    ("words", "reason", "message"),
    [
        (QUOTA, "QuotaExceeded", f"The namespace's quota does not allow the Job: {QUOTA}"),
        (WEBHOOK, "PodRefused", f"The cluster refused to create the Job: {WEBHOOK}."),
    ],
)
def test_ready_says_what_refused_it(world: World, words: str, reason: str, message: str) -> None:
    world.refusal = words
    world.wait(30)
    ready = world.condition("Ready")
    assert ready is not None
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", reason, message)


def test_it_is_asked_for_again(world: World) -> None:
    assert world.last_requeue == 30
    world.wait(585)
    assert world.last_requeue == 15
    world.refusal = None
    world.wait(10)
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-0"
    assert "refusedSince" not in world.stage("train")


def test_a_job_that_is_refused_for_too_long_fails_with_the_reason_of_that(world: World) -> None:
    world.wait(599)
    assert not world.finished()
    world.wait(1)
    failure = world.status["failure"]
    assert (failure["stage"], failure["reason"]) == ("train", "QuotaExceeded")
    assert "count/jobs.batch" in failure["message"]
    assert "raise spec.startDeadlineSeconds" in failure["message"]
    assert world.jobs[-1]["metadata"]["labels"]["finetune.dev/stage"] == "prepare"


def test_a_raised_deadline_counts_at_once(world: World) -> None:
    world.patch(startDeadlineSeconds=1200)
    world.wait(600)
    assert not world.finished()


def test_the_pod_has_the_whole_time_once_there_is_a_job(world: World) -> None:
    world.wait(590)
    world.refusal = None
    world.wait(5)
    world.start_pod(world.live_job())
    world.wait(599)
    assert not world.finished()


def test_suspended_time_does_not_count(world: World) -> None:
    world.patch(suspend=True)
    world.reconcile()
    assert "refusedSince" not in world.stage("train")
    world.wait(10_000)
    world.patch(suspend=False)
    world.reconcile()
    world.wait(599)
    assert not world.finished()
    world.wait(1)
    assert world.finished()


def test_a_job_that_is_opened_again_has_the_whole_time_again(world: World) -> None:
    world.wait(600)
    world.patch(retryGeneration=1)
    world.reconcile()
    assert not world.finished()
    world.refusal = None
    world.wait(30)
    assert world.live_job()["metadata"]["labels"]["finetune.dev/stage"] == "train"


def test_a_job_whose_plan_is_refused_too_is_accepted_again_under_new_settings() -> None:
    world = World()
    world.refusal = 'configmaps "x" is forbidden: exceeded quota: few'
    world.reconcile()
    assert world.stage("prepare")["refusedSince"]
    world.settings = replace(world.settings, defaults=Defaults(s3=S3Connection(endpoint="https://other.local")))
    world.refusal = None
    world.now += timedelta(seconds=30)
    world.reconcile()
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-0"
