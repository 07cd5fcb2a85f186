"""Generates answers, and measures how well the model predicts hold-out rows."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_trainer.gpu import device as gpu_device
from finetune_trainer.gpu.precision import dtype
from finetune_trainer.methods.interface import LoadedModel
from finetune_trainer.methods.rows import TokenSequence
from finetune_trainer.model.load import for_inference, for_training

_ANSWERS_AT_ONCE = 8


@dataclass(frozen=True)
class Answer:
    """`stopped`: it ended with a stop token, not at the limit."""

    text: str
    stopped: bool


def autocast(loaded: LoadedModel) -> contextlib.AbstractContextManager[Any]:
    """Compute in the precision of training."""
    import torch

    if loaded.precision == "fp32":
        return contextlib.nullcontext()
    manager: contextlib.AbstractContextManager[Any] = torch.autocast("cuda", dtype=dtype(loaded.precision))
    return manager


def row_losses(loaded: LoadedModel, rows: Sequence[TokenSequence], advance: Callable[[int], None]) -> list[float]:
    """Return each row's mean negative log-likelihood over its supervised tokens, in nats; 0 if it has none.

    One row at a time: without padding, the loss does not depend on which rows share a batch. `advance` is called with
    the percentage done.
    """
    import torch

    for_training(loaded.model)
    loaded.model.eval()
    device = next(loaded.model.parameters()).device
    losses = []
    with torch.no_grad(), autocast(loaded):
        for done, row in enumerate(rows):
            loss = 0.0
            if row.supervised:
                ids = torch.tensor([row.input_ids], device=device)
                mask = torch.tensor([row.completion_mask], device=device)
                loss = float(loaded.model(input_ids=ids, labels=ids.masked_fill(mask == 0, -100)).loss)
            losses.append(loss)
            advance(100 * (done + 1) // len(rows))
    return losses


def answers(
    loaded: LoadedModel,
    prompts: Sequence[Sequence[int]],
    stop_token_ids: Sequence[int],
    max_new_tokens: int,
    advance: Callable[[int], None],
) -> list[Answer]:
    """Return the greedy answer to each tokenized prompt, up to its first stop token.

    If GPU memory runs out, fewer prompts are answered at once: training needs less memory per row and may still fit.
    """
    import torch

    if not prompts:
        return []
    for_inference(loaded.model)
    found: list[Answer] = []
    at_once = _ANSWERS_AT_ONCE
    with torch.no_grad(), autocast(loaded):
        while len(found) < len(prompts):
            batch = prompts[len(found) : len(found) + at_once]
            generated = _generate(loaded, batch, stop_token_ids, max_new_tokens)
            if generated is None:
                at_once = len(batch) // 2
                torch.cuda.empty_cache()
                continue
            for ids in generated:
                text = until_stop(loaded.tokenizer, ids, stop_token_ids)
                found.append(Answer(text, any(token in stop_token_ids for token in ids)))
            advance(100 * len(found) // len(prompts))
    for_training(loaded.model)
    return found


def _generate(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]], stop_token_ids: Sequence[int], max_new_tokens: int
) -> list[list[int]] | None:
    """Return the new tokens of each prompt, or None if GPU memory ran out and fewer prompts may fit."""
    import torch

    device = next(loaded.model.parameters()).device
    pad = loaded.tokenizer.pad_token_id if loaded.tokenizer.pad_token_id is not None else stop_token_ids[0]
    width = max(len(p) for p in prompts)
    # Generation continues on the right, so the padding is on the left.
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    try:
        output = loaded.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=list(stop_token_ids),
            pad_token_id=pad,
            use_cache=True,
        )
    except RuntimeError as error:
        if len(prompts) == 1 or not gpu_device.ran_out(error):
            raise
        return None
    return [row[width:].tolist() for row in output]


def until_stop(tokenizer: Any, ids: Sequence[int], stop_token_ids: Sequence[int]) -> str:
    """Return the text of the tokens before the first stop token, without an incomplete character at its end."""
    end = next((i for i, token in enumerate(ids) if token in stop_token_ids), len(ids))
    return str(tokenizer.decode(list(ids[:end]), skip_special_tokens=True)).rstrip("\ufffd").strip()
