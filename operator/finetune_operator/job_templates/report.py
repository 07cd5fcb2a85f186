"""The pod that reads a finished stage's result again, after the one that told it was lost. It holds no GPU."""

from typing import Any

from finetune_api.compute import Resources
from finetune_api.spec import Stage
from finetune_operator.job_templates import pod, volumes
from finetune_operator.job_templates.attempt import Attempt

# It takes some 100 MiB and a few seconds, whatever the stage needed. The limits are for namespaces that ask for some.
_RESOURCES = Resources(
    requests={"cpu": "100m", "memory": "256Mi"},
    limits={"cpu": "1", "memory": "512Mi"},
)


def job(attempt: Attempt, stage: Stage) -> dict[str, Any]:
    """Render the Job. It needs the bucket and nothing else."""
    mounts = volumes.connections([attempt.plan.output.s3])
    return pod.job(
        attempt, stage, mounts, environment=pod.NO_GPU, arguments=["--report"], resources=_RESOURCES.to_json()
    )
