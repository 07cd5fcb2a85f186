"""Jobs from the user's first YAML to their end, on a real API server; the tests play the kubelet."""

import itertools
import time

import pytest

from finetune_api import PLURAL
from finetune_api.spec import STAGES
from local_platform.operator_process import OperatorProcess, eventually
from tests.support.fake_kubelet import RUN_ID, World

# The chart leaves it at what is usual.
GRACE_SECONDS = 30


def test_a_job_goes_through_its_stages_to_the_end(operator: OperatorProcess, world: World) -> None:
    before = world.rest.version(PLURAL, world.namespace)
    world.apply()
    for stage in STAGES:
        world.end(stage)
    world.wait_for("Finished")
    time.sleep(0.5)  # in which nothing may be written any more
    last = world.job()["metadata"]["resourceVersion"]
    versions = [event["object"] for event in world.rest.events(PLURAL, world.namespace, before, last)]
    status = world.status()
    states = {stage["name"]: (stage["state"], stage["attempt"]) for stage in status["stages"]}
    assert states == dict.fromkeys(("prepare", "train", "export"), ("Succeeded", 0))
    assert (status["phase"], status["runId"]) == ("Succeeded", RUN_ID)
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert conditions == {
        "Accepted": "True",
        "Finished": "True",
        "Succeeded": "True",
        "Ready": "True",
        "Failed": "False",
        "Suspended": "False",
    }

    statuses = [version.get("status") for version in versions]
    assert len(versions) > 7  # created, accepted, and two for each stage
    assert all(old != new for old, new in itertools.pairwise(statuses)), "a write that changed nothing"
    assert all("finalizers" not in v["metadata"] and "annotations" not in v["metadata"] for v in versions)


def test_events_tell_the_story_of_the_job(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.end("prepare")
    world.pod("train")

    def reported() -> bool:
        events = world.items("events", "--field-selector", "involvedObject.kind=FineTuneJob")
        return {"Accepted", "StageStarted", "StageSucceeded"} <= {event["reason"] for event in events}

    eventually(reported, "the events are there")


def test_a_bad_dataset_fails_the_job_in_the_trainer_s_words(operator: OperatorProcess, world: World) -> None:
    sentence = "Row 17 of source-1 has no answer; fill it in or set dataset.checks.invalidRows: Drop."
    world.apply()
    world.end("prepare", exit_code=65, reason="InvalidDataset", message=sentence)
    world.wait_for("Finished")
    failure = world.status()["failure"]
    assert failure.pop("message").startswith(f"{sentence} Nothing was trained, so the spec may still be corrected")
    assert failure == {"stage": "prepare", "reason": "InvalidDataset", "exitCode": 65}
    assert sentence in world.condition("Failed")["message"]
    jobs = [job["metadata"]["name"] for job in world.items("jobs")]
    assert len(jobs) == 1, "a bad dataset was tried again"


def test_a_missing_secret_is_named(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.hold("prepare", "CreateContainerConfigError", 'secret "s3" not found')
    ready = eventually(
        lambda: c if (c := world.condition("Ready")).get("reason") == "SecretNotFound" else {}, "SecretNotFound"
    )
    assert '"s3"' in ready["message"] or " s3" in ready["message"]


@pytest.mark.parametrize("resource", ["count/jobs.batch", "pods"])
def test_a_quota_is_named(operator: OperatorProcess, world: World, resource: str) -> None:
    world.kubectl("create", "quota", "none", f"--hard={resource}=0")
    eventually(lambda: world.items("resourcequotas")[0].get("status", {}).get("hard"), "the quota counts")
    world.apply()
    ready = eventually(
        lambda: c if (c := world.condition("Ready")).get("reason") == "QuotaExceeded" else {}, "QuotaExceeded"
    )
    assert resource in ready["message"]


def test_a_finished_job_is_left_alone(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.end("prepare", exit_code=65, reason="InvalidDataset", message="No.")
    world.wait_for("Finished")
    version = world.job()["metadata"]["resourceVersion"]
    world.kubectl("delete", "jobs", "--all", "--wait=true")
    time.sleep(1.5)
    assert world.job()["metadata"]["resourceVersion"] == version
    assert world.items("jobs") == []


def test_the_operator_stops_in_the_time_that_kubernetes_gives_it(operator: OperatorProcess, world: World) -> None:
    world.apply()
    world.run("prepare")
    assert operator.stop() < GRACE_SECONDS


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_the_probes_answer(operator: OperatorProcess, path: str) -> None:
    assert operator.answers(path)
