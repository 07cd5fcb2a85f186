"""How a FineTuneJob is accepted: its plan is rendered and fixed, unless the administrator's policy forbids it."""

from datetime import datetime

from finetune_api import endpoints
from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import Failure
from finetune_operator.clock import format_time
from finetune_operator.decide import conditions, snapshot, status, suspend
from finetune_operator.decide.decision import Decision, KubernetesEvent
from finetune_operator.decide.observation import Observation
from finetune_operator.decide.pass_result import Pass
from finetune_operator.job_defaults import Settings

ENDPOINT_NOT_ALLOWED = "EndpointNotAllowed"
_NEXT_PASS_SECONDS = 1.0


def accept(
    observation: Observation,
    spec: FineTuneJobSpec,
    now: datetime,
    settings: Settings,
    *,
    events: tuple[KubernetesEvent, ...] = (),
) -> Decision:
    """Accept the job under the present settings; fail it if it uses a server that is not allowed.

    A job that was accepted before starts again with what the present spec and settings say; `events` come first.
    """
    plan = snapshot.render_plan(observation.metadata, spec, settings)
    refusal = endpoints.refused(settings.defaults.policy, endpoints.of(plan))
    if refusal:
        this = Pass(observation, now, observation.status, accepted=False)
        return this.fail(Failure(reason=ENDPOINT_NOT_ALLOWED, message=refusal))
    taken, former = snapshot.take(plan.to_bytes(), spec, settings), observation.status.snapshot
    same_plan = former is not None and former.plan_sha256 == taken.plan_sha256
    accepted = status.restarted(observation.status, same_plan=same_plan).model_copy(
        update={
            "start_time": format_time(now),
            "snapshot": taken,
            "spec_editable": True,
        }
    )
    event = KubernetesEvent("Normal", "Accepted", conditions.ACCEPTED_MESSAGE)
    this = Pass(observation, now, accepted, (*events, event))
    if spec.suspend:
        return suspend.hold(this, spec, accepted.stages[0])
    return this.in_progress("Accepted", "The job is accepted and about to start.", requeue_after=_NEXT_PASS_SECONDS)
