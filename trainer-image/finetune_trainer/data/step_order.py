"""The rows of each optimizer step. They depend on the data alone, not on libraries, micro-batch or GPUs."""

import hashlib
from collections.abc import Iterator

from finetune_trainer.errors import GuardError


def order(seed: int, epoch: int, n: int) -> list[int]:
    """Return the rows 0..n-1 in the order of one epoch (from 0): sorted by SHA-256 of `seed:epoch:row`."""
    return sorted(range(n), key=lambda row: hashlib.sha256(f"{seed}:{epoch}:{row}".encode()).digest())


def total_steps(n: int, batch_size: int, *, max_steps: int | None = None, epochs: int | None = None) -> int:
    """Return the number of optimizer steps; exactly one of max_steps and epochs is given.

    Raises:
        GuardError: neither is given.
    """
    if max_steps is not None:
        return max_steps
    if epochs is None:
        raise GuardError("the plan has neither training.maxSteps nor training.epochs")
    return -(-n * epochs // batch_size)


def steps(
    n: int, batch_size: int, seed: int, *, max_steps: int | None = None, epochs: int | None = None
) -> Iterator[list[int]]:
    """Yield the rows of each optimizer step.

    Epochs follow each other without a gap: every step has `batch_size` rows, except the last one of a run measured in
    epochs.
    """
    total = total_steps(n, batch_size, max_steps=max_steps, epochs=epochs)
    left = total * batch_size if epochs is None else n * epochs
    epoch = 0
    waiting: list[int] = []
    for _ in range(total):
        size = min(batch_size, left)
        while len(waiting) < size:
            waiting += order(seed, epoch, n)
            epoch += 1
        yield waiting[:size]
        waiting = waiting[size:]
        left -= size
