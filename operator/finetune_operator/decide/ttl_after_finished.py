"""What `spec.ttlSecondsAfterFinished` does: after that time a finished job, or only its children, are deleted."""

from datetime import datetime, timedelta

from finetune_api.spec import FineTuneJobSpec
from finetune_operator.clock import parse_time
from finetune_operator.decide import planned_deletion
from finetune_operator.decide.decision import Action, DeleteConfigMap, DeleteFineTuneJob
from finetune_operator.decide.observation import Observation


def seconds_left(observation: Observation, spec: FineTuneJobSpec, now: datetime) -> float | None:
    """Return how long a finished job is still kept, 0 if its TTL is over, None if it has none."""
    ended, kept = observation.status.completion_time, spec.ttl_seconds_after_finished
    if ended is None or kept is None:
        return None
    return max(0.0, (parse_time(ended) + timedelta(seconds=kept) - now).total_seconds())


def clean_up(observation: Observation, spec: FineTuneJobSpec) -> tuple[Action, ...]:
    """Return the deletions for a job whose TTL is over."""
    if spec.ttl_target == "FineTuneJob":
        metadata = observation.metadata
        return (DeleteFineTuneJob(metadata.name, metadata.uid, metadata.resource_version),)
    return (*planned_deletion.delete(observation.jobs), *(DeleteConfigMap.of(c) for c in observation.config_maps))
