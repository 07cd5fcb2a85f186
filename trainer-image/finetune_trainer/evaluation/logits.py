"""One forward pass that returns its logits."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from finetune_trainer.methods.interface import LoadedModel

# Positions whose probabilities are computed at once: in 32 bit, a whole long row would take gigabytes.
POSITIONS_AT_ONCE = 256


@contextmanager
def logits_returned() -> Iterator[None]:
    """Make Unsloth return the logits, which it leaves out by default."""
    name = "UNSLOTH_RETURN_LOGITS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def answer_log_probability(loaded: LoadedModel, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Return the sum of the answer's token log-probabilities after the prompt, in nats. Call without gradients."""
    import torch

    device = next(loaded.model.parameters()).device
    ids = torch.tensor([[*prompt, *answer]], device=device)
    # Position i - 1 predicts the token at i; nothing predicts the first one.
    first = max(1, len(prompt))
    with logits_returned():
        logits = loaded.model(input_ids=ids).logits[0, first - 1 : -1]
    wanted = ids[0, first:]
    total = 0.0
    for start in range(0, len(wanted), POSITIONS_AT_ONCE):
        part = slice(start, start + POSITIONS_AT_ONCE)
        scores = logits[part].float()
        total += float((scores.gather(1, wanted[part, None])[:, 0] - scores.logsumexp(dim=1)).sum())
    return total
