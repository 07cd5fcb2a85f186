"""What a corrected spec and a corrected chart do before the first container starts, and after."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_api.plan import Plan
from tests.unit.operator.world import SETTINGS, Object, World, failure, spec

CORRECTED: Object = {"huggingFace": {"repository": "org/other-model"}}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "No."}
OTHER_IMAGE = replace(SETTINGS, trainer_image="registry.local/trainer:2")


def plan(world: World) -> Plan:
    """The plan that the live Job's pods read."""
    [volume] = [
        v
        for v in world.live_job()["spec"]["template"]["spec"]["volumes"]
        if "-plan-" in v.get("configMap", {}).get("name", "")
    ]
    [data] = [c["data"] for c in world.config_maps if c["metadata"]["name"] == volume["configMap"]["name"]]
    return Plan.model_validate_json(data["plan.json"])


def repository(world: World) -> str:
    hub = plan(world).model.hub
    assert hub is not None
    return hub.repository


def waiting(**members: Any) -> World:
    """A world whose first pod exists and does not start."""
    world = World(spec(**members))
    world.reconcile()
    world.start_pod(world.live_job())
    world.reconcile()
    return world


def begun() -> World:
    """A world whose first container runs, which the operator has not seen."""
    world = waiting()
    world.run_pod(world.pods[0])
    return world


def come_to_rest(world: World) -> None:
    """A pod that is deleted before it starts is gone, and the operator acts on it."""
    for _ in range(3):
        world.settle()
        world.pods = [
            p for p in world.pods if p["status"]["phase"] != "Pending" or "deletionTimestamp" not in p["metadata"]
        ]
        world.settle()
        world.wait(30)


def test_a_job_is_editable_until_its_first_container_starts() -> None:
    world = waiting()
    assert world.status["specEditable"] is True
    world.run_pod(world.pods[0])
    world.reconcile()
    assert "specEditable" not in world.status


def test_a_corrected_spec_replaces_a_waiting_job() -> None:
    world = waiting()
    world.patch(model=CORRECTED)
    come_to_rest(world)
    assert repository(world) == "org/other-model"
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-2"
    assert "lastFailure" not in world.stage("prepare")


def test_the_replacement_is_reported_once() -> None:
    world = waiting()
    world.patch(model=CORRECTED)
    come_to_rest(world)
    assert [e.reason for e in world.events].count("SpecChanged") == 1


def test_a_corrected_job_runs_to_its_end() -> None:
    world = waiting()
    world.patch(model=CORRECTED)
    come_to_rest(world)
    for _ in range(3):
        world.run()
    assert world.status["phase"] == "Succeeded"


def test_a_correction_before_the_first_job_needs_no_replacement() -> None:
    world = World()
    world.pass_until_written()
    world.patch(model=CORRECTED)
    world.reconcile()
    assert repository(world) == "org/other-model"


def test_a_job_in_a_queue_is_replaced_too() -> None:
    world = World(spec(scheduling={"kueue": {"queueName": "gpu"}}))
    world.reconcile()
    world.patch(model=CORRECTED)
    come_to_rest(world)
    assert repository(world) == "org/other-model"


def test_another_order_of_gguf_types_is_no_edit() -> None:
    world = waiting(export={"gguf": ["Q8_0", "Q4_K_M"]})
    world.patch(export={"gguf": ["Q4_K_M", "Q8_0"]})
    come_to_rest(world)
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-0"


def test_a_corrected_image_replaces_a_job_whose_pod_cannot_start() -> None:
    world = waiting()
    world.pods[0]["status"]["conditions"] = [UNSCHEDULABLE]
    world.settings = OTHER_IMAGE
    world.reconcile()
    come_to_rest(world)
    container = world.live_job()["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.local/trainer:2"


def test_an_upgrade_leaves_a_job_alone_whose_pod_is_about_to_start() -> None:
    world = waiting()
    world.settings = OTHER_IMAGE
    come_to_rest(world)
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-0"


def test_an_image_without_the_trainer_has_not_begun_and_is_replaced() -> None:
    world = waiting()
    pod = world.pods[0]
    world.run_pod(pod)
    world.end_pod(pod, 128, reason="StartError")
    world.settle()
    world.settings = OTHER_IMAGE
    world.reconcile()
    world.wait()
    container = world.live_job()["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.local/trainer:2"


def test_an_edit_that_comes_too_late_changes_nothing_and_is_reported() -> None:
    world = begun()
    world.patch(model=CORRECTED, output={"s3": {"uri": "s3://elsewhere", "credentialsSecretRef": {"name": "s3"}}})
    world.reconcile()
    condition = world.condition("SpecApplied")
    assert condition is not None
    assert (condition["status"], condition["reason"]) == ("False", "EditedTooLate")
    assert "kubectl replace --force -f FILE" in condition["message"]
    assert [e.reason for e in world.events].count("EditedTooLate") == 1
    assert repository(world) == "org/model"


def test_later_stages_follow_the_accepted_spec_after_an_edit_that_came_too_late() -> None:
    world = begun()
    world.patch(model={"persistentVolumeClaim": {"claimName": "late"}})
    world.reconcile()
    world.end_pod(world.pods[0], 0, '{"stage": "prepare", "exitCode": 0}')
    world.settle()
    world.reconcile()
    volumes = world.live_job()["spec"]["template"]["spec"]["volumes"]
    assert world.stage("train")["state"] == "Running"
    assert not any("persistentVolumeClaim" in volume for volume in volumes)


def test_the_output_of_a_job_is_the_accepted_one_after_an_edit_that_came_too_late() -> None:
    world = begun()
    world.patch(output={"s3": {"uri": "s3://elsewhere", "credentialsSecretRef": {"name": "s3"}}})
    world.end_pod(world.pods[0], 0, '{"stage": "prepare", "exitCode": 0, "runId": "' + "a" * 64 + '"}')
    world.settle()
    world.reconcile()
    assert world.status["outputUri"].startswith("s3://models/tuned/")


def test_a_container_that_starts_while_its_job_is_deleted_makes_the_edit_too_late() -> None:
    world = waiting()
    world.patch(model=CORRECTED)
    world.reconcile()
    assert world.jobs[0]["metadata"]["deletionTimestamp"]
    world.run_pod(world.pods[0])
    world.reconcile()
    world.end_pod(world.pods[0], 75, failure("prepare", 75, "Stopped."))
    world.settle()
    world.wait()
    assert repository(world) == "org/model"
    assert world.condition("SpecApplied") is not None


def secret_is_missing(world: World) -> str:
    """Let the kubelet find no Secret for the live Job's pod; return the message of Ready."""
    pod = next(p for p in world.pods if p["status"]["phase"] == "Pending")
    state = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}}
    pod["status"]["containerStatuses"] = [{"name": "trainer", "state": state}]
    world.reconcile()
    ready = world.condition("Ready")
    assert ready is not None
    message: str = ready["message"]
    return message


def test_a_missing_secret_may_be_created_or_its_name_corrected_before_the_job_has_begun() -> None:
    assert secret_is_missing(waiting()) == (
        "The Secret s3 does not exist in this namespace; create it. "
        "If the name is wrong, correct it in the spec: no container has started yet."
    )


def test_a_missing_secret_of_a_later_stage_can_only_be_created() -> None:
    world = World()
    world.reconcile()
    world.run()
    world.start_pod(world.live_job())
    assert secret_is_missing(world) == "The Secret s3 does not exist in this namespace; create it."


def failed(code: int = 66) -> World:
    """A world whose job failed in prepare."""
    world = World()
    world.reconcile()
    world.run(code, failure("prepare", code, "No such model."))
    assert world.status["phase"] == "Failed"
    return world


def test_a_job_that_failed_before_it_trained_is_editable() -> None:
    world = failed()
    assert world.status["specEditable"] is True
    assert world.status["failure"]["message"] == (
        "No such model. Nothing was trained, so the spec may still be corrected; then raise spec.retryGeneration."
    )
    assert world.stage("prepare")["lastFailure"]["message"] == "No such model."


def test_a_failed_job_that_is_only_edited_starts_nothing() -> None:
    world = failed()
    world.patch(model=CORRECTED)
    come_to_rest(world)
    assert (world.status["phase"], len(world.jobs)) == ("Failed", 1)


def test_a_failed_job_that_is_corrected_and_reopened_starts_under_a_new_plan() -> None:
    world = failed()
    world.patch(model=CORRECTED, retryGeneration=1)
    world.reconcile()
    assert repository(world) == "org/other-model"
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-1"
    assert world.status["retryGeneration"] == 1
    for _ in range(3):
        world.run()
    assert world.status["phase"] == "Succeeded"


def test_a_failed_job_takes_a_corrected_image_when_it_is_reopened() -> None:
    world = failed()
    world.settings = OTHER_IMAGE
    world.patch(retryGeneration=1)
    world.reconcile()
    container = world.live_job()["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "registry.local/trainer:2"


def test_a_train_pod_that_never_started_lets_the_job_be_corrected_from_the_beginning() -> None:
    world = World(spec(startDeadlineSeconds=60))
    world.reconcile()
    world.run()
    world.start_pod(world.live_job())
    world.wait(61)
    assert (world.status["failure"]["stage"], world.status["specEditable"]) == ("train", True)
    come_to_rest(world)
    world.patch(model=CORRECTED, retryGeneration=1)
    world.reconcile()
    assert repository(world) == "org/other-model"
    assert world.live_job()["metadata"]["name"] == "coach-00001-prepare-1"
    assert not {"runId", "outputUri", "failure"} & world.status.keys()


def test_a_job_that_trained_is_not_editable_after_it_failed() -> None:
    world = World()
    world.reconcile()
    world.run()
    world.run(79, failure("train", 79, "Too large."))
    assert (world.status["phase"], "specEditable" in world.status) == ("Failed", False)
    assert "kubectl replace --force -f FILE" in world.status["failure"]["message"]


def test_a_job_that_succeeded_is_not_editable() -> None:
    world = World()
    world.reconcile()
    for _ in range(3):
        world.run()
    assert (world.status["phase"], "specEditable" in world.status) == ("Succeeded", False)


@pytest.mark.parametrize("stage", ["prepare", "train"])
def test_a_job_that_an_earlier_version_accepted_stays_as_it_is(stage: str) -> None:
    world = World()
    world.reconcile()
    if stage == "train":
        world.run()
    world.job["status"].pop("specEditable", None)
    del world.job["status"]["snapshot"]["specSha256"]
    world.patch(model=CORRECTED)
    come_to_rest(world)
    assert repository(world) == "org/model"
    assert world.condition("SpecApplied") is None
