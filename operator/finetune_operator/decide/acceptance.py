"""How a FineTuneJob is accepted: its plan is rendered and fixed, unless the administrator's policy forbids it."""

from datetime import datetime

from finetune_api import endpoints
from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import Failure
from finetune_operator.clock import format_time
from finetune_operator.decide import snapshot, status, suspend
from finetune_operator.decide.decision import Decision, KubernetesEvent
from finetune_operator.decide.observation import Observation
from finetune_operator.decide.pass_result import Pass
from finetune_operator.job_defaults import Settings

ENDPOINT_NOT_ALLOWED = "EndpointNotAllowed"
_NEXT_PASS_SECONDS = 1.0


def accept(observation: Observation, spec: FineTuneJobSpec, now: datetime, settings: Settings) -> Decision:
    """Accept the job under the present settings; fail it if it uses a server that is not allowed."""
    plan = snapshot.render_plan(observation.metadata, spec, settings)
    refusal = endpoints.refused(settings.defaults.policy, endpoints.of(plan))
    if refusal:
        this = Pass(observation, now, observation.status, accepted=False)
        return this.fail(Failure(reason=ENDPOINT_NOT_ALLOWED, message=refusal))
    accepted = observation.status.model_copy(
        update={
            "start_time": format_time(now),
            "snapshot": snapshot.take(plan.to_bytes(), settings),
            "stages": status.first_stages(),
        }
    )
    event = KubernetesEvent("Normal", "Accepted", "The job is accepted; its plan is fixed.")
    this = Pass(observation, now, accepted, (event,))
    if spec.suspend:
        return suspend.hold(this, spec, accepted.stages[0])
    return this.in_progress("Accepted", "The job is accepted and about to start.", requeue_after=_NEXT_PASS_SECONDS)
