"""A Job that the Job controller never marks Failed, though its pods have ended.

The Job controller counts a failed pod, but does nothing about it while it still expects to see a pod created. It
ignores the creation of a pod whose deletion has begun when it sees the pod first, as may happen after an outage of the
API server; the Job is then stuck until the next resync, half a day later. See `addPod` and `syncJob` in
pkg/controller/job/job_controller.go.

None of its pods runs, so the operator deletes the Job, and the next attempt resumes from the checkpoint.
"""

from collections.abc import Sequence
from datetime import datetime

from finetune_api.status import Failure, StageStatus
from finetune_operator.clock import parse_time
from finetune_operator.decide import job_and_pod, planned_deletion
from finetune_operator.decide.decision import Action, Decision
from finetune_operator.decide.failures import Verdict
from finetune_operator.decide.observation import Object
from finetune_operator.decide.pass_result import Pass

# The Job controller needs a moment, or some seconds when the control plane is under load.
_LIMIT_SECONDS = 60


def seconds_left(job: Object, pods: Sequence[Object], now: datetime) -> float | None:
    """Return how long the Job controller may still take to mark a Job Failed; 0 or less if the Job is stuck.

    None unless all pods of the Job have ended and one of them failed. `pods` are the Job's.
    """
    status = job.get("status") or {}
    failed = status.get("failed") or (status.get("uncountedTerminatedPods") or {}).get("failed")
    if not failed or not job_and_pod.is_live_job(job) or any(map(job_and_pod.is_live_pod, pods)):
        return None
    return _LIMIT_SECONDS - (now - _quiet_since(job)).total_seconds()


def recreate(this: Pass, job: Object, stage: StageStatus, actions: Sequence[Action]) -> Decision:
    """Delete the Job, after `actions`; the attempt that follows is not counted."""
    message = f"The {stage.name} pod failed, but its Job is not marked Failed; the operator recreates the Job."
    return planned_deletion.carry_out(this, job, planned_deletion.JOB_UNDECIDED, message, actions=actions)


def lost(stage: StageStatus) -> Verdict:
    """Return what a stuck Job means for its stage: the Job never says how it ended, so the attempt is not counted."""
    message = f"The {stage.name} pod was lost, and its Job was not marked Failed; the next attempt resumes."
    failure = Failure(stage=stage.name, reason="PodLost", message=message)
    return Verdict(failure, counted=False, report_only=bool(stage.report_only))


def _quiet_since(job: Object) -> datetime:
    """Return when the Job controller last wrote the status; if that is not known, when the Job was created.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    metadata = job["metadata"]
    written = [
        m["time"] for m in metadata.get("managedFields") or [] if m.get("subresource") == "status" and "time" in m
    ]
    return max(map(parse_time, written), default=parse_time(metadata["creationTimestamp"]))
