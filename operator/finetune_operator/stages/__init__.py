"""What the pods of the stages look like."""

from typing import Any

from finetune_api.spec import Stage
from finetune_operator.stages import export, prepare, report, train
from finetune_operator.stages.attempt import Attempt

__all__ = ["Attempt", "render"]

_JOBS = {"prepare": prepare.job, "train": train.job, "export": export.job}


def render(stage: Stage, attempt: Attempt) -> dict[str, Any]:
    """Return the Job of one attempt of one stage."""
    return report.job(attempt, stage) if attempt.report_only else _JOBS[stage](attempt)
