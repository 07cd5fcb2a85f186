"""What to do when the API server refuses a stage's Job or what it needs, because of a quota, a policy or a webhook.

The cause may go away, so the operator tries again until the start deadline.
"""

from dataclasses import replace

from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import Failure, FineTuneJobStatus, StageStatus
from finetune_operator.clock import format_time, parse_time
from finetune_operator.decide import deadlines, diagnose, status
from finetune_operator.decide.decision import Decision
from finetune_operator.decide.pass_result import Pass

_RETRY_SECONDS = 30.0


def wait(this: Pass, stage: StageStatus, spec: FineTuneJobSpec, refusal: str) -> Decision | Failure:
    """Report the API server's words and try again; return the failure once the start deadline has passed."""
    found = diagnose.creation_refused(refusal, "Job")
    since = stage.refused_since or format_time(this.now)
    left = spec.start_deadline_seconds - (this.now - parse_time(since)).total_seconds()
    if left <= 0:
        return deadlines.not_started(found, stage.name, spec)
    refused = status.with_stage(this.status, stage.model_copy(update={"refused_since": since}))
    return replace(this, status=refused).in_progress(
        found.reason, found.message, waiting=True, requeue_after=min(left, _RETRY_SECONDS)
    )


def forget(found: FineTuneJobStatus, stage: StageStatus) -> FineTuneJobStatus:
    """Reset the time since the first refusal, because no Job is requested now."""
    return status.with_stage(found, stage.model_copy(update={"refused_since": None}))
