"""Why Kueue holds a Job, in Kueue's words: a suspended Job waits for quota.

Only Kueue admits such a Job, and only Kueue evicts it again; the operator reports why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from finetune_operator.clock import parse_time
from finetune_operator.decide import job_and_pod
from finetune_operator.decide.observation import Object, Observation
from finetune_operator.decide.poll_interval import poll_interval_seconds
from finetune_operator.job_templates.queue import QUEUE_LABEL

QUEUED = "Queued"
# On a Workload: the uid of the Job that it stands for.
JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
# Kueue admits a Job within this time if the queue has quota; such a wait is not worth a message.
_ADMISSION_TIME = timedelta(seconds=5)
_MAXIMUM_QUOTE = 1000


def is_suspended(job: Object) -> bool:
    """Whether a Job is held by `spec.suspend`, so that it has no pods."""
    return bool((job.get("spec") or {}).get("suspend"))


def held(observation: Observation) -> Object | None:
    """Return the Job that is held, if one is; list the Workloads that have its uid as `JOB_UID_LABEL`."""
    return next((j for j in observation.jobs if job_and_pod.is_live_job(j) and is_suspended(j)), None)


@dataclass(frozen=True)
class Waiting:
    """Why the Job has no pod, and the seconds until the next pass."""

    why: str
    seconds: float


def waiting(observation: Observation, now: datetime) -> Waiting | None:
    """Return why a Job is held; None if none is, or if it is about to start."""
    job = held(observation)
    if job is None:
        return None
    age = now - parse_time(job["metadata"]["creationTimestamp"])
    text = why(job, observation.workloads, age)
    # When the Job is admitted, the watch reports it at once.
    return Waiting(text, poll_interval_seconds(age)) if text else None


def why(job: Object, workloads: Sequence[Object] | None, age: timedelta) -> str | None:
    """Return why a suspended Job has no pods, or None if it is about to get one.

    Args:
        job: the Job.
        workloads: of that Job. None: the cluster has no Kueue.
        age: time since the Job was created.
    """
    name = job["metadata"]["name"]
    queue = (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)
    if queue is None and not workloads:
        return f"The Job {name} is suspended, but the job names no queue. Set spec.suspend of that Job to false."
    where = f"Waiting in the queue {queue}" if queue else "Waiting for Kueue"
    if workloads is None:
        return (
            f"{where}, but this cluster does not seem to have Kueue. "
            f"Install it, or remove spec.scheduling.kueue and delete the Job {name}."
        )
    if not workloads:
        text = f"{where}; Kueue has no Workload for the Job yet. If none appears, Kueue does not manage this namespace."
        return text if age > _ADMISSION_TIME else None
    # The newest counts: the others are being replaced.
    return _workload(where, max(workloads, key=lambda w: str(w["metadata"].get("creationTimestamp", ""))), age)


def _workload(where: str, workload: Object, age: timedelta) -> str | None:
    if (workload.get("spec") or {}).get("active") is False:
        return f"{where}: the Workload {workload['metadata']['name']} is deactivated. Set its spec.active to true."
    conditions = {c["type"]: c for c in (workload.get("status") or {}).get("conditions") or []}
    reserved, admitted = (conditions.get(kind) or {} for kind in ("QuotaReserved", "Admitted"))
    evicted = conditions.get("Evicted") or {}
    if evicted.get("status") == "True":
        where = f"{where} again ({evicted.get('reason')})"
        if reserved.get("status") == "True":
            # It still has the quota that it is losing.
            return f"{where}: {_quote(str(evicted.get('message', '')))}"
    elif admitted.get("status") == "True" or (not reserved and age <= _ADMISSION_TIME):
        return None
    if reserved.get("status") == "True":
        return f"{where}: quota is reserved; waiting for the queue's admission checks."
    return f"{where}: {_quote(str(reserved.get('message') or 'Kueue has not handled it yet'))}"


def _quote(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MAXIMUM_QUOTE else f"{text[:_MAXIMUM_QUOTE]}..."
