"""What the trained model predicts on a few hold-out rows: export compares every GGUF with it."""

from collections.abc import Sequence

from finetune_api.base import Model
from finetune_trainer.evaluate import autocast
from finetune_trainer.forward import logits_returned
from finetune_trainer.load_model import LoadedModel, for_training
from finetune_trainer.training_rows import SFTRow

NAME = "reference.json"
_ROWS = 16
# Longer rows cost memory in export: tokens times vocabulary times four bytes.
_LONGEST = 1024


class ReferenceRow(Model):
    """One hold-out row, and what the model makes of its supervised tokens."""

    row_id: int
    input_ids: list[int]
    completion_mask: list[int]
    # Mean negative log-likelihood of the supervised tokens, in nats.
    nll_base: float
    nll_tuned: float
    # The tuned model's most likely token for each supervised one.
    top1: list[int]


class Prompt(Model):
    """A rendered question and the ids that it was answered from."""

    text: str
    input_ids: list[int]


class Reference(Model):
    """`prepared/reference.json`."""

    prompts: list[Prompt]
    rows: list[ReferenceRow]


def choose(rows: Sequence[SFTRow]) -> list[int]:
    """Return which rows to compare: the first ones that are not long, or the shortest if all are."""
    usable = [i for i, row in enumerate(rows) if row.supervised]
    short = [i for i in usable if len(rows[i].input_ids) <= _LONGEST]
    return short[:_ROWS] if short else sorted(usable, key=lambda i: len(rows[i].input_ids))[:1]


def top1(loaded: LoadedModel, rows: Sequence[SFTRow]) -> list[list[int]]:
    """Return the most likely token at each supervised position of each row."""
    import torch

    for_training(loaded.model)
    loaded.model.eval()
    device = next(loaded.model.parameters()).device
    found = []
    with torch.no_grad(), autocast(loaded), logits_returned():
        for row in rows:
            logits = loaded.model(input_ids=torch.tensor([row.input_ids], device=device)).logits[0]
            best = logits.argmax(dim=-1).tolist()
            found.append([best[i - 1] for i in range(1, len(row.input_ids)) if row.completion_mask[i]])
    return found
