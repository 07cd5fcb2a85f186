"""The prepare pod: checks data, model and bucket on a CPU, so that no GPU waits for a mistake."""

from typing import Any

from finetune_operator.stages import pod, volumes
from finetune_operator.stages.attempt import Attempt


def job(attempt: Attempt) -> dict[str, Any]:
    """Render the Job. It alone sees the dataset's sources."""
    plan = attempt.plan
    sources = [source.s3 for source in plan.dataset.sources]
    mounts = [
        *volumes.connections(
            [plan.output.s3, plan.model.s3, *sources], plan.model.hub.token_file if plan.model.hub else None
        ),
        *volumes.model(attempt),
        *volumes.dataset(attempt),
    ]
    return pod.job(attempt, "prepare", mounts, environment=pod.NO_GPU)
