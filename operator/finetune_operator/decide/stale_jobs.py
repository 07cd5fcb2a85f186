"""Jobs that should not exist: those of an earlier attempt, of another plan, or of a FineTuneJob that is gone.

A replica that loses its leadership may have sent a request to create a Job that arrives late. If by then the next
leader has created the same Job, somebody has deleted that, and the stage has a new attempt, the late Job would run
beside it. If the next leader has accepted the job under other settings, the late Job has a plan that nobody accepted.

After a deletion with --cascade=orphan, no garbage collector deletes what is left. A Job that still runs is left alone.
"""

from collections.abc import Sequence
from itertools import pairwise

from finetune_api.status import Snapshot, StageStatus
from finetune_operator import names
from finetune_operator.decide import job_and_pod, planned_deletion
from finetune_operator.decide.decision import Action, DeleteConfigMap, DeleteJob
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


def is_orphan(child: Object) -> bool:
    """Whether a child of an earlier FineTuneJob of this name was left on purpose: it has lost its owner."""
    return not child["metadata"].get("ownerReferences") and not job_and_pod.is_being_deleted(child)


def delete_orphans(observation: Observation) -> tuple[Action, ...]:
    """Return the deletions of what orphans are left and run no more."""
    jobs = (j for j in observation.foreign_jobs if is_orphan(j) and not job_and_pod.is_live_job(j))
    maps = (c for c in observation.foreign_config_maps if is_orphan(c))
    return (*planned_deletion.delete(jobs), *map(DeleteConfigMap.of, maps))


def is_of_another_plan(job: Object, accepted: Snapshot | None) -> bool:
    """Whether a Job was created for a plan that is not the accepted one."""
    (container,) = job["spec"]["template"]["spec"]["containers"][:1]
    arguments = container.get("args") or []
    plans = [value for name, value in pairwise(arguments) if name == pod.PLAN_SHA256]
    return accepted is not None and plans != [] and accepted.plan_sha256 not in plans


def _is_of_earlier_attempt(job: Object, stages: Sequence[StageStatus]) -> bool:
    labels = job["metadata"]["labels"]
    stage, attempt = labels.get(names.STAGE_LABEL), labels.get(names.ATTEMPT_LABEL)
    return any(s.name == stage and attempt in map(str, range(s.attempt)) for s in stages)
