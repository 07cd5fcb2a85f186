"""Each process's share of the rows of a step."""

from collections.abc import Sequence
from typing import Any

from finetune_api.plan import Plan
from finetune_trainer import methods
from finetune_trainer.train.ranks.ranks import Ranks


def filled(
    rows: Sequence[Any], steps: Sequence[Sequence[int]], plan: Plan, ranks: Ranks
) -> tuple[Sequence[Any], list[list[int]]]:
    """Return rows and steps of which every step is whole.

    The last step of a run that is measured in epochs may be shorter, and every process needs its part of it: a row that
    teaches nothing stands in for those that are missing. The loss is a mean over the tokens that are learned, so that
    it stays the same.
    """
    whole = plan.training.batch_size
    if ranks.alone or all(len(step) == whole for step in steps):
        return rows, [list(step) for step in steps]
    nothing = methods.of(plan.training.method).filler(rows[0])
    return [*rows, nothing], [[*step, *[len(rows)] * (whole - len(step))] for step in steps]


def part(step: Sequence[int], micro_batch_size: int, ranks: Ranks) -> list[int]:
    """Return what one process learns of a whole step: accelerate deals out the micro-batches in turn."""
    starts = range(ranks.rank * micro_batch_size, len(step), ranks.size * micro_batch_size)
    return [index for start in starts for index in step[start : start + micro_batch_size]]
