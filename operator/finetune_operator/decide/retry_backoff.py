"""When the next attempt of a stage starts, and what the status says until then."""

from datetime import datetime, timedelta

from finetune_api.base import MAXIMUM_MESSAGE
from finetune_api.status import StageStatus
from finetune_operator.clock import format_time, parse_time
from finetune_operator.decide import attempts, failures, status

RETRY_BACKOFF = "RetryBackoff"


def seconds_left(stage: StageStatus, now: datetime) -> float:
    """Return how long the next attempt still has to wait, 0 or less if it may start."""
    return (_start_time(stage) - now).total_seconds() if stage.completion_time and stage.attempt else 0.0


def reason_and_message(stage: StageStatus, now: datetime) -> tuple[str, str]:
    """Return the reason and message of Ready until the next attempt starts."""
    if stage.last_failure and stage.completion_time and _start_time(stage) > now:
        when = format_time(_start_time(stage))
        return RETRY_BACKOFF, f"{stage.name} is retried after {when}: {stage.last_failure.message}"[:MAXIMUM_MESSAGE]
    return status.ACTIVE_PHASES[stage.name], attempts.about_to_start(stage)


def _start_time(stage: StageStatus) -> datetime:
    assert stage.completion_time is not None  # set whenever an attempt ended
    return parse_time(stage.completion_time) + timedelta(seconds=failures.backoff_seconds(stage.counted_failures))
