"""Renders the Jobs of the stages."""

from typing import Any

from finetune_api.spec import Stage
from finetune_operator.job_templates import export, indexed, prepare, queue, report, train
from finetune_operator.job_templates.attempt import Attempt

__all__ = ["Attempt", "render", "service"]

_JOBS = {"prepare": prepare.job, "train": train.job, "export": export.job}


def render(stage: Stage, attempt: Attempt) -> dict[str, Any]:
    """Return the Job of one attempt of one stage."""
    if attempt.report_only:
        # Reading a result needs no GPU, whatever the stage needed.
        return queue.put(report.job(attempt, stage), attempt.spec, "export")
    return queue.put(_JOBS[stage](attempt), attempt.spec, stage)


def service(stage: Stage, attempt: Attempt) -> dict[str, Any] | None:
    """Return the Service that must exist before the Job, or None if the attempt needs none."""
    return indexed.service(attempt) if stage == "train" else None
