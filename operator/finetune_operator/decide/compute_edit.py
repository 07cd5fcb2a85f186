"""What an edit of `spec.compute` does to a stage that already has its Job.

A pod that cannot start is replaced by one with the new settings; one that runs is left alone, and the next attempt gets
them. A limit that was too low twice fails the job only if it was not edited in between.
"""

from collections.abc import Sequence
from dataclasses import replace

from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import StageStatus
from finetune_operator import names
from finetune_operator.decide import job_and_pod, planned_deletion
from finetune_operator.decide.decision import Decision, KubernetesEvent
from finetune_operator.decide.observation import Object
from finetune_operator.decide.pass_result import Pass
from finetune_operator.job_templates.compute_digest import digest


def is_later(job: Object, spec: FineTuneJobSpec, stage: StageStatus) -> bool:
    """Whether `spec.compute` has changed since the Job was created, as far as the stage is concerned."""
    made_of = (job["metadata"].get("annotations") or {}).get(names.COMPUTE_ANNOTATION)
    present = digest(spec.compute, stage.name, report_only=bool(stage.report_only))
    # A Job of an earlier version has no such annotation.
    return made_of is not None and made_of != present


def is_later_than_failure(jobs: Sequence[Object], spec: FineTuneJobSpec, stage: StageStatus) -> bool:
    """Whether `spec.compute` has changed since the attempt that failed before the present one, as far as is known.

    If so, what that attempt lacked says nothing about the next one.
    """
    made = {n: j for j in jobs if job_and_pod.is_pod_of(j, stage.name) and (n := _attempt(j)) <= stage.attempt}
    # If the earlier Job is gone, the present one at least shows an edit since.
    failed = sorted(made)[-2:]
    return bool(failed) and is_later(made[failed[0]], spec, stage)


def _attempt(job: Object) -> int:
    return int((job["metadata"].get("labels") or {}).get(names.ATTEMPT_LABEL, "0"))


def applies(this: Pass, job: Object, spec: FineTuneJobSpec, stage: StageStatus) -> bool:
    """Whether the Job of a pod that cannot start is to be recreated, or is being deleted for that already."""
    if job_and_pod.is_being_deleted(job):
        # A deletion that has begun cannot be stopped.
        return planned_deletion.reason(this.observation.status, stage) == planned_deletion.COMPUTE_CHANGED
    return is_later(job, spec, stage)


def recreate(this: Pass, job: Object, stage: StageStatus) -> Decision:
    """Delete the Job; the attempt that follows is not counted."""
    message = f"spec.compute was changed before {stage.name} could start; the operator recreates its pod."
    event = KubernetesEvent("Normal", planned_deletion.COMPUTE_CHANGED, message)
    return planned_deletion.carry_out(this, job, planned_deletion.COMPUTE_CHANGED, message, event=event)


def announce(this: Pass, message: str) -> tuple[Pass, str]:
    """Add to the message of a running pod when the edit takes effect; the first time with an event."""
    text = f"{message} spec.compute was changed since; the next attempt uses it."
    if any(c.type == "Ready" and c.message == text for c in this.observation.status.conditions):
        return this, text
    event = KubernetesEvent("Normal", planned_deletion.COMPUTE_CHANGED, text)
    return replace(this, events=(*this.events, event)), text
