"""A Job of which Kubernetes never says how it ended, though its pods have.

The Job controller counts a pod that failed, but concludes nothing from it as long as it expects to see one created. It
never takes note of one whose deletion had begun when it saw it first, as it may after the API server was away; then it
looks again with its next resync, half a day later. See `addPod` and `syncJob` in pkg/controller/job/job_controller.go.

Nothing of it runs, so the Job is deleted, and a new one goes on from the checkpoint.
"""

from collections.abc import Sequence
from datetime import datetime

from finetune_api.status import Failure, StageStatus
from finetune_operator.clock import parse_time
from finetune_operator.decide import job_and_pod, planned_deletion
from finetune_operator.decide.decision import Action, Decision
from finetune_operator.decide.failures import Verdict
from finetune_operator.decide.observation import Object
from finetune_operator.decide.pass_result import Transition

# It takes a moment, or some seconds when the control plane is under load.
_PATIENCE_SECONDS = 60


def seconds_left(job: Object, pods: Sequence[Object], now: datetime) -> float | None:
    """Return how long a Job may still take to say that it failed; None unless its pods have ended, one of them badly.

    `pods` are of the Job.
    """
    status = job.get("status") or {}
    failed = status.get("failed") or (status.get("uncountedTerminatedPods") or {}).get("failed")
    if not failed or not job_and_pod.is_live_job(job) or any(map(job_and_pod.is_live_pod, pods)):
        return None
    return _PATIENCE_SECONDS - (now - _quiet_since(job)).total_seconds()


def recreate(this: Transition, job: Object, stage: StageStatus, actions: Sequence[Action]) -> Decision:
    """Delete the Job, after `actions`; the attempt that follows is not counted."""
    message = f"The {stage.name} pod failed, but its Job is not marked Failed; the operator recreates the Job."
    return planned_deletion.carry_out(this, job, planned_deletion.JOB_UNDECIDED, message, actions=actions)


def lost(stage: StageStatus) -> Verdict:
    """What that means for its stage: an uncounted attempt, as how it ended is not known."""
    message = f"The {stage.name} pod was lost, and Kubernetes never said so of its Job; a new one continues."
    failure = Failure(stage=stage.name, reason="PodLost", message=message)
    return Verdict(failure, counted=False, report_only=bool(stage.report_only))


def _quiet_since(job: Object) -> datetime:
    """Return when the Job controller last wrote the status; when the Job was created, if the API server does not say.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    metadata = job["metadata"]
    written = [
        m["time"] for m in metadata.get("managedFields") or [] if m.get("subresource") == "status" and "time" in m
    ]
    return max(map(parse_time, written), default=parse_time(metadata["creationTimestamp"]))
