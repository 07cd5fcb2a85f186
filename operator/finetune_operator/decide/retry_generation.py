"""What `spec.retryGeneration` does: a failed job is reopened at the stage that failed.

If nothing was trained, and the spec or the chart has been corrected since, it is accepted again: see `spec_edit`.
"""

from finetune_api.spec import STAGES, FineTuneJobSpec
from finetune_api.status import FineTuneJobStatus, StageStatus
from finetune_operator.decide import conditions, status
from finetune_operator.decide.decision import KubernetesEvent
from finetune_operator.decide.evaluation_gate import GATE_MISSED


def is_wanted(found: FineTuneJobStatus, spec: FineTuneJobSpec) -> bool:
    """Whether a job failed, and `spec.retryGeneration` was raised since. A job that succeeded is never reopened."""
    return conditions.is_true(found.conditions, "Failed") and spec.retry_generation > found.retry_generation


def reopened(found: FineTuneJobStatus) -> FineTuneJobStatus:
    """Return the status of a job that continues at its failed stage; without stages if it was never accepted.

    The attempt's number increases, because the names of earlier Jobs are not used again.
    """
    cleared = found.model_copy(update={"failure": None, "completion_time": None})
    failed = status.current(found)
    if failed is None:
        return cleared
    number = failed.attempt + 1
    # Its own result exists and is only read again; the result of another run is not.
    judged = found.failure is not None and found.failure.reason == GATE_MISSED and found.reused_from is None
    again = StageStatus(
        name=failed.name,
        state="Pending",
        attempt=number,
        first_attempt=number,
        report_only=True if judged else failed.report_only,
        checkpoint_step=failed.checkpoint_step,
    )
    # The result of another run, which missed the gate, had skipped the stages that are now due.
    stages = [s.model_copy(update={"state": "Pending"}) if s.state == "Skipped" else s for s in cleared.stages]
    # What an earlier stage has made is continued with.
    editable = found.spec_editable if failed.name == STAGES[0] else None
    update = {"stages": stages, "reused_from": None, "spec_editable": editable}
    return status.with_stage(cleared.model_copy(update=update), again)


def event(stage: StageStatus) -> KubernetesEvent:
    """Return the event that reports it."""
    return KubernetesEvent("Normal", "Reopened", f"The job is reopened at {stage.name}.")
