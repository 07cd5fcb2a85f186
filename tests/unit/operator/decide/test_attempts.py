"""What is read from a Job and its pods."""

from typing import Any

import pytest

from finetune_api.status import StageStatus
from finetune_operator import names
from finetune_operator.decide.attempts import ended, unusable_nodes

Object = dict[str, Any]
TRAIN, EXPORT = (StageStatus(name=stage, state="Pending", attempt=1) for stage in ("train", "export"))
DISRUPTED = {"type": "DisruptionTarget", "status": "True"}
LABELS = {"finetune.dev/stage": "train", "finetune.dev/attempt": "0"}


def job(kind: str = "Failed", message: str = "") -> Object:
    found = {"type": kind, "status": "True", "message": message, "lastTransitionTime": "2026-01-01T00:05:00Z"}
    return {"metadata": {"labels": LABELS}, "status": {"conditions": [found]}, "spec": {"template": {"spec": {}}}}


def pod(code: int = 1, **status: Any) -> Object:
    state = {
        "exitCode": code,
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:01:30Z",
        "reason": "Error",
        **status.pop("state", {}),
    }
    containers = [{"name": "trainer", "state": {"terminated": state}}]
    return {
        "metadata": {"name": "p", "labels": LABELS},
        "spec": {"nodeName": "node-a"},
        "status": {"phase": "Failed", "containerStatuses": containers, **status},
    }


@pytest.mark.parametrize("kind", ["FailureTarget", "SuccessCriteriaMet", "Suspended"])
def test_a_job_is_over_only_when_its_pods_are(kind: str) -> None:
    assert ended(job(kind), [], "train", 0) is None


def test_the_exit_code_outlives_the_pod_in_the_jobs_condition() -> None:
    message = "Container trainer for pod team/x-1 failed with exit code 65 matching FailJob rule at index 1"
    found = ended(job(message=message), [], "train", 0)
    assert found is not None
    assert found.exit_code == 65


def test_a_disruption_outlives_the_pod_in_the_jobs_condition() -> None:
    message = "Pod team/x-1 has condition DisruptionTarget matching FailJob rule at index 0"
    found = ended(job(message=message), [], "train", 0)
    assert found is not None
    assert found.disrupted


def test_the_container_says_that_it_ran_out_of_memory() -> None:
    found = ended(job(), [pod(137, state={"reason": "OOMKilled"})], "train", 0)
    assert found is not None
    assert found.out_of_memory


def test_an_eviction_over_a_limit_is_no_disruption() -> None:
    found = ended(job(), [pod(137, reason="Evicted", message="Too much.")], "train", 0)
    assert found is not None
    assert (found.eviction, found.disrupted) == ("Too much.", False)


def test_an_eviction_for_the_nodes_sake_is_a_disruption() -> None:
    target = [{"type": "DisruptionTarget", "status": "True"}]
    found = ended(job(), [pod(137, reason="Evicted", message="Pressure.", conditions=target)], "train", 0)
    assert found is not None
    assert (found.eviction, found.disrupted) == (None, True)


def test_an_evicted_pod_that_never_ran_can_be_read() -> None:
    never = {"metadata": {"labels": LABELS}, "spec": {}, "status": {"phase": "Failed", "reason": "Evicted"}}
    found = ended(job(), [never], "train", 0)
    assert found is not None
    assert (found.exit_code, found.eviction) == (None, "")


@pytest.mark.parametrize("message", ["", "{", '{"stage": "export", "exitCode": 0}', '{"stage": "train"}'])
def test_what_is_no_result_of_this_stage_is_not_taken(message: str) -> None:
    found = ended(job("Complete"), [pod(0, state={"message": message})], "train", 0)
    assert found is not None
    assert found.result is None


def test_of_pods_that_all_say_that_they_were_stopped_the_evicted_one_is_at_fault() -> None:
    message = "Container trainer for pod team/x-0 failed with exit code 75 matching FailJob rule at index 1"
    several = job(message=message)
    several["spec"]["completions"] = 2
    pods = [pod(75), pod(75, state={"finishedAt": "2026-01-01T00:02:00Z"}, conditions=[DISRUPTED])]
    for index, found in enumerate(pods):
        found["metadata"] = {"name": f"x-{index}", "labels": {**LABELS, names.INDEX_LABEL: str(index)}}
        found["spec"] = {"nodeName": f"node-{index}"}
    attempt = ended(several, pods, "train", 0)
    assert attempt is not None
    assert (attempt.disrupted, attempt.node) == (True, "node-1")


def test_an_attempt_whose_job_is_being_deleted_is_not_over_while_one_of_its_pods_runs() -> None:
    deleted = job()
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:02:00Z"
    deleted["status"], deleted["spec"]["completions"] = {}, 2
    leader, other = pod(0), pod(0)
    leader["status"]["phase"] = "Succeeded"
    other["metadata"] = {"name": "x-1", "labels": {**LABELS, names.INDEX_LABEL: "1"}}
    running = {**other, "status": {"phase": "Running"}}
    assert ended(deleted, [leader, running], "train", 0) is None
    found = ended(deleted, [leader, other], "train", 0)
    assert found is not None
    assert found.succeeded


def test_pods_of_other_attempts_are_not_looked_at() -> None:
    found = ended(job(), [pod(65)], "train", 1)
    assert found is not None
    assert not found.has_pod


def test_nodes_with_an_unusable_gpu_are_found() -> None:
    assert unusable_nodes([], [pod(80), pod(1)], TRAIN) == ("node-a",)


def test_another_stage_avoids_no_node() -> None:
    assert unusable_nodes([], [pod(80)], EXPORT) == ()
