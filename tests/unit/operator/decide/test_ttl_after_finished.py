"""spec.ttlSecondsAfterFinished, step by step."""

from typing import Any

import pytest

from finetune_api.spec import STAGES
from tests.unit.operator.world import World, failure, spec


def finished(*, good: bool = True, **members: Any) -> World:
    world = World(spec(**members))
    world.reconcile()
    if not good:
        world.run(65, failure("prepare", 65, "No."))
        return world
    for _ in STAGES:
        world.run()
    return world


def children(world: World) -> int:
    world.settle()
    return len(world.jobs) + len(world.pods) + len(world.config_maps)


@pytest.mark.parametrize("good", [True, False], ids=["succeeded", "failed"])
def test_the_children_of_a_finished_job_are_deleted_when_its_time_is_up(good: bool) -> None:
    world = finished(good=good, ttlSecondsAfterFinished=3600)
    before = children(world)
    world.wait(3599)
    assert children(world) == before
    world.wait(1)
    assert children(world) == 0
    assert world.status["phase"] == ("Succeeded" if good else "Failed")


def test_a_job_whose_children_are_gone_starts_nothing() -> None:
    world = finished(ttlSecondsAfterFinished=0)
    count = len(world.created)
    children(world)
    world.wait(86400)
    assert (len(world.created), children(world)) == (count, 0)


def test_the_job_itself_is_deleted_only_if_that_is_asked_for() -> None:
    world = finished(ttlSecondsAfterFinished=60, ttlTarget="FineTuneJob")
    world.wait(59)
    assert world.resource is not None
    world.wait(1)
    assert world.resource is None
    assert children(world) == 0


def test_a_job_is_looked_at_again_when_its_time_is_up() -> None:
    world = finished(ttlSecondsAfterFinished=3600)
    world.wait(600)
    assert world.last_requeue == 3000


def test_the_last_status_is_written_before_anything_is_deleted() -> None:
    world = World(spec(ttlSecondsAfterFinished=0, ttlTarget="FineTuneJob"))
    world.reconcile()
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.reconcile()
    world.end_pod(pod, 65, failure("prepare", 65, "No."))
    world.settle()
    world.pass_until_written()
    assert world.resource is not None
    assert world.finished()


def test_without_a_time_everything_stays() -> None:
    world = finished()
    before = children(world)
    world.wait(86400 * 365)
    assert (children(world), world.last_requeue) == (before, None)


def test_a_job_that_is_not_finished_has_no_time_to_keep() -> None:
    world = World(spec(ttlSecondsAfterFinished=0, ttlTarget="FineTuneJob"))
    world.reconcile()
    world.run()
    world.wait(1000)
    assert world.resource is not None
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-0"


def test_the_time_may_be_set_after_the_end() -> None:
    world = finished()
    world.wait(100)
    world.patch(ttlSecondsAfterFinished=50)
    world.reconcile()
    assert children(world) == 0


def test_a_job_without_children_may_be_opened_again() -> None:
    world = finished(good=False, ttlSecondsAfterFinished=0)
    assert children(world) == 0
    world.patch(retryGeneration=1)
    world.reconcile()
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-1"


def test_a_job_that_is_opened_again_unseen_is_not_deleted() -> None:
    world = finished(good=False, ttlSecondsAfterFinished=60, ttlTarget="FineTuneJob")
    world.now = world.now.replace(year=2027)
    deleting = world.operator_pass()
    next(deleting)
    next(deleting)  # it has decided to delete
    world.patch(retryGeneration=1)
    for _ in deleting:
        pass
    assert world.resource is not None
