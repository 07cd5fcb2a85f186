"""How well the model does on rows by its own method's measure, row by row."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from finetune_api.plan import Plan, PreferencePlan
from finetune_trainer.evaluation.generate import autocast, row_losses
from finetune_trainer.evaluation.logits import answer_log_probability
from finetune_trainer.methods.interface import LoadedModel
from finetune_trainer.methods.rows import BinaryRow, PreferenceRow
from finetune_trainer.model.load import for_training


@dataclass(frozen=True)
class Score:
    """One row's figures.

    `loss` is the method's own; for SFT the mean over the row's supervised tokens, in nats. A reward is, for DPO and
    KTO, beta times how much likelier the answer became (the log-probability less that before training), and for ORPO
    beta times the log odds of an average token. A row of KTO has the one that fits its label.
    """

    loss: float
    good_reward: float | None = None
    bad_reward: float | None = None
    # Sums of the log-probabilities of the tokens of each answer, in nats: what later scores are compared with.
    log_probabilities: tuple[float, ...] = ()


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
    method = plan.training.method
    with _evaluating(loaded):
        if method == "SFT":
            losses = row_losses(loaded, rows, advance)
            return [Score(loss) for loss in losses]
        if method == "KTO":
            sums = _sums(loaded, [_answers_of_binary(rows, i) for i in range(len(rows))], advance)
        else:
            sums = _sums(loaded, [_answers_of_pair(row) for row in rows], advance)
    settings = plan.training.preference
    assert settings is not None
    if method == "ORPO":
        return [orpo(row, found, settings.beta) for row, found in zip(rows, sums, strict=True)]
    before = sums if base is None else [known.log_probabilities for known in base]
    if method == "DPO":
        return [dpo(found, was, settings.beta) for found, was in zip(sums, before, strict=True)]
    return kto(rows, sums, before, settings)


def dpo(found: Sequence[float], before: Sequence[float], beta: float) -> Score:
    """Return the score of one pair: equation 7 of arXiv:2305.18290. `found`: chosen, rejected."""
    good, bad = (beta * (now - was) for now, was in zip(found, before, strict=True))
    return Score(-_log_sigmoid(good - bad), good, bad, tuple(found))


def orpo(row: PreferenceRow, found: Sequence[float], beta: float) -> Score:
    """Return the score of one pair: equations 6 and 7 of arXiv:2403.07691. `found`: chosen, rejected."""
    chosen, rejected = found[0] / len(row.chosen_ids), found[1] / len(row.rejected_ids)
    good, bad = _log_odds(chosen), _log_odds(rejected)
    return Score(-chosen - beta * _log_sigmoid(good - bad), beta * good, beta * bad, tuple(found))


def kto(
    rows: Sequence[BinaryRow],
    sums: Sequence[Sequence[float]],
    before: Sequence[Sequence[float]],
    settings: PreferencePlan,
) -> list[Score]:
    """Return the score of each row: the loss of arXiv:2402.01306, its KL term over all rows.

    `sums`: of each row's own answer, and of the answer of the row before it.
    """
    drift = [now[1] - was[1] for now, was in zip(sums, before, strict=True)]
    divergence = max(0.0, sum(drift) / len(drift)) if drift else 0.0
    beta = settings.beta
    scores = []
    for row, now, was in zip(rows, sums, before, strict=True):
        ratio = now[0] - was[0]
        reward = beta * ratio
        if row.label:
            loss = settings.desirable_weight * _sigmoid(beta * (divergence - ratio))
            scores.append(Score(loss, good_reward=reward, log_probabilities=tuple(now)))
        else:
            loss = settings.undesirable_weight * _sigmoid(beta * (ratio - divergence))
            scores.append(Score(loss, bad_reward=reward, log_probabilities=tuple(now)))
    return scores


def _answers_of_pair(row: PreferenceRow) -> list[tuple[list[int], list[int]]]:
    return [(row.prompt_ids, row.chosen_ids), (row.prompt_ids, row.rejected_ids)]


def _answers_of_binary(rows: Sequence[BinaryRow], index: int) -> list[tuple[list[int], list[int]]]:
    prompt = rows[index].prompt_ids
    return [(prompt, rows[index].completion_ids), (prompt, rows[index - 1].completion_ids)]


def _sums(
    loaded: LoadedModel,
    answers: Sequence[Sequence[tuple[list[int], list[int]]]],
    advance: Callable[[int], None],
) -> list[tuple[float, ...]]:
    import torch

    for_training(loaded.model)
    loaded.model.eval()
    found = []
    with torch.no_grad(), autocast(loaded):
        for done, pairs in enumerate(answers):
            found.append(tuple(answer_log_probability(loaded, prompt, answer) for prompt, answer in pairs))
            advance(100 * (done + 1) // len(answers))
    return found


def _log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value)) if value >= 0 else value - math.log1p(math.exp(value))


def _sigmoid(value: float) -> float:
    return math.exp(_log_sigmoid(value))


def _log_odds(log_probability: float) -> float:
    """Return log(p / (1 - p)); a probability that rounds to 1 counts as the largest number below it."""
    log_probability = min(log_probability, -1e-12)
    return log_probability - math.log(-math.expm1(log_probability))


@contextmanager
def _evaluating(loaded: LoadedModel) -> Iterator[None]:
    """Leave the model's mode as it was."""
    training = loaded.model.training
    try:
        yield
    finally:
        loaded.model.train(training)
