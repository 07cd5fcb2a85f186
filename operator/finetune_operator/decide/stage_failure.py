"""How a stage fails that the operator ends itself, because of a deadline or a refusal."""

from dataclasses import replace

from finetune_api.status import Failure, StageStatus
from finetune_operator.clock import format_time
from finetune_operator.decide import deadlines, gpu_time, status
from finetune_operator.decide.decision import Decision, KubernetesEvent
from finetune_operator.decide.pass_result import Pass

_NEXT_PASS_SECONDS = 1.0


def fail_stage(this: Pass, stage: StageStatus, failure: Failure) -> Decision:
    """Mark the stage Failed, though its Job may be live.

    Only the next pass deletes the Job and fails the FineTuneJob. If the Job were deleted before this status is written,
    the next pass would report that somebody else deleted the Job, and start the stage again.
    """
    when = format_time(this.now)
    failed = stage.model_copy(update={"state": "Failed", "last_failure": failure, "completion_time": when})
    changed = deadlines.stop(status.with_stage(this.status, failed), when)
    changed = gpu_time.count(changed, stage, this.observation.pods, when)
    event = KubernetesEvent("Warning", "StageFailed", failure.message)
    given_up = replace(this, status=changed, events=(*this.events, event))
    return given_up.in_progress(failure.reason, failure.message, requeue_after=_NEXT_PASS_SECONDS)
