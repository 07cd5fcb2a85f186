"""Each process's share of the rows of a step."""

from collections.abc import Sequence
from typing import Any

from finetune_api.plan import Plan
from finetune_trainer import methods
from finetune_trainer.train.ranks.ranks import Ranks


def filled(
    rows: Sequence[Any], steps: Sequence[Sequence[int]], plan: Plan, ranks: Ranks
) -> tuple[Sequence[Any], list[list[int]]]:
    """Return rows and steps with every step of full size.

    The last step of a run in epochs may be shorter, and every process needs its part of it: it is filled up with a row
    that teaches nothing. The loss is a mean over the learned tokens, so it stays the same.
    """
    whole = plan.training.batch_size
    if ranks.alone or all(len(step) == whole for step in steps):
        return rows, [list(step) for step in steps]
    nothing = methods.of(plan.training.method).filler(rows[0])
    return [*rows, nothing], [[*step, *[len(rows)] * (whole - len(step))] for step in steps]


def part(step: Sequence[int], micro_batch_size: int, ranks: Ranks) -> list[int]:
    """Return the rows that one process learns of a whole step: accelerate hands out the micro-batches in turn."""
    starts = range(ranks.rank * micro_batch_size, len(step), ranks.size * micro_batch_size)
    return [index for start in starts for index in step[start : start + micro_batch_size]]
