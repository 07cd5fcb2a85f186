"""What `spec.suspend` does: the Job of the present stage is deleted, and when the job is resumed, a new attempt starts.

`Job.spec.suspend` is left alone: it belongs to the queue that admits the Job.
"""

from dataclasses import replace

from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import StageStatus
from finetune_operator.decide import admission_refusal, conditions, job_and_pod, planned_deletion, stuck_job
from finetune_operator.decide.decision import Decision
from finetune_operator.decide.observation import Object, Observation
from finetune_operator.decide.pass_result import Pass


def applies(observation: Observation, spec: FineTuneJobSpec, stage: StageStatus) -> bool:
    """Whether the job is to be suspended, or still is: a deletion that has begun cannot be stopped."""
    if spec.suspend:
        return True
    job = _job(observation, stage)
    if job is None or not job_and_pod.is_being_deleted(job):
        return False
    return planned_deletion.reason(observation.status, stage) == planned_deletion.SUSPENDED


def hold(this: Pass, spec: FineTuneJobSpec, stage: StageStatus) -> Decision:
    """Start nothing; delete what is live."""
    this = replace(this, status=admission_refusal.forget(this.status, stage))
    observation = this.observation
    live = job_and_pod.live(observation.jobs, observation.pods)
    if not live:
        return this.suspend(
            f"The job is suspended {_reached(observation, stage)}; to resume it, set spec.suspend to false."
        )
    message = f"The job is being suspended; waiting for {live[0]} to terminate."
    if not spec.suspend:
        message = f"The job was being suspended; it is resumed when {live[0]} has terminated."
    own = _job(observation, stage)
    if own:
        this = planned_deletion.record(this, own, planned_deletion.SUSPENDED)
    if not conditions.is_true(observation.status.conditions, "Suspended") or not planned_deletion.is_recorded(this):
        return this.suspend(message, requeue_after=planned_deletion.RECORDED_SECONDS)
    deletions = planned_deletion.delete(job for job in observation.jobs if _may_delete(job, this))
    return this.suspend(message, requeue_after=planned_deletion.TERMINATING_SECONDS, actions=deletions)


def _reached(observation: Observation, stage: StageStatus) -> str:
    """Return where the job continues. The result of a stopped pod is rarely seen: it is gone with its Job."""
    step = stage.checkpoint_step
    attempt, reported = observation.reported_step or (None, None)
    # After a failure, which leaves a completion time, steps that are not in the checkpoint are lost.
    if stage.name == "train" and attempt == stage.attempt - 1 and stage.completion_time is None:
        step = reported
    return f"before {stage.name}" if not step else f"after step {step}"


def _job(observation: Observation, stage: StageStatus) -> Object | None:
    """Return the Job of a running stage."""
    return job_and_pod.named(observation.jobs, stage.job_name) if stage.state == "Running" and stage.job_name else None


def _may_delete(job: Object, this: Pass) -> bool:
    if not job_and_pod.is_live_job(job):
        return False
    pods = [p for p in this.observation.pods if job_and_pod.is_pod_of_job(p, job)]
    left = stuck_job.seconds_left(job, pods, this.now)
    if left is not None and left <= 0:
        return True
    # If all its pods have ended, the Job controller is about to write how the Job ended. That must not be lost.
    return not pods or any(map(job_and_pod.is_live_pod, pods))
