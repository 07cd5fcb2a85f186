"""The train pod: the only one that holds a GPU."""

from typing import Any

from finetune_operator.stages import pod, volumes
from finetune_operator.stages.attempt import Attempt


def job(attempt: Attempt) -> dict[str, Any]:
    """Render the Job. It reads the prepared rows from the bucket, and fetches the pinned model itself."""
    plan = attempt.plan
    mounts = [
        *volumes.connections(
            [plan.output.s3, plan.model.s3, volumes.adapter(attempt)],
            tokens=[volumes.hub_token(attempt)],
            secrets=[plan.mlflow.credentials_dir if plan.mlflow else None],
        ),
        *volumes.model(attempt),
    ]
    gpu = attempt.spec.compute.accelerator.extended_resource.name
    return pod.job(attempt, "train", mounts, devices={gpu: "1"})
