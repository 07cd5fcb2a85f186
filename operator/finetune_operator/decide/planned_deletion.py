"""Jobs that the operator deletes itself: it writes the reason, then deletes, then recognizes the deletion.

A Job that is gone does not show who deleted it. Without the reason in the status, the next pass would report that
somebody else deleted the Job. So the pass that plans a deletion only writes `status.stages[].plannedDeletion`; a later
pass, which reads that, deletes the Job; and the pass that finds the Job gone, or its pods ended, takes the reason from
the status. A crash between any two steps repeats a step and loses nothing.

Other deletions need no record, because the status already explains them: those of a finished job, of a failed stage,
and of Jobs of an earlier attempt or another plan. They call `delete` at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import DeletionReason, FineTuneJobStatus, PlannedDeletion, StageStatus
from finetune_operator.decide import conditions, job_and_pod, status
from finetune_operator.decide.decision import Action, Decision, DeleteJob, KubernetesEvent
from finetune_operator.decide.observation import Object, Observation
from finetune_operator.decide.pass_result import Pass

SUSPENDED: DeletionReason = "Suspended"
COMPUTE_CHANGED: DeletionReason = "ComputeChanged"
SPEC_CHANGED: DeletionReason = "SpecChanged"
JOB_UNDECIDED: DeletionReason = "JobUndecided"

# Until the next pass: after the reason was written, and while the Job's pods terminate.
RECORDED_SECONDS = 1.0
TERMINATING_SECONDS = 30.0


def carry_out(
    this: Pass,
    job: Object,
    reason: DeletionReason,
    message: str,
    *,
    actions: Sequence[Action] = (),
    event: KubernetesEvent | None = None,
) -> Decision:
    """Take the next step to delete the Job of the present stage, after `actions`.

    `reason` and `message` are those of Ready meanwhile; `event` is emitted once, with the record.
    """
    this = record(this, job, reason)
    if is_recorded(this):
        deletions = (*actions, *delete([job]))
        return this.in_progress(reason, message, requeue_after=TERMINATING_SECONDS, actions=deletions)
    if event:
        this = replace(this, events=(*this.events, event))
    return this.in_progress(reason, message, requeue_after=RECORDED_SECONDS, actions=actions)


def record(this: Pass, job: Object, reason: DeletionReason) -> Pass:
    """Return the pass with the reason for which the Job of the present stage is deleted."""
    stage = status.current(this.status)
    assert stage is not None  # it has a Job
    planned = PlannedDeletion(job_uid=job["metadata"]["uid"], reason=reason)
    recorded = stage.model_copy(update={"planned_deletion": planned})
    return replace(this, status=status.with_stage(this.status, recorded))


def is_recorded(this: Pass) -> bool:
    """Whether an earlier pass has written what is known of the stages now."""
    return this.status.stages == this.observation.status.stages


def delete(jobs: Iterable[Object]) -> tuple[DeleteJob, ...]:
    """Return the deletions of Jobs whose end the written status explains; nothing for those that are being deleted."""
    return tuple(DeleteJob.of(job) for job in jobs if not job_and_pod.is_being_deleted(job))


def reason(written: FineTuneJobStatus, stage: StageStatus) -> DeletionReason | None:
    """Return why the operator deletes or deleted the Job of a stage; None if it did not plan to.

    The versions before this one kept the reason only in the conditions, so these count where the stage has no record.
    """
    if stage.planned_deletion is not None:
        return stage.planned_deletion.reason
    if conditions.is_true(written.conditions, "Suspended"):
        return SUSPENDED
    ready = conditions.reason(written.conditions)
    return next((known for known in (COMPUTE_CHANGED, JOB_UNDECIDED) if ready == known), None)


def explanation(observation: Observation, spec: FineTuneJobSpec, stage: StageStatus) -> DeletionReason | None:
    """Return why the Job of a running stage is gone or being deleted; None if somebody else deleted it.

    If `spec.suspend` is true, it does not matter who deleted the Job: the operator would have done so.
    """
    return SUSPENDED if spec.suspend else reason(observation.status, stage)


def carry_over(found: FineTuneJobStatus, observation: Observation) -> FineTuneJobStatus:
    """Keep the record of a deletion that has begun, which cannot be stopped, and drop all others.

    A pass that still wants a deletion records it again. The reason that an earlier version kept in the conditions
    becomes a record, because the conditions may change before the Job is gone.
    """
    deleting = {
        j["metadata"]["name"]: j["metadata"]["uid"] for j in observation.jobs if job_and_pod.is_being_deleted(j)
    }
    for stage in found.stages:
        uid = deleting.get(stage.job_name or "") if stage.state == "Running" else None
        kept = stage.planned_deletion
        if uid and kept is None and (why := reason(observation.status, stage)):
            kept = PlannedDeletion(job_uid=uid, reason=why)
        elif kept and kept.job_uid != uid:
            kept = None
        found = status.with_stage(found, stage.model_copy(update={"planned_deletion": kept}))
    return found
