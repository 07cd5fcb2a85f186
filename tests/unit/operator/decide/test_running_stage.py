"""The order of the checks of a stage that has its Job: what decides if several apply."""

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.operator.world import Object, World, spec

UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes match."}
KUEUE = {"kueue": {"queueName": "gpu"}}


def preparing(**members: Any) -> tuple[World, Object]:
    """A world whose prepare pod has no node yet."""
    world = World(spec(**members))
    world.reconcile()
    pod = world.start_pod(world.live_job())
    pod["status"]["conditions"] = [UNSCHEDULABLE]
    world.reconcile()
    return world, pod


def test_a_queue_explains_a_job_whose_compute_was_edited() -> None:
    world = World(spec(scheduling=KUEUE))
    world.reconcile()
    world.now += timedelta(seconds=10)
    world.edit(nodeSelector={"gpu": "h100"})
    world.reconcile()
    assert world.reason == "Queued"
    assert "deletionTimestamp" not in world.live_job()["metadata"]


def test_the_start_deadline_comes_before_an_edit_of_compute() -> None:
    world, _ = preparing(startDeadlineSeconds=60)
    world.now += timedelta(seconds=61)
    world.edit(nodeSelector={"gpu": "h100"})
    world.reconcile()
    assert (world.status["phase"], world.status["failure"]["reason"]) == ("Failed", "Unschedulable")


def test_an_edit_of_compute_comes_before_the_diagnosis() -> None:
    world, _ = preparing()
    assert world.reason == "Unschedulable"
    world.edit(nodeSelector={"gpu": "h100"})
    world.reconcile()
    assert world.reason == "ComputeChanged"


@pytest.mark.parametrize("edited", [False, True])
def test_a_pod_that_runs_has_met_its_deadline(edited: bool) -> None:
    world, pod = preparing(startDeadlineSeconds=60)
    world.run_pod(pod)
    world.now += timedelta(seconds=61)
    if edited:
        world.edit(nodeSelector={"gpu": "h100"})
    world.reconcile()
    assert world.reason == "Preparing"
    assert "deletionTimestamp" not in world.live_job()["metadata"]


def test_how_the_pods_ended_comes_before_the_start_deadline() -> None:
    world, pod = preparing(startDeadlineSeconds=60)
    world.run_pod(pod)
    world.reconcile()
    world.blind(world.live_job())
    world.delete_pod(pod)
    world.end_pod(pod, 75)
    world.settle()
    world.now += timedelta(seconds=61)
    world.reconcile()
    assert world.reason == "JobUndecided"
