"""Checks the metadata of a GGUF file. Servers rely on it: with wrong token ids, answers do not end."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from finetune_api.spec import GGUFType
from finetune_trainer.export.gguf import header as gguf_header
from finetune_trainer.export.gguf.header import Header
from finetune_trainer.export.llama_cpp.api import file_type
from finetune_trainer.export.rejected_file import RejectedFile
from finetune_trainer.model.adapter import CHAT_TEMPLATE

_SPECIAL = ("bos", "eos", "pad")
_ID = {"pad": "tokenizer.ggml.padding_token_id"}
_EOT = "tokenizer.ggml.eot_token_id"
_MODEL, _PRE = "tokenizer.ggml.model", "tokenizer.ggml.pre"
# llama.cpp's name for byte-level BPE; `pre` names its pre-tokenizer.
_BPE = "gpt2"
_LAYER = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True)
class Expected:
    """What the metadata must be, from the model's folder."""

    # Ids of bos, eos and pad, as far as the tokenizer has them.
    special_ids: dict[str, int]
    # Ids of special and added tokens.
    control_ids: Collection[int]
    chat_template: str | None
    tokens: int
    layers: int


def expected(model: Path) -> Expected:
    """Read the folder of the merged model."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    ids = {name: getattr(tokenizer, f"{name}_token_id") for name in _SPECIAL}
    config = json.loads((model / "config.json").read_text())
    template = model / CHAT_TEMPLATE
    return Expected(
        special_ids={name: number for name, number in ids.items() if number is not None},
        control_ids=frozenset(tokenizer.added_tokens_decoder),
        chat_template=template.read_text(encoding="utf-8") if template.is_file() else tokenizer.chat_template,
        tokens=len(tokenizer),
        layers=int(config.get("text_config", config)["num_hidden_layers"]),
    )


def check(path: Path, gguf_type: GGUFType, wanted: Expected, f16: Header | None = None) -> Header:
    """Compare a file's header with the trained model and return it; a quantized file must have the tensors of `f16`.

    Raises:
        RejectedFile: they differ.
    """
    found = gguf_header.read(path)
    wrong = judge(found, file_type(gguf_type), wanted)
    if wrong is None and f16 is not None:
        wrong = _compare(found, f16)
    if wrong is not None:
        raise RejectedFile(
            f"the {gguf_type} file is not the model that was trained: {wrong}; it was not published. Serve the "
            "adapter with another server, and leave out spec.export.gguf"
        )
    return found


def judge(found: Header, number: int, wanted: Expected) -> str | None:
    """Return what is wrong with a file's header, or None."""
    values = found.values
    if not values.get("general.architecture"):
        return "its general.architecture is missing"
    if values.get("general.file_type") != number:
        return f"its general.file_type is {values.get('general.file_type')}, not {number}"
    return _tokenizer(found, wanted) or _layers(found, wanted)


def _tokenizer(found: Header, wanted: Expected) -> str | None:
    values = found.values
    if values.get(_MODEL) == _BPE and values.get(_PRE) in (None, "default"):
        return "it names no pre-tokenizer (tokenizer.ggml.pre)"
    for name, number in wanted.special_ids.items():
        there = values.get(_ID.get(name, f"tokenizer.ggml.{name}_token_id"))
        # Only training pads, and the converter does not find the token in every tokenizer file.
        if there != number and not (name == "pad" and there is None):
            return f"its {name} token is {'none' if there is None else there}, the tokenizer's is {number}"
    if _EOT in values and values[_EOT] not in wanted.control_ids:
        return f"its end-of-turn token {values[_EOT]} is not a special token of the tokenizer"
    if values.get("tokenizer.chat_template") != wanted.chat_template:
        return "its chat template is not the one used in training"
    tokens = found.arrays.get("tokenizer.ggml.tokens", 0)
    if tokens < wanted.tokens:
        return f"it has {tokens} tokens, the tokenizer has {wanted.tokens}"
    return None


def _layers(found: Header, wanted: Expected) -> str | None:
    layers = {int(match[1]) for name in found.shapes if (match := _LAYER.match(name))}
    missing = set(range(wanted.layers)) - layers
    return f"layer {min(missing)} of {wanted.layers} is missing" if missing else None


def _compare(found: Header, f16: Header) -> str | None:
    if found.values["general.architecture"] != f16.values["general.architecture"]:
        return f"its architecture is {found.values['general.architecture']}"
    if len(found.shapes) != len(f16.shapes):
        return f"it has {len(found.shapes)} tensors, the F16 file has {len(f16.shapes)}"
    for name, shape in f16.shapes.items():
        if found.shapes.get(name) != shape:
            return f"its tensor {name} differs from the F16 file's"
    return None
