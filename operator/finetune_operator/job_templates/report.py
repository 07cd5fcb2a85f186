"""The pod that reads the stored result of a stage whose own pod was lost with it. It needs no GPU."""

from typing import Any

from finetune_api.compute import Resources
from finetune_api.spec import Stage
from finetune_operator.job_templates import pod, volumes
from finetune_operator.job_templates.attempt import Attempt

# It needs about 100 MiB and a few seconds, whatever the stage needed. The limits are for namespaces that require some.
_RESOURCES = Resources(
    requests={"cpu": "100m", "memory": "256Mi"},
    limits={"cpu": "1", "memory": "512Mi"},
)


def job(attempt: Attempt, stage: Stage) -> dict[str, Any]:
    """Render the Job. It needs only the bucket."""
    mounts = volumes.connections([attempt.plan.output.s3])
    return pod.job(
        attempt, stage, mounts, environment=pod.NO_GPU, arguments=["--report"], resources=_RESOURCES.to_json()
    )
