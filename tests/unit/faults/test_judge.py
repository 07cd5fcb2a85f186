"""The judge can fail: each kind of problem, shown to it, is found."""

import copy
from typing import Any

import pytest

from tests.faults.judge import at_the_end, changed_wrongly, doubled, started_wrongly
from tests.faults.observer import Observer
from tests.faults.scenario import Scenario
from tests.faults.trainer import Stored, success

Object = dict[str, Any]
UID = "0a1b2c3d"
SECONDS: Any = {"prepare": 1.0, "train": 1.0, "export": 1.0}
GOOD = Scenario(SECONDS)
BAD = Scenario(SECONDS, planted={"prepare": 65}, fails_with="InvalidDataset")


def _job(outcome: str | None, **status: Any) -> Object:
    values = {"Succeeded": ("True", "True", "False"), "Failed": ("True", "False", "True")}
    kinds = ("Finished", "Succeeded", "Failed")
    conditions = [
        {"type": kind, "status": value, "reason": "R", "message": "m"}
        for kind, value in zip(kinds, values.get(outcome or "", ("False", "Unknown", "False")), strict=True)
    ]
    artifacts = [{"name": "adapter"}, {"name": "model.Q4_K_M.gguf"}] if outcome == "Succeeded" else []
    stages = [{"name": "train", "state": "Running", "attempt": 1, "countedFailures": 1, "checkpointStep": 4}]
    return {
        "metadata": {"uid": UID, "namespace": "n", "name": "j"},
        "status": {
            "observedGeneration": 1,
            "startTime": "2026-01-01T00:00:00Z",
            "completionTime": "2026-01-01T00:01:00Z",
            "stages": stages,
            "artifacts": artifacts,
            "gpuSeconds": 5,
            "conditions": conditions,
            **status,
        },
    }


def _stored(scenario: Scenario = GOOD, trained: int = 1) -> Stored:
    stored = Stored(scenario, completed={"train": trained})
    stored.results = {stage: success(stage, UID) for stage in ("prepare", "train", "export")}
    return stored


def _kinds(job: Object | None, stored: Stored) -> list[str]:
    return [problem.kind for problem in at_the_end(UID, job, stored)]


def test_a_job_that_ends_as_it_should_is_no_problem() -> None:
    assert _kinds(_job("Succeeded"), _stored()) == []
    failure = {"reason": "InvalidDataset", "message": "Row 3 has no answer in it."}
    assert _kinds(_job("Failed", failure=failure), _stored(BAD, trained=0)) == []


def test_a_job_that_never_ends_or_is_gone_is_lost() -> None:
    assert _kinds(_job(None), _stored()) == ["lost"]
    assert _kinds(None, _stored()) == ["lost"]


def test_a_result_that_the_status_does_not_name_is_lost() -> None:
    assert _kinds(_job("Succeeded", artifacts=[{"name": "adapter"}]), _stored()) == ["lost"]


def test_a_success_without_anything_in_the_bucket_is_lost() -> None:
    assert _kinds(_job("Succeeded"), Stored(GOOD)) == ["lost"]


def test_two_trainings_to_the_end_are_doubled() -> None:
    assert _kinds(_job("Succeeded"), _stored(trained=2)) == ["doubled"]


def test_the_wrong_end_is_wrong() -> None:
    assert _kinds(_job("Failed", failure={"reason": "Crashed", "message": "It ended with exit code 1."}), _stored())
    assert _kinds(_job("Succeeded"), _stored(BAD)) == ["wrong"]


def test_a_failure_needs_a_sentence_and_the_right_reason() -> None:
    assert _kinds(_job("Failed", failure={"reason": "InvalidDataset", "message": ""}), _stored(BAD)) == ["wrong"]
    failure = {"reason": "PodLost", "message": "The prepare pod was lost."}
    assert _kinds(_job("Failed", failure=failure), _stored(BAD)) == ["wrong"]


@pytest.mark.parametrize("member", ["startTime", "artifacts", "stages", "conditions"])
def test_a_finished_job_that_changes_is_wrong(member: str) -> None:
    later = copy.deepcopy(_job("Succeeded"))
    later["status"][member] = []
    assert changed_wrongly(_job("Succeeded"), later)


def test_a_finished_job_may_follow_its_generation() -> None:
    later = copy.deepcopy(_job("Succeeded"))
    later["status"]["observedGeneration"] = 2
    later["status"]["conditions"][0]["observedGeneration"] = 2
    assert changed_wrongly(_job("Succeeded"), later) == []


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": 0},
        {"state": "Pending"},
        {"attempt": 2, "state": "Pending", "countedFailures": 0},
        {"checkpointStep": None},
    ],
)
def test_a_stage_that_goes_back_is_wrong(change: Object) -> None:
    later = _job(None)
    later["status"]["stages"][0] |= change
    assert changed_wrongly(_job(None), later)


def test_a_stage_that_continues_is_right() -> None:
    for change in ({"state": "Succeeded"}, {"attempt": 2, "state": "Pending"}, {"state": "Failed"}):
        later = _job(None)
        later["status"]["stages"][0] |= change
        assert changed_wrongly(_job(None), later) == []


def test_a_stage_that_succeeded_stays_so() -> None:
    before, later = _job(None), _job(None)
    before["status"]["stages"][0] |= {"state": "Succeeded"}
    later["status"]["stages"][0] |= {"attempt": 2, "state": "Running"}
    assert changed_wrongly(before, later)


def _opened_again(job: Object) -> Object:
    return {**job, "spec": {"retryGeneration": 1}}


def test_a_failed_job_that_is_opened_again_may_continue() -> None:
    again = _job(None, retryGeneration=1, startTime="2026-01-01T00:09:00Z")
    assert changed_wrongly(_job("Failed"), again) == []
    assert changed_wrongly(_job("Failed"), _job(None))
    assert changed_wrongly(_job("Succeeded"), again)


def test_a_failed_job_that_is_opened_again_and_does_nothing_is_lost() -> None:
    failure = {"reason": "InvalidDataset", "message": "Row 3 has no answer in it."}
    assert _kinds(_opened_again(_job("Failed", failure=failure)), _stored(BAD, trained=0)) == ["lost"]
    assert _kinds(_opened_again(_job("Failed", failure=failure, retryGeneration=1)), _stored(BAD, trained=0)) == []


def test_a_job_whose_cause_of_failure_was_removed_must_succeed() -> None:
    failure = {"reason": "InvalidDataset", "message": "Row 3 has no answer in it."}
    assert _kinds(_job("Failed", failure=failure), _stored(BAD.mended())) == ["wrong"]
    assert _kinds(_job("Succeeded"), _stored(BAD.mended())) == []


def _pod(uid: str, phase: str = "Running", created: str = "2026-01-01T00:00:30Z") -> Object:
    labels = {"finetune.dev/job": "j", "finetune.dev/job-uid": UID, "finetune.dev/stage": "train"}
    labels["batch.kubernetes.io/job-name"] = f"job-{uid}"
    metadata = {"uid": uid, "namespace": "n", "name": f"pod-{uid}", "labels": labels, "creationTimestamp": created}
    return {"metadata": metadata, "status": {"phase": phase}}


def test_a_pod_of_a_finished_job_is_wrong() -> None:
    assert started_wrongly(_job("Succeeded"), _pod("1", created="2026-01-01T00:02:00Z"))
    assert started_wrongly(_job("Succeeded"), _pod("1")) == []
    assert started_wrongly(_job(None), _pod("1", created="2026-01-01T00:02:00Z")) == []


def test_two_live_train_pods_are_doubled() -> None:
    observer = Observer(None)  # type: ignore[arg-type]
    observer.pod_changed("ADDED", _pod("1"))
    observer.pod_changed("MODIFIED", _pod("1", "Failed"))
    observer.pod_changed("ADDED", _pod("2"))
    assert observer.problems == []
    observer.pod_changed("ADDED", _pod("3"))
    assert [problem.kind for problem in observer.problems] == ["doubled"]


def test_the_pods_of_one_job_may_train_together() -> None:
    assert doubled(("train-1", "1"), [("train-1", "0")]) is None
    assert doubled(("train-1", "1"), [("train-1", "1")])
    assert doubled(("train-1", "1"), [("train-0", "0")])
