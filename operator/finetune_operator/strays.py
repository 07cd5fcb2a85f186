"""A Job that should not be there: of an attempt after which another one has begun.

A replica that lost the lead may have sent the creation of a Job that arrives only when the next one has created the
same, and somebody deleted it, and the stage has gone on with a new attempt. The late one then runs beside it.
"""

from collections.abc import Sequence

from finetune_api.status import StageStatus
from finetune_operator import children, names
from finetune_operator.decision import DeleteJob
from finetune_operator.observation import Object, Observation


def delete(observation: Observation) -> list[DeleteJob]:
    """Return what ends the strays: an attempt begins only when no Job of an earlier one is live."""
    stages = observation.status.stages
    return [
        DeleteJob(job["metadata"]["name"], job["metadata"]["uid"], job["metadata"]["resourceVersion"])
        for job in observation.jobs
        if children.is_live_job(job) and not children.is_being_deleted(job) and _is_stray(job, stages)
    ]


def _is_stray(job: Object, stages: Sequence[StageStatus]) -> bool:
    labels = job["metadata"]["labels"]
    stage, attempt = labels.get(names.STAGE_LABEL), labels.get(names.ATTEMPT_LABEL)
    # While a stage is Pending, the Job of the attempt before may still be on its way to its end.
    return any(s.name == stage and s.state != "Pending" and attempt in map(str, range(s.attempt)) for s in stages)
