"""A Job whose creation arrives late, sent by a replica that did not lead any more."""

import copy
from dataclasses import replace
from datetime import timedelta

from finetune_api.plan import Defaults
from finetune_api.references import S3Connection
from tests.unit.operator.world import Object, World, failure, success


def second_attempt() -> tuple[World, Object]:
    """A world whose second train attempt runs, and the Job of the first as it was created."""
    world = World()
    world.reconcile()
    world.run()
    first = copy.deepcopy(world.live_job())
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.end_pod(pod, 75, failure("train", 75, "Preempted.", checkpoint_step=5))
    world.settle()
    world.reconcile()
    world.wait(86400)
    assert world.live_job()["metadata"]["name"] == "coach-00001-train-1"
    world.run_pod(world.start_pod(world.live_job()))
    world.reconcile()
    return world, first


def arrive(world: World, job: Object) -> Object:
    """The one that was there is gone; this is a new object."""
    world.jobs = [j for j in world.jobs if j["metadata"]["name"] != job["metadata"]["name"]]
    late = copy.deepcopy(job)
    late["metadata"]["uid"] = "late"
    world.jobs.append(late)
    return late


def test_a_late_job_of_an_earlier_attempt_is_deleted_and_the_present_one_runs_on() -> None:
    world, first = second_attempt()
    late = arrive(world, first)
    world.reconcile()
    assert late["metadata"]["deletionTimestamp"]
    assert [j["metadata"]["name"] for j in world.jobs if "deletionTimestamp" not in j["metadata"]] == [
        "coach-00001-prepare-0",
        "coach-00001-train-1",
    ]
    assert world.stage("train")["state"] == "Running"


def test_a_late_job_is_deleted_in_a_later_stage_too() -> None:
    world, first = second_attempt()
    world.end_pod(world.pods[-1], 0, success("train"))
    world.settle()
    world.reconcile()
    assert world.stage("export")["state"] == "Running"
    late = arrive(world, first)
    world.reconcile()
    assert late["metadata"]["deletionTimestamp"]


def accepted_again() -> tuple[World, Object]:
    """A world whose job was accepted under new settings, and the first Job of the old ones."""
    world = World()
    old = World()
    old.reconcile()
    late = copy.deepcopy(old.live_job())
    world.refusal = 'configmaps "x" is forbidden: exceeded quota: few'
    world.reconcile()
    world.settings = replace(world.settings, defaults=Defaults(s3=S3Connection(endpoint="https://other.local")))
    world.refusal = None
    world.now += timedelta(seconds=30)
    world.pass_until_written()
    assert not world.jobs
    return world, late


def test_a_late_job_of_a_plan_that_was_accepted_no_more_is_deleted_and_its_name_left_to_it() -> None:
    world, first = accepted_again()
    late = arrive(world, first)
    world.reconcile()
    assert late["metadata"]["deletionTimestamp"]
    assert (world.stage("prepare")["state"], world.stage("prepare")["attempt"]) == ("Pending", 1)
    world.settle()
    world.wait(30)
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-1"
    world.run()
    assert world.stage("prepare")["state"] == "Succeeded"
    assert world.stage("train")["state"] == "Running"


def test_a_late_job_of_another_plan_that_has_ended_is_not_taken_for_the_stage() -> None:
    world, first = accepted_again()
    late = arrive(world, first)
    world.end_pod(world.start_pod(late), 0, success("prepare"))
    world.settle()
    world.reconcile()
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-1"


def test_a_job_that_is_newer_than_the_status_that_was_read_is_left_alone() -> None:
    world, _ = second_attempt()
    newer = copy.deepcopy(world.live_job())
    newer["metadata"] |= {"name": "coach-00001-train-2", "uid": "newer"}
    newer["metadata"]["labels"]["finetune.dev/attempt"] = "2"
    world.jobs.append(newer)
    world.reconcile()
    assert "deletionTimestamp" not in newer["metadata"]


def orphaned(*, runs: bool) -> World:
    """A world whose first FineTuneJob was deleted with --cascade=orphan, and created again."""
    world = World()
    world.reconcile()
    if runs:
        world.run_pod(world.start_pod(world.live_job()))
    else:
        world.run(65)
    for child in (*world.jobs, *world.config_maps):
        # As the garbage collector leaves them; the owner that never comes keeps those of the world off them.
        child["metadata"]["ownerReferences"] = []
    world.delete()
    world.create()
    return world


def test_an_orphan_that_runs_is_waited_for_and_named() -> None:
    world = orphaned(runs=True)
    world.reconcile()
    ready = world.condition("Ready")
    assert ready is not None
    assert ready["reason"] == "WaitingForPreviousRun"
    assert ready["message"].endswith("or delete it: kubectl delete job coach-00001-prepare-0 -n team")
    assert [j["metadata"]["name"] for j in world.jobs] == ["coach-00001-prepare-0"]


def test_what_orphans_left_is_deleted_once_the_successor_has_started() -> None:
    world = orphaned(runs=False)
    world.reconcile()
    old, new = world.jobs
    assert (new["metadata"]["name"], "deletionTimestamp" in new["metadata"]) == ("coach-00002-prepare-0", False)
    assert old["metadata"]["deletionTimestamp"]
    assert {c["metadata"]["labels"]["finetune.dev/job-uid"] for c in world.config_maps} == {"00002-0000"}
