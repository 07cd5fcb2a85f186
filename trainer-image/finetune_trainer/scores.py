"""How well the model does on rows by its own method's measure, row by row."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from finetune_api.plan import Plan
from finetune_trainer.evaluate import row_losses
from finetune_trainer.load_model import LoadedModel


@dataclass(frozen=True)
class Score:
    """One row's figures.

    `loss` is the method's own; for SFT the mean over the row's supervised tokens, in nats. `weight` is what the row
    counts in a mean: its supervised tokens for SFT, otherwise 1.
    """

    loss: float
    weight: int
    # Of DPO, ORPO and KTO. A row of KTO has the one that fits its label.
    good_reward: float | None = None
    bad_reward: float | None = None


def score(
    plan: Plan,
    loaded: LoadedModel,
    rows: Sequence[Any],
    advance: Callable[[int], None],
    base: Sequence[Score] | None = None,
) -> list[Score]:
    """Return the score of each row, without padding and in evaluation mode.

    `rows` are the method's own of `training_rows`. `base` is what this function returned for the same rows before
    training; None: this is before training. `advance` is called with the percentage done.
    """
    with _evaluating(loaded):
        losses = row_losses(loaded, rows, advance)
    return [Score(loss, row.supervised) for loss, row in zip(losses, rows, strict=True)]


@contextmanager
def _evaluating(loaded: LoadedModel) -> Iterator[None]:
    """Leave the model's mode as it was."""
    training = loaded.model.training
    try:
        yield
    finally:
        loaded.model.train(training)
