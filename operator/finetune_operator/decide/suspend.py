"""What `spec.suspend` does: the Job of the present stage is deleted, and when the job goes on, a new attempt starts.

`Job.spec.suspend` is left alone: it belongs to the queue that admits the Job.
"""

from dataclasses import replace

from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import StageStatus
from finetune_operator.decide import admission_refusal, conditions, job_and_pod, stuck_job
from finetune_operator.decide.decision import Decision, DeleteJob
from finetune_operator.decide.observation import Object, Observation
from finetune_operator.decide.pass_result import Transition

_SOON = 1.0
_ENDING_SECONDS = 30.0


def explains_deletion(observation: Observation, spec: FineTuneJobSpec) -> bool:
    """Whether a Job that is deleted was deleted to suspend the job."""
    return spec.suspend or conditions.is_true(observation.status.conditions, "Suspended")


def applies(observation: Observation, spec: FineTuneJobSpec, stage: StageStatus) -> bool:
    """Whether the job is to be held, or still being held: a deletion that has begun cannot be called off."""
    if spec.suspend:
        return True
    job = job_and_pod.named(observation.jobs, stage.job_name) if stage.state == "Running" and stage.job_name else None
    return (
        job is not None
        and job_and_pod.is_being_deleted(job)
        and conditions.is_true(observation.status.conditions, "Suspended")
    )


def hold(this: Transition, spec: FineTuneJobSpec, stage: StageStatus) -> Decision:
    """Start nothing; delete what is live."""
    this = replace(this, status=admission_refusal.forget(this.status, stage))
    observation = this.observation
    live = job_and_pod.live(observation.jobs, observation.pods)
    if not live:
        return this.suspend(f"The job is suspended before {stage.name}; spec.suspend: false lets it go on.")
    message = f"The job is being suspended; waiting for {live[0]} to end."
    if not spec.suspend:
        message = f"The job goes on as soon as {live[0]} has ended, as it was being suspended."
    written = this.status.stages == observation.status.stages and conditions.is_true(
        observation.status.conditions, "Suspended"
    )
    if not written:
        # A Job that vanishes must be known as one that was there, and why: otherwise its name would be used again.
        return this.suspend(message, requeue_after=_SOON)
    actions = [DeleteJob.of(j) for j in observation.jobs if _is_to_go(j, this)]
    return this.suspend(message, requeue_after=_ENDING_SECONDS, actions=actions)


def _is_to_go(job: Object, this: Transition) -> bool:
    if not job_and_pod.is_live_job(job) or job_and_pod.is_being_deleted(job):
        return False
    pods = [p for p in this.observation.pods if job_and_pod.is_pod_of_job(p, job)]
    left = stuck_job.seconds_left(job, pods, this.now)
    if left is not None and left <= 0:
        return True
    # If all its pods are over, the Job is about to say how it ended. That must not be lost.
    return not pods or any(map(job_and_pod.is_live_pod, pods))
