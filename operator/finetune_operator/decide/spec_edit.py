"""What an edit of the parts of the spec that the plan is made of does, and what a corrected chart does.

Until the first container has started, and after a failure before training, `status.specEditable` is true, so that the
CRD lets these parts change: the job is accepted again with them. The status lags behind the pods, so an edit may come
too late; then what was accepted stays, and the condition SpecApplied says so.

A waiting Job is replaced for any edit. For another image or other defaults of the chart, it is replaced only if its pod
cannot start: an upgrade of the operator must not cost the place in a queue.
"""

from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import FineTuneJobStatus, StageStatus
from finetune_operator.decide import config_maps, job_and_pod, planned_deletion, snapshot
from finetune_operator.decide.decision import Decision, KubernetesEvent
from finetune_operator.decide.observation import Object, Observation
from finetune_operator.decide.pass_result import Pass
from finetune_operator.job_defaults import Settings

# A container that the runtime could not start: no program of the image has run.
_NOT_STARTED = ("StartError", "ContainerCannotRun")


def follow(found: FineTuneJobStatus, observation: Observation) -> FineTuneJobStatus:
    """Fix the plan once a container has started."""
    if not found.spec_editable or not _has_begun(found, observation):
        return found
    return found.model_copy(update={"spec_editable": None})


def accepted_spec(observation: Observation, spec: FineTuneJobSpec) -> FineTuneJobSpec:
    """Return the spec that counts: the present one, with the accepted parts if it was edited too late."""
    accepted = observation.status.snapshot
    if (
        accepted is None
        or not snapshot.is_edited(spec, accepted)
        or follow(observation.status, observation).spec_editable
    ):
        return spec
    return config_maps.accepted_spec(observation, spec, accepted) or spec


def is_corrected(
    found: FineTuneJobStatus,
    observation: Observation,
    spec: FineTuneJobSpec,
    settings: Settings,
    *,
    by_chart: bool = True,
) -> bool:
    """Whether the job may be accepted again, and would then run otherwise; `by_chart` if the chart counts too."""
    accepted = found.snapshot
    if accepted is None or not found.spec_editable:
        return False
    if snapshot.is_edited(spec, accepted):
        return True
    if not by_chart:
        return False
    plan = snapshot.render_plan(observation.metadata, spec, settings).to_bytes()
    present = snapshot.take(plan, spec, settings)
    return (present.plan_sha256, present.trainer_image) != (accepted.plan_sha256, accepted.trainer_image)


def applies(
    this: Pass, job: Object, spec: FineTuneJobSpec, stage: StageStatus, settings: Settings, *, can_start: bool
) -> bool:
    """Whether a waiting Job is to be deleted, or is being deleted for that already."""
    if job_and_pod.is_being_deleted(job):
        # A deletion that has begun cannot be stopped.
        return planned_deletion.reason(this.observation.status, stage) == planned_deletion.SPEC_CHANGED
    return is_corrected(this.status, this.observation, spec, settings, by_chart=not can_start)


def delete_waiting(this: Pass, job: Object, stage: StageStatus) -> Decision:
    """Delete the Job; the job is then accepted again."""
    message = f"The job was corrected before {stage.name} could start; the operator starts it again."
    event = KubernetesEvent("Normal", planned_deletion.SPEC_CHANGED, message)
    return planned_deletion.carry_out(this, job, planned_deletion.SPEC_CHANGED, message, event=event)


def _has_begun(found: FineTuneJobStatus, observation: Observation) -> bool:
    """Whether a container of an attempt since the job was last accepted or reopened has started."""
    if any(stage.state in ("Succeeded", "Skipped") for stage in found.stages):
        return True
    attempts = {
        (stage.name, str(number)) for stage in found.stages for number in range(stage.first_attempt, stage.attempt + 1)
    }
    complete = (j for j in observation.jobs if job_and_pod.condition(j, "Complete"))
    started = (p for p in observation.pods if _has_started(p))
    return any(job_and_pod.stage_and_attempt(child) in attempts for child in (*complete, *started))


def _has_started(pod: Object) -> bool:
    state = job_and_pod.trainer_status(pod).get("state") or {}
    ended = state.get("terminated")
    return bool(state.get("running")) or (ended is not None and ended.get("reason") not in _NOT_STARTED)
