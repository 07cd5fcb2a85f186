"""Divides the examples of an optimizer step among the processes that train together, one per GPU."""

from finetune_api.training_spec import Method


def process_batch_size(batch_size: int, processes: int) -> int:
    """Return the number of examples of an optimizer step per process: its part of `training.batchSize`."""
    return batch_size // processes


def refusal(method: Method, batch_size: int, micro_batch_size: int | None, processes: int) -> str | None:
    """Return why a job cannot be trained by this many processes and what to change, or None if it can.

    Every step must be divided exactly, so that the result is that of one process.
    """
    if processes == 1:
        return None
    if method != "SFT":
        return f"spec.training.method {method} trains on one GPU, and this job asks for {processes}"
    if batch_size % processes:
        return (
            f"spec.training.batchSize is {batch_size} and cannot be divided over {processes} GPUs; "
            f"choose a multiple of {processes}"
        )
    each = process_batch_size(batch_size, processes)
    if micro_batch_size is not None and each % micro_batch_size:
        return (
            f"spec.training.microBatchSize is {micro_batch_size} and does not divide {each}, which is each GPU's share "
            f"of spec.training.batchSize {batch_size} over {processes} GPUs; leave it out, or choose a "
            f"divisor of {each}"
        )
    return None
