"""GGUF files of random weights, written without llama.cpp: small enough to quantize and evaluate in milliseconds."""

import struct
from pathlib import Path
from typing import Any

WIDTH = 256
VOCABULARY = 64
_HEADS = 4
_LAYERS = 2
_ALIGNMENT = 32
_F32, _F16 = 0, 1
_U32, _FLOAT, _BOOL, _STRING, _ARRAY = 4, 6, 7, 8, 9


def tensors(width: int = WIDTH, experts: int = 0) -> dict[str, Any]:
    """Return a Llama's weights, slowest dimension first; with `experts` a mixture of that many.

    What the norms let through differs a lot from input to input, as in trained models.
    """
    import numpy as np

    random = np.random.default_rng(0)
    norm = np.exp(1.5 * random.standard_normal(width)).astype(np.float32)

    def matrix(*shape: int) -> Any:
        return (random.standard_normal(shape) / np.sqrt(width)).astype(np.float16)

    found = {
        "token_embd.weight": (0.5 * random.standard_normal((VOCABULARY, width))).astype(np.float16),
        "output.weight": matrix(VOCABULARY, width),
        "output_norm.weight": np.ones(width, np.float32),
    }
    shape = (experts,) if experts else ()
    kind = "_exps" if experts else ""
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        found |= {
            f"{block}.attn_norm.weight": norm,
            f"{block}.ffn_norm.weight": norm,
            f"{block}.attn_q.weight": matrix(width, width),
            f"{block}.attn_k.weight": matrix(width, width),
            f"{block}.attn_v.weight": matrix(width, width),
            f"{block}.attn_output.weight": matrix(width, width),
            f"{block}.ffn_gate{kind}.weight": matrix(*shape, width, width),
            f"{block}.ffn_up{kind}.weight": matrix(*shape, width, width),
            f"{block}.ffn_down{kind}.weight": matrix(*shape, width, width),
        }
        if experts:
            found[f"{block}.ffn_gate_inp.weight"] = matrix(experts, width).astype(np.float32)
    return found


def values(width: int = WIDTH, experts: int = 0) -> dict[str, Any]:
    """Return the settings of the model of `tensors`: without a tokenizer."""
    found: dict[str, Any] = {
        "general.architecture": "llama",
        "general.file_type": 1,
        "llama.context_length": 2048,
        "llama.embedding_length": width,
        "llama.block_count": _LAYERS,
        "llama.feed_forward_length": width,
        "llama.attention.head_count": _HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": VOCABULARY,
        "tokenizer.ggml.model": "none",
    }
    return found | ({"llama.expert_count": experts, "llama.expert_used_count": 2} if experts else {})


def build(path: Path, width: int = WIDTH, experts: int = 0) -> Path:
    """Write the F16 file of that model."""
    return write(path, values(width, experts), tensors(width, experts))


def write(path: Path, settings: dict[str, Any], weights: dict[str, Any]) -> Path:
    """Write a GGUF file of version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(weights), len(settings))
    for key, value in settings.items():
        head += _text(key) + _value(value)
    data = b""
    for name, array in weights.items():
        head += _text(name) + struct.pack(f"<I{array.ndim}Q", array.ndim, *reversed(array.shape))
        head += struct.pack("<IQ", _F16 if array.dtype == "float16" else _F32, len(data))
        data += _padded(array.tobytes())
    path.write_bytes(_padded(head) + data)
    return path


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_text, value))
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT, value)
    return struct.pack("<II", _U32, value)
