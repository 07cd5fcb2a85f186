"""How long training lasts if the job sets neither `training.maxSteps` nor `training.epochs`.

A method that learns answers gets three passes over the rows. With few rows, that would be too few steps for the
optimizer: 60 are those of the well-known notebook recipe. With many, more than 600 steps add little but hours; but each
of up to 20,000 rows is used once. Preference methods overfit within a pass or two: they get one.
"""

from finetune_api.plan import TrainingPlan
from finetune_api.training_spec import FEWEST_STEPS, MOST_ROWS_SEEN_ONCE, MOST_STEPS_IN_EPOCHS, USUAL_EPOCHS
from finetune_trainer import methods
from finetune_trainer.data import step_order
from finetune_trainer.methods.common_settings import warmup_steps


def is_left_out(training: TrainingPlan) -> bool:
    """Return whether the job leaves the length to the trainer."""
    return training.max_steps is None and training.epochs is None


def total_steps(training: TrainingPlan, rows: int) -> int:
    """Return the number of optimizer steps for so many training rows."""
    size = training.batch_size
    if not is_left_out(training):
        return step_order.total_steps(rows, size, max_steps=training.max_steps, epochs=training.epochs)
    if not methods.of(training.method).gains_from_passes:
        return _steps(rows, size)
    passes = min(_steps(USUAL_EPOCHS * rows, size), MOST_STEPS_IN_EPOCHS)
    return max(FEWEST_STEPS, passes, _steps(min(rows, MOST_ROWS_SEEN_ONCE), size))


def resolved(training: TrainingPlan, total_steps: int) -> TrainingPlan:
    """Return the settings with the length and the warm-up as numbers; what the job sets stays.

    `total_steps` is that of the function of this name, which prepare keeps.
    """
    found: dict[str, int] = {}
    if is_left_out(training):
        # A pass in epochs ends with the last row; in steps, the last step would be filled up with rows of the next.
        in_passes = methods.of(training.method).gains_from_passes
        found = {"max_steps": total_steps} if in_passes else {"epochs": 1}
    if training.warmup_ratio is None:
        found["warmup_steps"] = warmup_steps(training, total_steps)
    return training.model_copy(update=found)


def _steps(rows: int, batch_size: int) -> int:
    return -(-rows // batch_size)
