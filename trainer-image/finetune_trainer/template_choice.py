"""Chooses the template: a chat template is of use only to weights that were trained with its control tokens."""

from collections.abc import Mapping
from typing import Any, Literal

from finetune_trainer.data.example import Message
from finetune_trainer.data.template import Template, encode, jinja, render
from finetune_trainer.errors import ModelError
from finetune_trainer.model_files import ModelFiles
from finetune_trainer.safetensors_header import Tensor, read_rows

# Base models leave the rows of tokens that they never saw at zero, or all at one and the same value.
_NEAR_ZERO = 1e-16
_OTHERS_COMPARED = 32
_MATRICES = ("embed_tokens.weight", "wte.weight", "lm_head.weight")


def choose(
    wanted: Literal["Auto", "Model", "Alpaca"],
    tokenizer: Any,
    model: ModelFiles,
    tensors: Mapping[str, Tensor],
    reference: str,
) -> Template:
    """Return the template to use.

    Raises:
        ModelError: `Model` is wanted and the model has no chat template, or its weights do not know its tokens.
    """
    if wanted == "Alpaca" or (wanted == "Auto" and not tokenizer.chat_template):
        return "Alpaca"
    jinja(tokenizer, "Model")
    unknown = untrained_tokens(tokenizer, model, tensors)
    if not unknown:
        return "Model"
    if wanted == "Auto":
        return "Alpaca"
    raise ModelError(
        f"{reference} is a base model: its weights were never trained on {', '.join(unknown)} of its chat template; "
        "set dataset.promptTemplate to Alpaca or use the -Instruct repository"
    )


def untrained_tokens(tokenizer: Any, model: ModelFiles, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the control tokens of the chat template whose rows in the weights are zero or the same as others'."""
    control = control_tokens(tokenizer)
    others = [i for i, t in tokenizer.added_tokens_decoder.items() if t.special and i not in control]
    compared = [*sorted(control), *others[-_OTHERS_COMPARED:]]
    unknown: set[int] = set()
    for tensor in tensors.values():
        if not tensor.name.endswith(_MATRICES) or len(tensor.shape) != 2:
            continue
        ids = [i for i in compared if i < tensor.shape[0]]
        rows = read_rows(model, tensor, ids)
        unknown.update(
            i
            for i, row in zip(ids, rows, strict=True)
            if i in control and (_is_zero(row, tensor) or rows.count(row) > 1)
        )
    return [str(tokenizer.convert_ids_to_tokens(i)) for i in sorted(unknown)]


def control_tokens(tokenizer: Any) -> set[int]:
    """Return the ids of the control tokens that the chat template writes around a question and an answer."""
    messages: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    return special.intersection(encode(tokenizer, render(tokenizer, "Model", messages, generate=False)))


def _is_zero(row: bytes, tensor: Tensor) -> bool:
    import numpy as np

    if tensor.dtype == "BF16":
        values = (np.frombuffer(row, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(row, {"F16": np.float16, "F32": np.float32}[tensor.dtype])
    return bool(np.abs(values).max() <= _NEAR_ZERO)
