"""What becomes of a stage whose Job the cluster refuses to create: a quota, a policy or an admission webhook said no.

It is asked again and again, as the cause may go away, until a pod would have had to start.
"""

from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import Failure, FineTuneJobStatus, StageStatus
from finetune_operator.clock import format_time, parse_time
from finetune_operator.decide import deadlines, diagnose, status
from finetune_operator.decide.decision import Decision
from finetune_operator.decide.pass_result import Transition

_AGAIN_SECONDS = 30.0


def wait(this: Transition, stage: StageStatus, spec: FineTuneJobSpec, refusal: str) -> Decision | Failure:
    """Tell what was refused, in the API server's words; the failure once that went on for too long."""
    found = diagnose.refused(refusal, "Job")
    since = stage.refused_since or format_time(this.now)
    left = spec.start_deadline_seconds - (this.now - parse_time(since)).total_seconds()
    if left <= 0:
        return deadlines.not_started(found, stage.name, spec)
    noted = stage.model_copy(update={"refused_since": since})
    again = Transition(this.observation, this.now, status.with_stage(this.status, noted), this.events)
    return again.go_on(found.reason, found.message, waiting=True, requeue_after=min(left, _AGAIN_SECONDS))


def forget(found: FineTuneJobStatus, stage: StageStatus) -> FineTuneJobStatus:
    """Start the time anew: nothing is asked for meanwhile."""
    return status.with_stage(found, stage.model_copy(update={"refused_since": None}))
