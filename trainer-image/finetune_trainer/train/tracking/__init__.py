"""The metrics of a training run, for experiment trackers: TensorBoard and MLflow."""

from collections.abc import Mapping
from typing import Any

from finetune_trainer.evaluation.rewards import Rewards
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.train.tracking.mlflow import MLflowRun
from finetune_trainer.train.tracking.tensorboard import TensorBoardFiles
from finetune_trainer.train.tracking.tracker import Outcome, Tracker

__all__ = ["Outcome", "Tracker", "holdout_figures", "open", "step_figures"]


def open(context: Context, description: Prepared, resumed_step: int) -> Tracker:  # noqa: A001 - as in tracking.open
    """Return where to log to. It never raises and never makes training wait.

    `resumed_step` is the checkpoint that this attempt resumes from, 0 for none: what an earlier attempt logged of later
    steps is replaced.
    """
    plan = context.plan
    files = TensorBoardFiles(
        context.store,
        context.layout.run(description.run_id),
        context.scratch / "tensorboard",
        attempt=context.attempt,
        resumed_step=resumed_step,
        upload_seconds=plan.training.checkpoint_seconds,
    )
    if plan.mlflow is None:
        return Tracker([files], resumed_step)
    return Tracker([files, MLflowRun(plan, description)], resumed_step)


def step_figures(entry: Mapping[str, Any], tokens_per_second: float | None) -> dict[str, float]:
    """Return the metrics of one optimizer step, from the trainer's log entry."""
    found = {
        "train/loss": entry.get("loss"),
        "train/grad_norm": entry.get("grad_norm"),
        "train/learning_rate": entry.get("learning_rate"),
        "train/tokens_per_second": tokens_per_second,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def holdout_figures(loss: float, rewards: Rewards | None) -> dict[str, float]:
    """Return the metrics of one measurement on the hold-out rows."""
    found = {
        "holdout/loss": loss,
        "holdout/reward_accuracy": rewards.accuracy if rewards else None,
        "holdout/reward_margin": rewards.margin if rewards else None,
    }
    return {name: value for name, value in found.items() if value is not None}
