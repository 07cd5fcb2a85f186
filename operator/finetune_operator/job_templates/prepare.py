"""The prepare pod: checks data, model and bucket on a CPU, before a GPU is needed."""

from typing import Any

from finetune_api import cleanup
from finetune_operator.job_templates import pod, volumes
from finetune_operator.job_templates.attempt import Attempt


def job(attempt: Attempt) -> dict[str, Any]:
    """Render the Job. Only this one mounts the dataset's sources and the template."""
    plan = attempt.plan
    sources = [*plan.dataset.sources, *plan.dataset.holdout_sources]
    mounts = [
        *volumes.connections(
            [
                *(plan.output.s3, plan.model.s3, volumes.original(attempt), volumes.adapter(attempt)),
                *(source.s3 for source in sources),
            ],
            tokens=[
                volumes.hub_token(attempt),
                volumes.original_token(attempt),
                *(source.hub.token_file for source in sources if source.hub),
            ],
        ),
        *volumes.model(attempt),
        *volumes.template(attempt),
        *volumes.dataset(attempt),
    ]
    return pod.job(attempt, "prepare", mounts, environment=pod.NO_GPU | _neighbours(attempt))


def _neighbours(attempt: Attempt) -> dict[str, str]:
    full_list = attempt.settings.full_list
    found = full_list.of(attempt.metadata.namespace) if full_list else None
    return {cleanup.VARIABLE: found.model_dump_json(by_alias=True)} if found else {}
