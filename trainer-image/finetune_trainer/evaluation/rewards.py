"""How well a model prefers good answers to bad ones on the hold-out rows of DPO, ORPO and KTO."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_trainer.methods.interface import Score


@dataclass(frozen=True)
class Rewards:
    """`accuracy`: share of the rows that are judged rightly. `margin`: mean reward of good answers less that of bad."""

    accuracy: float
    margin: float | None


def rewards(scores: Sequence[Score]) -> Rewards | None:
    """Summarize; None if the method knows no rewards.

    A row with both answers is judged rightly if the good one has the higher reward; a row of KTO, which has one, if
    the reward is above 0 for a good answer and below 0 for a bad one.
    """
    good = [s.good_reward for s in scores if s.good_reward is not None]
    bad = [s.bad_reward for s in scores if s.bad_reward is not None]
    if not good and not bad:
        return None
    right = sum((s.good_reward or 0.0) > (s.bad_reward or 0.0) for s in scores)
    margin = statistics.fmean(good) - statistics.fmean(bad) if good and bad else None
    return Rewards(right / len(scores), margin)
