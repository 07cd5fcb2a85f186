"""What `spec.retryGeneration` does: a job that failed is opened again at the stage that failed."""

from finetune_api.spec import FineTuneJobSpec
from finetune_api.status import FineTuneJobStatus, StageStatus
from finetune_operator.decide import conditions, status
from finetune_operator.decide.decision import KubernetesEvent
from finetune_operator.decide.evaluation_gate import GATE_MISSED


def is_wanted(found: FineTuneJobStatus, spec: FineTuneJobSpec) -> bool:
    """Whether a job failed in an earlier generation than the one that is asked for. Success is for good."""
    return conditions.is_true(found.conditions, "Failed") and spec.retry_generation > found.retry_generation


def reopened(found: FineTuneJobStatus) -> FineTuneJobStatus:
    """Return the status of a job that goes on at its failed stage; without any stage if it never was accepted.

    The attempt's number moves on, for the names of Jobs that were there are not used again.
    """
    cleared = found.model_copy(update={"failure": None, "completion_time": None})
    failed = status.current(found)
    if failed is None:
        return cleared
    number = failed.attempt + 1
    # Its result is there, and only looked at again; a result of another run is not.
    judged = found.failure is not None and found.failure.reason == GATE_MISSED and found.reused_from is None
    again = StageStatus(
        name=failed.name,
        state="Pending",
        attempt=number,
        first_attempt=number,
        report_only=True if judged else failed.report_only,
        checkpoint_step=failed.checkpoint_step,
    )
    # A result of another run that missed the gate had skipped what is now to be done.
    stages = [s.model_copy(update={"state": "Pending"}) if s.state == "Skipped" else s for s in cleared.stages]
    return status.with_stage(cleared.model_copy(update={"stages": stages, "reused_from": None}), again)


def event(stage: StageStatus) -> KubernetesEvent:
    """Return what users are told."""
    return KubernetesEvent("Normal", "Reopened", f"The job is opened again at {stage.name}.")
