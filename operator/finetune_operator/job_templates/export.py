"""The export pod: merges, converts and quantizes on a CPU."""

from typing import Any

from finetune_operator.job_templates import pod, volumes
from finetune_operator.job_templates.attempt import Attempt


def job(attempt: Attempt) -> dict[str, Any]:
    """Render the Job. It reads the adapter from the bucket and downloads the pinned model."""
    plan = attempt.plan
    mounts = [
        *volumes.connections(
            [plan.output.s3, plan.model.s3, volumes.original(attempt)],
            tokens=[volumes.hub_token(attempt), volumes.original_token(attempt)],
        ),
        *volumes.model(attempt),
    ]
    return pod.job(attempt, "export", mounts, environment=pod.NO_GPU)
