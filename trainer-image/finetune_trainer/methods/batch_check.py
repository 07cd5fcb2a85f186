"""What the collated batches of the first optimizer step are compared with."""

from collections.abc import Iterator, Sequence
from typing import Any

IGNORED = -100


def of_step(trainer: Any, rows_in_step: int) -> Iterator[Any]:
    """Yield the collated micro-batches of the first optimizer step."""
    micro, accumulation = trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps
    batches = iter(trainer.get_train_dataloader())
    for _ in range(min(accumulation, -(-rows_in_step // micro))):
        yield next(batches)


def check_count(seen: int, wanted: int) -> None:
    """Assert that no row was dropped."""
    assert seen == wanted, f"the first step has {seen} rows instead of {wanted}"


def check_sequence(row_id: int, ids: Sequence[int], labels: Sequence[int], prompt: Sequence[int], answer: Any) -> None:
    """Assert that one padded sequence is the prompt and the answer, and that the answer alone is learned.

    `labels` is IGNORED where nothing is learned.

    Raises:
        AssertionError: it is not.
    """
    wanted = [*prompt, *answer]
    learned = [IGNORED] * len(prompt) + list(answer)
    end = len(wanted)
    assert list(ids[:end]) == wanted, f"row {row_id} reaches the model changed"
    # The first label is never predicted, and a collator may mask it.
    assert list(labels[1:end]) == learned[1:], f"row {row_id} is learned at other tokens than prepare chose"
    assert all(label == IGNORED for label in labels[end:]), f"row {row_id}: padding would be learned"


def labels_of(ids: Any, mask: Any) -> list[list[int]]:
    """Return the labels that a batch's ids and completion mask mean."""
    found: list[list[int]] = ids.masked_fill(mask == 0, IGNORED).tolist()
    return found
