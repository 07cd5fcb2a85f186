"""How long a pod may take to start, and a job in total. Time in a queue counts for neither.

A Job that the API server refuses to create has the start deadline too, see `admission_refusal`.

A queue (Kueue) holds a Job by its field `suspend`. The time of admission is read from the Job itself:
https://kubernetes.io/docs/concepts/workloads/controllers/job/#suspending-a-job
"""

from collections.abc import Sequence
from datetime import datetime

from finetune_api.base import MAXIMUM_MESSAGE
from finetune_api.spec import FineTuneJobSpec, Stage
from finetune_api.status import Failure, FineTuneJobStatus
from finetune_operator.clock import format_time, parse_time
from finetune_operator.decide import job_and_pod
from finetune_operator.decide.diagnose import Diagnosis
from finetune_operator.decide.observation import Object

START_DEADLINE_EXCEEDED = "StartDeadlineExceeded"
DEADLINE_EXCEEDED = "DeadlineExceeded"


def admitted_since(job: Object) -> str | None:
    """Return since when a Job may have pods, as Kubernetes writes it; None while a queue holds it."""
    if job["spec"].get("suspend"):
        return None
    conditions = (job.get("status") or {}).get("conditions") or []
    held: Object = next((c for c in conditions if c["type"] == "Suspended"), {})
    if held.get("status") == "True":
        # Admitted, but the Job controller has not acted on it yet; it will write the time when it does.
        return None
    since: str = held.get("lastTransitionTime") or job["metadata"]["creationTimestamp"]
    return since


def follow(status: FineTuneJobStatus, job: Object, now: datetime) -> FineTuneJobStatus:
    """Take in whether a queue held or admitted the present Job since the last pass."""
    since = admitted_since(job)
    if since == status.active_since:
        return status
    if since is None:
        held = job_and_pod.condition(job, "Suspended")
        return stop(status, held["lastTransitionTime"] if held else format_time(now))
    # Held and admitted again since the last pass: when the first active time ended is not known, so it is not counted.
    return status.model_copy(update={"active_since": since})


def stop(status: FineTuneJobStatus, when: str) -> FineTuneJobStatus:
    """Add the present active time, which ended at `when`."""
    if status.active_since is None:
        return status
    seconds = _active_seconds(status, parse_time(when))
    return status.model_copy(update={"active_seconds": seconds, "active_since": None})


def exceeded(status: FineTuneJobStatus, stage: Stage, spec: FineTuneJobSpec, now: datetime) -> Failure | None:
    """Return the failure of a job that was active for longer than it may be."""
    limit = spec.active_deadline_seconds
    if limit is None or _active_seconds(status, now) < limit:
        return None
    message = (
        f"The job was active for {limit} s, the limit of spec.activeDeadlineSeconds (time in a queue is not counted); "
        f"{stage} was stopped. Raise the limit, then raise spec.retryGeneration."
    )
    return Failure(stage=stage, reason=DEADLINE_EXCEEDED, message=message)


def late(
    job: Object, pods: Sequence[Object], found: Diagnosis | None, stage: Stage, spec: FineTuneJobSpec, now: datetime
) -> Failure | None:
    """Return the failure of a stage whose pod has not started in time. `pods` and `found` are of the Job."""
    left = seconds_to_start(job, pods, spec, now)
    if left is None or left > 0:
        return None
    return not_started(found, stage, spec)


def not_started(found: Diagnosis | None, stage: Stage, spec: FineTuneJobSpec) -> Failure:
    """Return the failure of a stage whose pod did not start before the deadline; `found` says why, if known."""
    limit = spec.start_deadline_seconds
    if found is None:
        message = (
            f"The {stage} pod did not start within {limit} s, for no known reason. "
            "Check the pod's events, or raise spec.startDeadlineSeconds."
        )
        return Failure(stage=stage, reason=START_DEADLINE_EXCEEDED, message=message)
    end = f" The {stage} pod did not start within {limit} s; if it needs longer, raise spec.startDeadlineSeconds."
    return Failure(stage=stage, reason=found.reason, message=found.message[: MAXIMUM_MESSAGE - len(end)] + end)


def seconds_to_start(job: Object, pods: Sequence[Object], spec: FineTuneJobSpec, now: datetime) -> float | None:
    """Return how long a Job's pods may still take to start; None if they have started, or a queue holds the Job."""
    since = admitted_since(job)
    if since is None or _started(job, pods):
        return None
    return spec.start_deadline_seconds - (now - parse_time(since)).total_seconds()


def seconds_active(status: FineTuneJobStatus, spec: FineTuneJobSpec, now: datetime) -> float | None:
    """Return how long the job may still be active; None if there is no limit, or if it is not active now."""
    if spec.active_deadline_seconds is None or status.active_since is None:
        return None
    return spec.active_deadline_seconds - _active_seconds(status, now)


def _active_seconds(status: FineTuneJobStatus, now: datetime) -> int:
    total = status.active_seconds or 0
    if status.active_since:
        total += max(0, int((now - parse_time(status.active_since)).total_seconds()))
    return total


def _started(job: Object, pods: Sequence[Object]) -> bool:
    """Whether all pods have run, or one has ended. The Job's status counts the pods that are gone."""
    status = job.get("status") or {}
    return (
        not job_and_pod.unstarted(job, pods)
        or any(not job_and_pod.is_live_pod(p) for p in pods)
        or any(status.get(count) for count in ("succeeded", "failed"))
        or (status.get("ready") or 0) >= job_and_pod.completions(job)
        or any((status.get("uncountedTerminatedPods") or {}).values())
        or any(job_and_pod.condition(job, kind) for kind in ("FailureTarget", "SuccessCriteriaMet"))
    )
