"""Chooses the template: a chat template works only if the weights were trained with its control tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.plan import DatasetPlan
from finetune_trainer.data.rows.example import Message
from finetune_trainer.data.tokens import template_kwargs
from finetune_trainer.data.tokens.chat_template import (
    ALPACA_JINJA,
    ChatTemplate,
    RenderError,
    encode,
    own_jinja,
    render,
    with_date,
)
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.model.safetensors_header import Tensor, read_rows
from finetune_trainer.sources.model_files import ModelFiles

# In base models, the rows of tokens that were never trained are zero, or all have the same value.
_NEAR_ZERO = 1e-16
_OTHERS_COMPARED = 32
_MATRICES = ("embed_tokens.weight", "wte.weight", "lm_head.weight")
_FLOATS = ("BF16", "F16", "F32")

# Puts a system message at the beginning of the first question, as Google's documentation of Gemma recommends
# (https://ai.google.dev/gemma/docs/core/prompt-structure) and Gemma 3's own template does.
FOLD_SYSTEM = (
    "{% if messages|length > 1 and messages[0]['role'] == 'system' %}"
    "{% set messages = [{'role': 'user', 'content': messages[0]['content'] + '\n\n' + messages[1]['content']}]"
    " + messages[2:] %}{% endif %}"
)


@dataclass(frozen=True)
class Weights:
    """The pinned weights, from which single rows are read."""

    model: ModelFiles
    tensors: Mapping[str, Tensor]


def choose(dataset: DatasetPlan, tokenizer: Any, weights: Weights | None, reference: str) -> ChatTemplate:
    """Return the template to use; without `weights`, all tokens count as trained.

    Raises:
        ModelError: the template is missing, does not work, or the weights were not trained with its tokens.
        SettingsError: the job's own template or values do not work.
    """
    if dataset.template_file is not None:
        return _custom(Path(dataset.template_file), dataset, tokenizer, weights, reference)
    wanted, own = dataset.prompt_template, own_jinja(tokenizer)
    if wanted == "Alpaca" or (wanted == "Auto" and own is None):
        return _alpaca(dataset)
    if own is None:
        raise ModelError(
            "the model's tokenizer has no chat template, as is usual for base models; "
            "set dataset.promptTemplate to Alpaca or use the -Instruct repository"
        )
    model = ChatTemplate("Model", own)
    unknown = _untrained(tokenizer, model, weights)
    if unknown and wanted == "Auto":
        return _alpaca(dataset)
    if unknown:
        raise ModelError(
            f"{reference} is a base model: its weights were never trained on {', '.join(unknown)} of its chat "
            "template; set dataset.promptTemplate to Alpaca or use the -Instruct repository"
        )
    return ChatTemplate(
        "Model", template_kwargs.write_into(with_date(_with_system(tokenizer, own)), dataset.chat_template_kwargs)
    )


def _alpaca(dataset: DatasetPlan) -> ChatTemplate:
    if dataset.chat_template_kwargs:
        raise SettingsError(
            "dataset.chatTemplateKwargs is set, but the Alpaca template, which is used here, has no such values; "
            "remove it or set dataset.promptTemplate to Model"
        )
    return ChatTemplate("Alpaca", ALPACA_JINJA)


def _custom(path: Path, dataset: DatasetPlan, tokenizer: Any, weights: Weights | None, reference: str) -> ChatTemplate:
    jinja = _read(path)
    template = ChatTemplate("Custom", template_kwargs.write_into(with_date(jinja), dataset.chat_template_kwargs))
    if unknown := _untrained(tokenizer, template, weights):
        raise ModelError(
            f"{reference} was never trained on {', '.join(unknown)}, which the chat template of dataset.templateRef "
            "writes; write other text there, set dataset.promptTemplate to Alpaca instead, or use the -Instruct "
            "repository"
        )
    return template


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(f"dataset.templateRef: there is no file {path}; correct its name or key") from None
    except UnicodeDecodeError:
        raise SettingsError(f"dataset.templateRef: {path.name} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"dataset.templateRef: {path} cannot be read: {error.strerror}; correct its key") from error
    if not text.strip():
        raise SettingsError(f"dataset.templateRef: {path.name} is empty; write a chat template (Jinja) into it")
    return text


def _with_system(tokenizer: Any, jinja: str) -> str:
    """Return the model's template, with system messages put into the first question if it does not take them."""
    folding = FOLD_SYSTEM + jinja
    return folding if not _takes_system(tokenizer, jinja) and _takes_system(tokenizer, folding) else jinja


def _takes_system(tokenizer: Any, jinja: str) -> bool:
    """Return whether a system message is rendered before a question, and stays when the conversation continues."""
    messages: list[Message] = [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": "What is a squat?"},
        {"role": "assistant", "content": "An exercise for the legs."},
        {"role": "user", "content": "And a plank?"},
        {"role": "assistant", "content": "One for the core."},
    ]
    try:
        asked = render(tokenizer, jinja, messages[:2], generate=True)
        whole = render(tokenizer, jinja, messages, generate=False)
    except RenderError:
        return False
    return "Answer briefly." in asked and whole.startswith(asked)


def _untrained(tokenizer: Any, template: ChatTemplate, weights: Weights | None) -> list[str]:
    try:
        return [] if weights is None else untrained_tokens(tokenizer, template.jinja, weights)
    except RenderError as error:
        raise template.error(error.what) from error


def untrained_tokens(tokenizer: Any, jinja: str, weights: Weights) -> list[str]:
    """Return the control tokens of a chat template whose rows in the weights are zero or the same as others'.

    Embeddings and head stay in 16 bit in repositories that are stored in 4 bit; a matrix that is packed is left out.

    Raises:
        RenderError: the template does not take a question and an answer.
    """
    control = control_tokens(tokenizer, jinja)
    others = [i for i, t in tokenizer.added_tokens_decoder.items() if t.special and i not in control]
    compared = [*sorted(control), *others[-_OTHERS_COMPARED:]]
    unknown: set[int] = set()
    for tensor in weights.tensors.values():
        if not tensor.name.endswith(_MATRICES) or len(tensor.shape) != 2 or tensor.dtype not in _FLOATS:
            continue
        ids = [i for i in compared if i < tensor.shape[0]]
        rows = read_rows(weights.model, tensor, ids)
        unknown.update(
            i
            for i, row in zip(ids, rows, strict=True)
            if i in control and (_is_zero(row, tensor) or rows.count(row) > 1)
        )
    return [str(tokenizer.convert_ids_to_tokens(i)) for i in sorted(unknown)]


def control_tokens(tokenizer: Any, jinja: str) -> set[int]:
    """Return the ids of the control tokens that a chat template writes around a question and an answer.

    Raises:
        RenderError: the template does not take them.
    """
    messages: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    whole = render(tokenizer, jinja, messages, generate=False)
    asked = render(tokenizer, jinja, messages[:1], generate=True)
    return special.intersection([*encode(tokenizer, whole), *encode(tokenizer, asked)])


def _is_zero(row: bytes, tensor: Tensor) -> bool:
    import numpy as np

    if tensor.dtype == "BF16":
        values = (np.frombuffer(row, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(row, {"F16": np.float16, "F32": np.float32}[tensor.dtype])
    return bool(np.abs(values).max() <= _NEAR_ZERO)
