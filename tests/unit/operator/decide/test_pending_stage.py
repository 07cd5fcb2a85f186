"""The order of the checks of a stage without a Job: what decides if several apply."""

from dataclasses import replace
from datetime import timedelta

import pytest

from finetune_api.plan import Defaults
from finetune_api.references import S3Connection
from tests.unit.operator.world import SETTINGS, World

OTHER_SETTINGS = replace(SETTINGS, defaults=Defaults(s3=S3Connection(endpoint="https://other.local")))


@pytest.fixture
def world() -> World:
    """A world whose prepare attempt has failed a moment ago."""
    world = World()
    world.reconcile()
    world.run(1)
    assert world.reason == "RetryBackoff"
    return world


def lose_plan(world: World) -> None:
    """Delete the plan's ConfigMap under settings that render another plan."""
    world.config_maps.clear()
    world.settings = OTHER_SETTINGS


def test_a_backoff_is_waited_out_before_the_plan_is_needed(world: World) -> None:
    lose_plan(world)
    world.reconcile()
    assert world.reason == "RetryBackoff"
    world.wait()
    assert world.status["failure"]["reason"] == "PlanLost"


def test_a_pod_that_still_runs_comes_before_the_backoff(world: World) -> None:
    job = world.jobs[-1]
    job["started"] = []
    world.start_pod(job)
    world.reconcile()
    assert world.reason == "WaitingForPreviousRun"


def test_a_lost_plan_comes_before_a_refusal(world: World) -> None:
    lose_plan(world)
    world.refusal = "exceeded quota: jobs"
    world.now += timedelta(seconds=301)
    world.reconcile()
    assert world.status["failure"]["reason"] == "PlanLost"


def test_a_lost_plan_has_the_remedy_of_all_jobs_that_must_be_recreated(world: World) -> None:
    lose_plan(world)
    world.wait()
    assert world.status["failure"]["message"].endswith("Delete this FineTuneJob and create it again.")
