"""The life of a job, step by step."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.plan import PLAN_VERSION, Defaults
from finetune_api.references import S3Connection
from finetune_api.status import DatasetStatus
from tests.unit.operator.world import RUN_ID, SETTINGS, World, failure, spec, success


@pytest.fixture
def world() -> World:
    return World()


def to_train(world: World) -> World:
    world.reconcile()
    world.run()
    return world


def names(world: World) -> list[str]:
    return [x["metadata"]["name"] for x in world.created if x["kind"] == "Job"]


def test_acceptance_is_written_before_anything_is_created(world: World) -> None:
    world.pass_until_written()
    assert world.status["snapshot"]["trainerImage"] == "registry.local/trainer:1"
    assert world.created == []


def test_the_plan_is_there_before_the_first_job(world: World) -> None:
    world.reconcile()
    assert [x["kind"] for x in world.created] == ["ConfigMap", "ConfigMap", "Job"]
    assert world.created[0]["immutable"] is True


def test_three_stages_run_one_after_another(world: World) -> None:
    world.reconcile()
    for _ in range(3):
        world.run()
    assert names(world) == ["coach-00001-prepare-0", "coach-00001-train-0", "coach-00001-export-0"]
    assert world.finished()
    assert world.status["phase"] == "Succeeded"


def test_train_does_not_start_before_the_prepare_job_is_complete(world: World) -> None:
    world.reconcile()
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.end_pod(pod, 0, success("prepare"))
    world.live_job()["status"] = {"succeeded": 1, "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}]}
    world.reconcile()
    assert names(world) == ["coach-00001-prepare-0"]


def test_the_operator_catches_up_in_one_pass_after_being_away(world: World) -> None:
    world.reconcile()
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.end_pod(pod, 0, success("prepare"))
    world.settle()
    world.pass_until_written()
    assert world.stage("prepare")["state"] == "Succeeded"
    # A stage is written as done before the next one gets its Job.
    assert names(world) == ["coach-00001-prepare-0"]


def test_results_reach_the_status(world: World) -> None:
    world.reconcile()
    dataset = DatasetStatus(examples=950, supervised_tokens=1000)
    world.run(message=success("prepare", dataset=dataset, log=f"team/coach/{RUN_ID}/logs/prepare-0.log"))
    assert world.status["dataset"]["examples"] == 950
    assert world.status["runId"] == RUN_ID
    assert world.status["outputUri"] == f"s3://models/tuned/team/coach/{RUN_ID}"
    assert world.status["logsUri"] == f"s3://models/tuned/team/coach/{RUN_ID}/logs"


def test_a_later_result_leaves_what_it_does_not_mention(world: World) -> None:
    world.reconcile()
    world.run(message=success("prepare", dataset=DatasetStatus(examples=950, supervised_tokens=1000)))
    world.run()
    assert world.status["dataset"]["examples"] == 950


def test_a_bad_dataset_fails_at_once_in_the_trainers_own_words(world: World) -> None:
    world.reconcile()
    world.run(65, failure("prepare", 65, "source-1: row 7 has no answer."))
    assert world.status["failure"] == {
        "stage": "prepare",
        "reason": "InvalidDataset",
        "message": "source-1: row 7 has no answer. "
        "Nothing was trained, so the spec may still be corrected; then raise spec.retryGeneration.",
        "exitCode": 65,
    }
    assert world.status["phase"] == "Failed"


def test_a_failure_that_may_pass_is_tried_again_after_a_pause(world: World) -> None:
    to_train(world)
    world.run(1)
    assert world.condition("Reconciling")["reason"] == "RetryBackoff"  # type: ignore[index]
    assert world.last_requeue == 10
    world.wait(9)
    assert names(world)[-1] == "coach-00001-train-0"
    world.wait(1)
    assert names(world)[-1] == "coach-00001-train-1"


def test_a_job_fails_when_its_retries_are_used_up() -> None:
    world = to_train(World(spec(retries={"maximum": 1})))
    world.run(137)
    world.wait()
    world.run(137)
    assert world.finished()
    assert world.status["failure"]["message"].endswith("It failed 2 times.")


def test_a_deleted_job_of_a_running_stage_is_replaced_by_an_uncounted_attempt(world: World) -> None:
    to_train(world)
    world.delete_job(world.live_job())
    world.reconcile()
    world.wait()
    assert world.stage("train")["attempt"] == 1
    assert world.stage("train")["countedFailures"] == 0
    assert names(world)[-1] == "coach-00001-train-1"


def test_pods_of_a_deleted_job_are_waited_for(world: World) -> None:
    to_train(world)
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.reconcile()
    world.delete_job(world.live_job())
    world.wait()
    assert world.condition("Ready")["reason"] == "WaitingForPreviousRun"  # type: ignore[index]
    assert names(world)[-1] == "coach-00001-train-0"


def test_a_job_that_is_deleted_in_the_foreground_is_not_a_failure(world: World) -> None:
    to_train(world)
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.reconcile()
    world.delete_job(world.live_job(), foreground=True)
    world.end_pod(pod, 143)
    world.live_job()["status"] = {
        "conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    }
    world.reconcile()
    assert world.stage("train")["countedFailures"] == 0
    world.settle()
    world.reconcile()
    world.wait()
    assert names(world)[-1] == "coach-00001-train-1"


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_a_recreated_job_waits_for_pods_of_the_earlier_one(world: World, phase: str) -> None:
    to_train(world)
    pod = world.start_pod(world.live_job())
    pod["status"]["phase"] = phase
    world.delete()
    world.create()
    world.settle()
    world.reconcile()
    assert world.jobs == []
    assert world.condition("Ready")["reason"] == "WaitingForPreviousRun"  # type: ignore[index]
    world.end_pod(pod, 143)
    world.settle()
    world.reconcile()
    assert names(world)[-1] == "coach-00002-prepare-0"


def test_a_finished_job_starts_nothing_when_its_children_are_deleted(world: World) -> None:
    world.reconcile()
    for _ in range(3):
        world.run()
    count = len(world.created)
    world.jobs, world.pods, world.config_maps = [], [], []
    world.wait(86400)
    assert len(world.created) == count
    assert world.status["phase"] == "Succeeded"


def test_a_finished_job_that_is_edited_tells_that_it_was_seen(world: World) -> None:
    world.reconcile()
    world.run(65)
    world.edit(fsGroup=5)
    world.reconcile()
    assert world.status["observedGeneration"] == 2


def test_a_job_that_is_being_deleted_is_left_alone(world: World) -> None:
    world.job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.reconcile()
    assert world.created == []
    assert world.status == {"observedGeneration": -1}


def test_an_invalid_spec_fails_naming_the_field_and_never_its_value() -> None:
    world = World(spec(training={"learningRate": "private text"}))
    world.reconcile()
    assert world.finished()
    accepted = world.condition("Accepted")
    assert accepted is not None
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert "spec.training.learningRate" in accepted["message"]
    assert "private" not in str(world.status)


def test_an_accepted_job_that_is_edited_badly_is_blocked_until_it_is_edited_back(world: World) -> None:
    to_train(world)
    world.edit(scratch={"size": "much"})
    world.reconcile()
    assert world.condition("Stalled") is not None
    assert not world.finished()
    world.edit()
    world.reconcile()
    assert world.condition("Stalled") is None
    world.run()
    assert world.stage("train")["state"] == "Succeeded"


def test_an_upgrade_of_the_operator_changes_nothing_for_a_running_job(world: World) -> None:
    world.reconcile()
    defaults = Defaults(s3=S3Connection(endpoint="https://other.local"))
    world.settings = replace(SETTINGS, trainer_image="registry.local/trainer:2", defaults=defaults)
    world.run()
    container = world.live_job()["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.local/trainer:1"
    assert world.status["snapshot"]["planSha256"] in container["args"]


def test_an_upgrade_between_acceptance_and_start_accepts_again(world: World) -> None:
    world.pass_until_written()
    world.settings = replace(SETTINGS, defaults=Defaults(s3=S3Connection(endpoint="https://other.local")))
    world.reconcile()
    assert names(world) == ["coach-00001-prepare-0"]


def test_a_deleted_plan_comes_back(world: World) -> None:
    to_train(world)
    world.config_maps = []
    world.reconcile()
    plan = f"coach-00001-plan-{world.status['snapshot']['planSha256'][:8]}"
    assert [c["metadata"]["name"] for c in world.config_maps] == [plan, "coach-00001-ca"]


def test_a_plan_that_was_replaced_fails_the_job(world: World) -> None:
    world.reconcile()
    world.config_maps[0]["data"]["plan.json"] = "{}"
    world.run()
    assert world.status["failure"]["reason"] == "PlanLost"
    assert "coach-00001-plan-" in world.status["failure"]["message"]


def test_a_plan_of_other_settings_that_arrives_late_is_not_in_the_way(world: World) -> None:
    world.pass_until_written()
    late = World()
    late.reconcile()
    [plan, _] = late.config_maps
    world.settings = replace(SETTINGS, defaults=Defaults(s3=S3Connection(endpoint="https://other.local")))
    for _ in range(2):  # the second one accepts again
        world.pass_until_written()
        if world.status["snapshot"]["planSha256"][:8] not in plan["metadata"]["name"]:
            break
    world.config_maps.append(plan)
    world.reconcile()
    assert names(world) == ["coach-00001-prepare-0"]
    assert world.stage("prepare")["state"] == "Running"


def test_the_plan_of_a_version_that_named_it_otherwise_is_kept(world: World) -> None:
    world.reconcile()
    world.config_maps[0]["metadata"]["name"] = "coach-00001-plan"
    # What is rendered now would be another plan.
    world.settings = replace(SETTINGS, defaults=Defaults(s3=S3Connection(endpoint="https://other.local")))
    world.run()
    assert names(world) == ["coach-00001-prepare-0", "coach-00001-train-0"]
    data = [c["data"] for c in world.config_maps if "-plan" in c["metadata"]["name"]]
    assert data[0] == data[1]


def test_a_new_certificate_authority_reaches_a_running_job(world: World) -> None:
    to_train(world)
    world.settings = replace(SETTINGS, ca_pem="second CA")
    world.reconcile()
    assert [c["data"] for c in world.config_maps if c["metadata"]["name"].endswith("-ca")] == [{"ca.crt": "second CA"}]


def test_a_node_with_an_unusable_gpu_is_avoided_even_after_its_pod_is_gone(world: World) -> None:
    to_train(world)
    world.run(80, node="bad-1")
    world.wait()
    world.run(80, node="bad-2")
    world.pods.clear()
    world.wait()
    affinity = world.live_job()["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {"bad-1", "bad-2"} == {v for f in terms[0]["matchFields"] for v in f["values"]}


def test_a_refused_job_is_explained_and_tried_again(world: World) -> None:
    to_train(world)
    world.live_job()
    world.refusal = 'jobs.batch "x" is forbidden: exceeded quota: gpus'
    world.delete_job(world.live_job())
    world.reconcile()
    world.wait()
    assert world.condition("Reconciling")["reason"] == "QuotaExceeded"  # type: ignore[index]
    world.refusal = None
    world.wait()
    assert world.condition("Reconciling")["reason"] == "Training"  # type: ignore[index]


def test_a_pending_pod_is_explained_soon_and_looked_at_less_often_later(world: World) -> None:
    world.reconcile()
    pod = world.start_pod(world.live_job())
    pod["spec"]["nodeName"] = "node-1"
    complaint = {
        "involvedObject": {"uid": pod["metadata"]["uid"]},
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'MountVolume.SetUp failed for volume "volume-6" : secret "s3" not found',
        "lastTimestamp": "2026-01-01T00:00:01Z",
    }
    world.reconcile()
    assert world.last_requeue == 5
    world.cluster_events.append(complaint)
    world.wait(5)
    assert world.condition("Reconciling")["reason"] == "SecretNotFound"  # type: ignore[index]
    assert world.status["phase"] == "Pending"
    world.wait(600)
    assert world.last_requeue == 30


def test_nothing_is_written_of_a_pod_that_has_ended_until_its_job_says_how(world: World) -> None:
    world.reconcile()
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.reconcile()
    before = world.status
    world.end_pod(pod, 0, success("prepare"))
    world.reconcile()
    assert (world.status, world.last_requeue) == (before, 5)


def test_a_preempted_job_that_may_continue_waits_for_its_next_pod(world: World) -> None:
    to_train(world)
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.reconcile()
    world.hold(world.live_job())
    world.end_pod(pod, 75)
    world.admit(world.live_job())
    world.reconcile()
    message = world.condition("Ready")["message"]  # type: ignore[index]
    assert message == "Waiting for the train pod to start."


def test_each_event_is_reported_once(world: World) -> None:
    world.reconcile()
    for _ in range(3):
        world.run()
        world.reconcile()
    assert [e.reason for e in world.events] == [
        "Accepted",
        *["StageStarted", "StageSucceeded"] * 3,
        "Succeeded",
    ]


def test_an_unchanged_world_writes_no_status(world: World) -> None:
    to_train(world)
    version = world.job["metadata"]["resourceVersion"]
    world.wait(1)
    assert world.job["metadata"]["resourceVersion"] == version


@pytest.fixture
def of_a_newer_version(world: World) -> World:
    to_train(world)
    world.job["status"]["snapshot"]["planVersion"] = PLAN_VERSION + 1
    return world


def test_a_stage_that_a_newer_operator_started_runs_on_after_a_rollback(of_a_newer_version: World) -> None:
    world = of_a_newer_version
    pod = world.start_pod(world.live_job())
    world.run_pod(pod)
    world.reconcile()
    assert world.condition("Reconciling")["reason"] == "Training"  # type: ignore[index]


def test_nothing_more_is_started_of_a_job_that_a_newer_operator_accepted(of_a_newer_version: World) -> None:
    world = of_a_newer_version
    world.run()
    assert world.stage("train")["state"] == "Succeeded"
    assert world.condition("Stalled")["reason"] == "PlanNewer"  # type: ignore[index]
    assert not world.finished()
    assert names(world)[-1] == "coach-00001-train-0"
    world.job["status"]["snapshot"]["planVersion"] = PLAN_VERSION
    world.reconcile()
    assert world.condition("Stalled") is None
    assert names(world)[-1] == "coach-00001-export-0"


@pytest.mark.parametrize("several", [{"accelerator": {"extendedResource": {"count": 2}}}, {"nodes": 2}])
def test_a_trainer_that_knows_of_one_gpu_is_not_started_on_several(world: World, several: dict[str, Any]) -> None:
    world.reconcile()
    del world.job["status"]["snapshot"]["podContract"]
    world.edit(**several)
    world.run()
    stalled = world.condition("Stalled")
    assert stalled is not None
    assert stalled["reason"] == "TrainerOlder"
    assert "spec.compute now requests 2" in stalled["message"]
    assert names(world) == ["coach-00001-prepare-0"]
    world.edit()
    world.reconcile()
    assert world.condition("Stalled") is None
    assert names(world)[-1] == "coach-00001-train-0"


def test_the_result_of_a_trainer_that_knows_of_one_gpu_is_read_whatever_compute_asks_for(world: World) -> None:
    to_train(world)
    del world.job["status"]["snapshot"]["podContract"]
    world.edit(accelerator={"extendedResource": {"count": 2}})
    world.lose()
    assert names(world)[-1] == "coach-00001-train-1"


def test_a_job_of_which_nothing_was_started_is_accepted_again_after_a_rollback(world: World) -> None:
    world.pass_until_written()
    world.job["status"]["snapshot"]["planVersion"] = PLAN_VERSION + 1
    world.job["status"]["snapshot"]["planSha256"] = "b" * 64
    world.reconcile()
    assert names(world) == ["coach-00001-prepare-0"]
    assert world.status["snapshot"]["planVersion"] == PLAN_VERSION
