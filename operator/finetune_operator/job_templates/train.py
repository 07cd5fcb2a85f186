"""The train pods: the only ones that hold GPUs."""

from typing import Any

from finetune_operator.job_templates import indexed, pod, volumes
from finetune_operator.job_templates.attempt import Attempt

# The trainer's option, given only for several GPUs.
PROCESSES = "--processes"


def job(attempt: Attempt) -> dict[str, Any]:
    """Render the Job. It reads the prepared rows from the bucket and downloads the pinned model."""
    plan = attempt.plan
    mounts = [
        *volumes.connections(
            [plan.output.s3, plan.model.s3, volumes.adapter(attempt)],
            tokens=[volumes.hub_token(attempt)],
            secrets=[plan.mlflow.credentials_dir if plan.mlflow else None],
        ),
        *volumes.model(attempt),
    ]
    gpu = attempt.spec.compute.accelerator.extended_resource
    # The job may have been accepted with an older trainer, which does not know the options.
    processes = [PROCESSES, str(gpu.count)] if gpu.count > 1 else []
    arguments = [*processes, *indexed.arguments(attempt)]
    rendered = pod.job(attempt, "train", mounts, devices={gpu.name: str(gpu.count)}, arguments=arguments)
    return indexed.spread(rendered, attempt)
