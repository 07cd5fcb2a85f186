"""A Job that should not be there: of an attempt after which another one has begun, or of another plan.

A replica that lost the lead may have sent the creation of a Job that arrives late. If the next one has created the same
by then, and somebody deleted it, and the stage has gone on with a new attempt, the late one runs beside it. If the next
one has other settings and has accepted the job anew under them, the late one would do what nobody accepted.
"""

from collections.abc import Sequence
from itertools import pairwise

from finetune_api.status import Snapshot, StageStatus
from finetune_operator import names
from finetune_operator.decide import job_and_pod, planned_deletion
from finetune_operator.decide.decision import DeleteJob
from finetune_operator.decide.observation import Object, Observation
from finetune_operator.job_templates import pod


def delete(observation: Observation) -> tuple[DeleteJob, ...]:
    """Return the deletions of stale Jobs: an attempt begins only when no Job of an earlier one is live."""
    stages, accepted = observation.status.stages, observation.status.snapshot
    return planned_deletion.delete(
        job
        for job in observation.jobs
        if job_and_pod.is_live_job(job) and (_is_of_earlier_attempt(job, stages) or is_of_another_plan(job, accepted))
    )


def is_of_another_plan(job: Object, accepted: Snapshot | None) -> bool:
    """Whether a Job was made for a plan that is not the accepted one."""
    (container,) = job["spec"]["template"]["spec"]["containers"][:1]
    arguments = container.get("args") or []
    plans = [value for name, value in pairwise(arguments) if name == pod.PLAN_SHA256]
    return accepted is not None and plans != [] and accepted.plan_sha256 not in plans


def _is_of_earlier_attempt(job: Object, stages: Sequence[StageStatus]) -> bool:
    labels = job["metadata"]["labels"]
    stage, attempt = labels.get(names.STAGE_LABEL), labels.get(names.ATTEMPT_LABEL)
    # While a stage is Pending, the Job of the attempt before may still be on its way to its end.
    return any(s.name == stage and s.state != "Pending" and attempt in map(str, range(s.attempt)) for s in stages)
