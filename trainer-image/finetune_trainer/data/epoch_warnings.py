"""Warnings about epochs, steps and warm-up."""

from finetune_api.plan import TrainingPlan
from finetune_trainer.data import length
from finetune_trainer.methods.common_settings import LONGEST_WARMUP

_MANY_EPOCHS = 4


def epochs_planned(rows: int, batch_size: int, total_steps: int) -> float:
    """Return how many times each training row is seen."""
    return total_steps * batch_size / rows


def warnings(rows: int, total_steps: int, training: TrainingPlan) -> list[str]:
    """Return warnings about what the job sets, each of which starts with its CamelCase reason.

    `training` is as the plan has it: what the trainer chose itself is no fault of the job. `rows`: the number of
    training rows.
    """
    found = [] if length.is_left_out(training) else _length(rows, total_steps, training)
    return found + _warmup(total_steps, training)


def _length(rows: int, total_steps: int, training: TrainingPlan) -> list[str]:
    seen = total_steps * training.batch_size
    epochs = epochs_planned(rows, training.batch_size, total_steps)
    found = []
    if seen < rows:
        found.append(
            f"DatasetPartlySeen: {seen:,} of {rows:,} rows are used; raise training.maxSteps or set training.epochs"
        )
    if epochs > _MANY_EPOCHS:
        found.append(
            f"ManyEpochs: each row is seen {epochs:.1f} times, which invites memorizing; "
            "lower training.maxSteps or epochs, or add examples"
        )
    return found


def _warmup(total_steps: int, training: TrainingPlan) -> list[str]:
    if training.warmup_ratio is not None:
        if training.warmup_ratio <= LONGEST_WARMUP:
            return []
        return [
            f"WarmupTooLong: the learning rate rises for {training.warmup_ratio:.0%} of the steps; "
            f"lower training.warmupRatio to {LONGEST_WARMUP} or less"
        ]
    if training.warmup_steps is None or training.warmup_steps <= LONGEST_WARMUP * total_steps:
        return []
    return [
        f"WarmupTooLong: the learning rate rises for {min(training.warmup_steps, total_steps)} of {total_steps} "
        f"steps; lower training.warmupSteps to {int(LONGEST_WARMUP * total_steps)} or less"
    ]
