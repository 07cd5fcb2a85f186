"""The tensors of an F16 GGUF are the merged model's: in a known order, in an unknown one, or not at all."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_trainer.export.exact import gguf_weights
from finetune_trainer.export.rejected_file import RejectedFile
from tests.support import tiny_gguf

HEADS, HEAD, WIDTH = 4, 8, 16
Q, NORM, EMBEDDING = (
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "model.embed_tokens.weight",
)


def weights() -> dict[str, Any]:
    random = np.random.default_rng(0)
    shapes = {Q: (HEADS * HEAD, WIDTH), NORM: (WIDTH,), EMBEDDING: (40, WIDTH)}
    return {name: random.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}


def interleaved(q: Any) -> Any:
    """As llama.cpp's converter orders the rows of each head."""
    return q.reshape(HEADS, 2, HEAD // 2, WIDTH).swapaxes(1, 2).reshape(q.shape)


def in_file(model: dict[str, Any]) -> dict[str, Any]:
    return {
        "token_embd.weight": model[EMBEDDING],
        "blk.0.attn_norm.weight": model[NORM].astype(np.float32),
        "blk.0.attn_q.weight": interleaved(model[Q]),
    }


def check(folder: Path, model: dict[str, Any], tensors: dict[str, Any]) -> list[str]:
    from safetensors.numpy import save_file

    save_file(model, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": HEADS, "num_key_value_heads": 2}))
    values = {"general.architecture": "llama", "llama.block_count": 1}
    path = tiny_gguf.write(folder / "model.gguf", values, tensors)
    return gguf_weights.check(path, folder, lambda percent: None)


def test_tensors_in_llama_cpps_order_are_proven(tmp_path: Path) -> None:
    assert check(tmp_path, weights(), in_file(weights())) == []


@pytest.mark.parametrize("piece", [1, 100])
def test_pieces_make_the_same_as_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(gguf_weights, "_PIECE", piece)
    assert check(tmp_path, weights(), in_file(weights())) == []


def test_a_norm_with_the_one_that_gemma_leaves_out_is_proven(tmp_path: Path) -> None:
    tensors = in_file(weights())
    tensors["blk.0.attn_norm.weight"] = tensors["blk.0.attn_norm.weight"] + np.float32(1)
    assert check(tmp_path, weights(), tensors) == []


def test_a_vocabulary_that_was_cut_is_proven(tmp_path: Path) -> None:
    tensors = in_file(weights())
    tensors["token_embd.weight"] = tensors["token_embd.weight"][:30]
    assert check(tmp_path, weights(), tensors) == []


def test_an_order_that_is_not_known_leaves_the_weight_unproven(tmp_path: Path) -> None:
    tensors = in_file(weights())
    tensors["blk.0.attn_q.weight"] = tensors["blk.0.attn_q.weight"][::-1]
    assert check(tmp_path, weights(), tensors) == [Q]


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.0.attn_q.weight"])
def test_one_other_value_in_a_matrix_is_refused(tmp_path: Path, name: str) -> None:
    tensors = in_file(weights())
    tensors[name] = tensors[name].copy()
    tensors[name][-1, -1] *= np.float16(1.001)
    with pytest.raises(RejectedFile, match="is not the one of the merged model"):
        check(tmp_path, weights(), tensors)


def test_what_is_put_together_or_missing_is_named(tmp_path: Path) -> None:
    tensors = in_file(weights())
    tensors["blk.0.ffn_gate_exps.weight"] = np.zeros((2, 4, WIDTH), np.float16)
    del tensors["blk.0.attn_norm.weight"]
    assert check(tmp_path, weights(), tensors) == [NORM, "blk.0.ffn_gate_exps.weight"]


def test_a_family_that_is_not_known_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_weights, "file_names", lambda *_: {})
    assert set(weights()) <= set(check(tmp_path, weights(), in_file(weights())))
