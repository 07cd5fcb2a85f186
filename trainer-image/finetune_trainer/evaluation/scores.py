"""How well the model does on rows by its own method's measure, row by row."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from finetune_api.plan import Plan
from finetune_trainer import methods
from finetune_trainer.evaluation.generate import autocast, row_losses
from finetune_trainer.evaluation.logits import answer_log_probability
from finetune_trainer.methods.interface import LoadedModel, Score
from finetune_trainer.methods.rows import Row, TokenSequence
from finetune_trainer.model.load import for_training


def score(
    plan: Plan,
    loaded: LoadedModel,
    rows: Sequence[Row],
    advance: Callable[[int], None],
    base: Sequence[Score] | None = None,
) -> list[Score]:
    """Return the score of each row, without padding and in evaluation mode.

    `rows` are those of the plan's method. `base` is what this function returned for the same rows before training;
    None: this is before training. `advance` is called with the percentage done.
    """
    with _evaluating(loaded):
        return methods.of(plan.training.method).score(plan, rows, _Predictions(loaded, advance), base)


class _Predictions:
    """See `methods.interface.Predictions`."""

    def __init__(self, loaded: LoadedModel, advance: Callable[[int], None]) -> None:
        self._loaded = loaded
        self._advance = advance

    def mean_losses(self, sequences: Sequence[TokenSequence]) -> list[float]:
        return row_losses(self._loaded, sequences, self._advance)

    def log_probabilities(self, answers: Sequence[Sequence[tuple[list[int], list[int]]]]) -> list[tuple[float, ...]]:
        import torch

        loaded = self._loaded
        for_training(loaded.model)
        loaded.model.eval()
        found = []
        with torch.no_grad(), autocast(loaded):
            for done, pairs in enumerate(answers, 1):
                found.append(tuple(answer_log_probability(loaded, prompt, answer) for prompt, answer in pairs))
                self._advance(100 * done // len(answers))
        return found


@contextmanager
def _evaluating(loaded: LoadedModel) -> Iterator[None]:
    """Leave the model's mode as it was."""
    training = loaded.model.training
    try:
        yield
    finally:
        loaded.model.train(training)
