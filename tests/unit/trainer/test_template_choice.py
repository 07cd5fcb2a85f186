"""Base or instruct: a chat template is used only where the weights know its tokens."""

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.data.template import Template
from finetune_trainer.folder_model import FolderModel
from finetune_trainer.model_files import is_weights
from finetune_trainer.safetensors_header import read_tensors
from finetune_trainer.template_choice import choose, control_tokens, untrained_tokens
from tests.support import tiny_model


def _files(folder: Path) -> tuple[FolderModel, Any]:
    model = FolderModel(folder, lambda done, total: None)
    return model, read_tensors(model, [f for f in model.listing().files if is_weights(f)])


def _rewrite_embeddings(folder: Path, dtype: str, change: Any) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    embeddings = tensors["model.embed_tokens.weight"].to(getattr(torch, dtype))
    change(embeddings)
    tensors["model.embed_tokens.weight"] = embeddings
    save_file(tensors, folder / "model.safetensors")


def test_trained_tokens_keep_the_chat_template(tokenizer: Any, tiny: Path) -> None:
    model, tensors = _files(tiny)
    assert untrained_tokens(tokenizer, model, tensors) == []
    assert choose("Auto", tokenizer, model, tensors, "tiny") == "Model"


@pytest.mark.parametrize(("wanted", "expected"), [("Auto", "Alpaca"), ("Alpaca", "Alpaca")])
def test_base_model_gets_alpaca(tokenizer: Any, tmp_path: Path, wanted: Any, expected: Template) -> None:
    model, tensors = _files(tiny_model.build(tmp_path / "base", untrained=(2,)))
    assert untrained_tokens(tokenizer, model, tensors) == ["<|im_end|>"]
    assert choose(wanted, tokenizer, model, tensors, "base") == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_zero_rows_are_seen_in_every_precision(tokenizer: Any, tmp_path: Path, dtype: str) -> None:
    folder = tiny_model.build(tmp_path / "base")

    def clear(embeddings: Any) -> None:
        embeddings[1] = 0

    _rewrite_embeddings(folder, dtype, clear)
    assert untrained_tokens(tokenizer, *_files(folder)) == ["<|im_start|>"]


def test_rows_that_are_all_the_same_were_not_trained(tokenizer: Any, tmp_path: Path) -> None:
    folder = tiny_model.build(tmp_path / "base")

    def repeat(embeddings: Any) -> None:
        embeddings[2] = embeddings[16]  # a token that no template writes

    _rewrite_embeddings(folder, "float16", repeat)
    assert untrained_tokens(tokenizer, *_files(folder)) == ["<|im_end|>"]


def test_control_tokens_are_those_that_the_template_writes(tokenizer: Any) -> None:
    assert control_tokens(tokenizer) == {1, 2}
