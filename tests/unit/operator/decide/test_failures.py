"""What each way to fail costs."""

from dataclasses import replace

import pytest

from finetune_api.result import StageResult
from finetune_api.spec import Stage
from finetune_api.status import Failure, StageStatus
from finetune_operator.decide.attempts import Ended
from finetune_operator.decide.failures import backoff_seconds, job_deleted, judge

CRASH = Ended(
    stage="train",
    succeeded=False,
    deleted=False,
    completion_time="2026-01-01T00:00:00Z",
    message="Job has reached the specified backoff limit",
    has_pod=True,
    exit_code=1,
    result=None,
    checkpoint_step=None,
    out_of_memory=False,
    disrupted=False,
    eviction=None,
    node="node-a",
)


def running(
    stage: Stage = "train", *, counted: int = 0, last: str | None = None, step: int | None = None
) -> StageStatus:
    failure = Failure(stage=stage, reason=last, message="x") if last else None
    return StageStatus(
        name=stage, state="Running", attempt=0, counted_failures=counted, last_failure=failure, checkpoint_step=step
    )


def ended(code: int, message: str = "What happened.", step: int | None = None, stage: Stage = "train") -> Ended:
    result = StageResult(stage=stage, exit_code=code, message=message, checkpoint_step=step)
    return replace(CRASH, stage=stage, exit_code=code, result=result, checkpoint_step=step)


@pytest.mark.parametrize("code", [64, 65, 66, 79])
def test_what_only_the_user_can_mend_is_permanent(code: int) -> None:
    assert judge(ended(code), running(), 3).permanent


@pytest.mark.parametrize(("stage", "permanent"), [("prepare", True), ("train", False), ("export", False)])
def test_denied_access_is_permanent_until_it_once_worked(stage: Stage, permanent: bool) -> None:
    assert judge(ended(77, stage=stage), running(stage), 3).permanent is permanent


@pytest.mark.parametrize("code", [69, 75])
@pytest.mark.parametrize(("known", "reached", "counted"), [(None, 10, False), (10, 20, False), (10, 10, True)])
def test_an_interruption_is_counted_only_if_the_checkpoint_stood_still(
    code: int, known: int | None, reached: int, counted: bool
) -> None:
    assert judge(ended(code, step=reached), running(step=known), 3).counted is counted


def test_an_interruption_without_a_report_is_counted() -> None:
    assert judge(replace(CRASH, exit_code=75), running(), 3).counted


@pytest.mark.parametrize("code", [1, 75, 137])
def test_a_disruption_is_never_counted(code: int) -> None:
    verdict = judge(replace(CRASH, exit_code=code, disrupted=True), running(counted=3), 3)
    assert (verdict.counted, verdict.permanent) == (False, False)


def test_running_out_of_memory_once_is_tried_again() -> None:
    assert not judge(replace(CRASH, exit_code=137, out_of_memory=True), running(), 3).permanent


def test_running_out_of_memory_twice_fails_naming_the_limit() -> None:
    verdict = judge(replace(CRASH, exit_code=137, out_of_memory=True), running(last="OOMKilled"), 3)
    assert verdict.permanent
    assert "spec.compute.resources.train.limits.memory" in verdict.failure.message


def test_filling_the_disk_twice_fails_naming_the_size() -> None:
    eviction = 'Usage of EmptyDir volume "volume-0" exceeds the limit "1Gi". '
    verdict = judge(replace(CRASH, exit_code=137, eviction=eviction), running(last="Evicted"), 3)
    assert verdict.permanent
    assert "spec.compute.scratch.size" in verdict.failure.message


def test_an_edit_of_compute_mends_no_other_failure() -> None:
    assert judge(ended(64), running(last="InvalidSettings"), 3, edited=True).permanent


def test_a_limit_that_is_edited_over_and_over_uses_up_the_retries() -> None:
    attempt = replace(CRASH, exit_code=137, out_of_memory=True)
    assert judge(attempt, running(last="OOMKilled", counted=3), 3, edited=True).permanent


def test_an_unusable_gpu_is_counted() -> None:
    verdict = judge(ended(80), running(), 3)
    assert (verdict.counted, verdict.permanent) == (True, False)


def test_a_killed_container_is_counted() -> None:
    verdict = judge(replace(CRASH, exit_code=137), running(), 3)
    assert (verdict.counted, verdict.permanent) == (True, False)


def test_no_retries_means_that_the_first_failure_stands_as_it_was_reported() -> None:
    verdict = judge(ended(1, "It broke."), running(), 0)
    assert verdict.permanent
    assert verdict.failure.message == "It broke."


def test_the_last_retry_is_used() -> None:
    assert not judge(ended(1), running(counted=2), 3).permanent


def test_after_the_last_retry_the_stage_fails() -> None:
    assert judge(ended(1), running(counted=3), 3).permanent


def test_the_trainers_words_are_kept() -> None:
    assert judge(ended(65, "Row 7 has no answer."), running(), 3).failure.message == "Row 7 has no answer."


def test_a_report_that_contradicts_the_exit_code_is_not_believed() -> None:
    contradicting = replace(ended(0, "All done."), exit_code=139)
    failure = judge(contradicting, running(), 3).failure
    assert failure.reason == "Crashed"
    assert "139" in failure.message


def test_a_pod_that_is_gone_leaves_the_jobs_words() -> None:
    failure = judge(replace(CRASH, has_pod=False, exit_code=None), running(), 3).failure
    assert failure.reason == "PodLost"
    assert "backoff limit" in failure.message


@pytest.mark.parametrize("has_pod", [True, False])
@pytest.mark.parametrize("report_only", [True, False])
def test_a_lost_result_is_counted_only_if_an_attempt_that_only_reads_it_lost_it(
    has_pod: bool, report_only: bool
) -> None:
    lost = replace(CRASH, succeeded=True, exit_code=0, has_pod=has_pod)
    verdict = judge(lost, running().model_copy(update={"report_only": report_only}), 3)
    assert (verdict.failure.reason, verdict.counted, verdict.report_only) == ("ResultLost", report_only, True)


def test_deleting_a_job_costs_nothing() -> None:
    assert not job_deleted(running()).counted


@pytest.mark.parametrize(("failures", "seconds"), [(0, 10), (1, 10), (2, 20), (3, 40), (6, 300), (20, 300)])
def test_the_pause_doubles_up_to_five_minutes(failures: int, seconds: int) -> None:
    assert backoff_seconds(failures) == seconds
