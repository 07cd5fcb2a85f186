"""Warnings about epochs, steps and warm-up."""

from finetune_api.plan import TrainingPlan

_MANY_EPOCHS = 4
# A larger share of steps with a rising learning rate leaves little real training.
_LONG_WARMUP = 0.2


def epochs_planned(rows: int, batch_size: int, total_steps: int) -> float:
    """Return how many times each training row is seen."""
    return total_steps * batch_size / rows


def warnings(rows: int, total_steps: int, training: TrainingPlan) -> list[str]:
    """Return warnings, each of which starts with its CamelCase reason. `rows`: the number of training rows."""
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
    if training.warmup_ratio is not None:
        if training.warmup_ratio > _LONG_WARMUP:
            found.append(
                f"WarmupTooLong: the learning rate rises for {training.warmup_ratio:.0%} of the steps; "
                f"lower training.warmupRatio to {_LONG_WARMUP} or less"
            )
    elif training.warmup_steps > _LONG_WARMUP * total_steps:
        found.append(
            f"WarmupTooLong: the learning rate rises for {min(training.warmup_steps, total_steps)} of {total_steps} "
            f"steps; lower training.warmupSteps to {int(_LONG_WARMUP * total_steps)} or less"
        )
    return found
