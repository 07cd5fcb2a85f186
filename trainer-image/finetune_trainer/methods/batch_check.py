"""What the collated batches of the first optimizer step are compared with."""

from collections.abc import Iterator, Sequence
from typing import Any

from finetune_trainer.errors import GuardError
from finetune_trainer.methods.rows import TokenSequence

IGNORED = -100


def of_step(trainer: Any, rows_in_step: int) -> Iterator[Any]:
    """Yield the collated micro-batches of the first optimizer step."""
    micro, accumulation = trainer.args.per_device_train_batch_size, trainer.args.gradient_accumulation_steps
    batches = iter(trainer.get_train_dataloader())
    for _ in range(min(accumulation, -(-rows_in_step // micro))):
        yield next(batches)


def check_count(seen: int, wanted: int) -> None:
    """Check that no row was dropped.

    Raises:
        GuardError: one was.
    """
    if seen != wanted:
        raise GuardError(f"the first step has {seen} rows instead of {wanted}")


def check_sequence(wanted: TokenSequence, ids: Sequence[int], labels: Sequence[int]) -> None:
    """Check that one padded sequence is the wanted one, and that nothing else is learned.

    `labels` is IGNORED where nothing is learned.

    Raises:
        GuardError: it is not.
    """
    learned = [token if mask else IGNORED for token, mask in zip(wanted.input_ids, wanted.completion_mask, strict=True)]
    end = wanted.length
    if list(ids[:end]) != wanted.input_ids:
        raise GuardError(f"row {wanted.row_id} reaches the model changed")
    # The first label is never predicted, and a collator may mask it.
    if list(labels[1:end]) != learned[1:]:
        raise GuardError(f"row {wanted.row_id} is learned at other tokens than prepare chose")
    if any(label != IGNORED for label in labels[end:]):
        raise GuardError(f"row {wanted.row_id}: padding would be learned")


def labels_of(ids: Any, mask: Any) -> list[list[int]]:
    """Return the labels that a batch's ids and completion mask mean."""
    found: list[list[int]] = ids.masked_fill(mask == 0, IGNORED).tolist()
    return found
