"""What the trained model predicts on a few hold-out rows: export compares every GGUF with it."""

from collections.abc import Sequence
from typing import Any

from finetune_api.base import Model
from finetune_trainer.evaluate import autocast
from finetune_trainer.forward import logits_returned
from finetune_trainer.load_model import LoadedModel, for_training
from finetune_trainer.training_rows import BinaryRow, PreferenceRow, SFTRow

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


def choose(rows: Sequence[Any]) -> list[SFTRow]:
    """Return what to compare on: the good answers of the first rows that are not long, or of the shortest if all are.

    `rows` are the method's own of `training_rows`. A bad answer is nothing that a tuned model is sure of.
    """
    usable = [good for row in rows if (good := _good_answer(row)) is not None and good.supervised]
    short = [row for row in usable if row.length <= _LONGEST]
    return short[:_ROWS] if short else sorted(usable, key=lambda row: row.length)[:1]


def _good_answer(row: Any) -> SFTRow | None:
    if isinstance(row, PreferenceRow):
        return _row(row.row_id, row.prompt_ids, row.chosen_ids)
    if isinstance(row, BinaryRow):
        return _row(row.row_id, row.prompt_ids, row.completion_ids) if row.label else None
    assert isinstance(row, SFTRow)
    return row


def _row(row_id: int, prompt: list[int], answer: list[int]) -> SFTRow:
    return SFTRow(row_id, [*prompt, *answer], [0] * len(prompt) + [1] * len(answer))


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
