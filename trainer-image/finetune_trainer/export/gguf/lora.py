"""Writes the adapter alone as a GGUF, for `llama-server --lora` beside a GGUF of the base model."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

from finetune_trainer.errors import ModelError
from finetune_trainer.export.gguf import convert as gguf_convert
from finetune_trainer.export.gguf import header as gguf_header
from finetune_trainer.export.llama_cpp import scripts as llama_scripts
from finetune_trainer.model import lora_weights
from finetune_trainer.model.adapter import CONFIG, TOKENIZER_FILES, WEIGHTS

_BASE, _ADAPTER = "lora-base", "lora-adapter"
# Embeddings and head: llama.cpp does not apply an adapter to them in every model.
_VOCABULARY = ("embed_tokens", "lm_head", "wte", "word_embeddings", "embed_in", "embed_out", "output_layer")
_PARTS = ("lora_a", "lora_b")


def convert(base: Path, adapter_folder: Path, target: Path, scratch: Path) -> None:
    """Write the adapter as a GGUF in 32 bit. It needs only config.json and the tokenizer of the base.

    Raises:
        ModelError: llama.cpp cannot apply the adapter, or does not support the model.
        SettingsError: the converter is not installed.
    """
    config = json.loads((adapter_folder / CONFIG).read_text())
    weights = _adapted(adapter_folder / WEIGHTS)
    if (reason := refusal(config, weights)) is not None:
        raise ModelError(reason)
    folders = (scratch / _BASE, scratch / _ADAPTER)
    try:
        _copy_base(base, folders[0])
        alpha = _copy_adapter(adapter_folder, config, folders[1])
        with gguf_convert.written_whole(target) as partial:
            arguments = [str(folders[1]), "--base", str(folders[0]), "--outfile", str(partial), "--outtype", "f32"]
            llama_scripts.run("convert_lora_to_gguf.py", arguments, scratch)
            _check(partial, alpha, len(weights))
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def refusal(config: dict[str, Any], weights: set[str]) -> str | None:
    """Return why llama.cpp cannot apply an adapter of these base weights, or None."""
    named = [*(config.get("modules_to_save") or ()), *(weight.removesuffix(".weight") for weight in sorted(weights))]
    vocabulary = [module for module in named if module.rpartition(".")[2] in _VOCABULARY]
    if vocabulary:
        return (
            f"the adapter changes {vocabulary[0]}, and llama.cpp cannot apply an adapter to embeddings or the head; "
            "set spec.export.loraGGUF to false and use spec.export.gguf"
        )
    if config.get("modules_to_save"):
        return (
            f"the adapter replaces {config['modules_to_save'][0]} as a whole, which llama.cpp does not support; "
            "set spec.export.loraGGUF to false and use spec.export.gguf"
        )
    return None


def _adapted(path: Path) -> set[str]:
    """Return the base weights that the adapter changes."""
    from safetensors import safe_open

    found = set()
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            stem = name.removeprefix("base_model.model.")
            for part in (".lora_A", ".lora_B", ".lora_embedding_A", ".lora_embedding_B"):
                stem = stem.replace(part, "")
            found.add(stem if stem.endswith(".weight") else f"{stem}.weight")
    return found


def _copy_base(base: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, target / name)
    config = json.loads((base / "config.json").read_text())
    # Otherwise the converter would look for quantized weights, which are not there.
    config.pop("quantization_config", None)
    (target / "config.json").write_text(json.dumps(config))


def _copy_adapter(folder: Path, config: dict[str, Any], target: Path) -> float:
    target.mkdir(parents=True)
    # llama.cpp always scales by alpha / r.
    scaled = lora_weights.scale(config) * int(config["r"])
    (target / CONFIG).write_text(json.dumps(config | {"lora_alpha": scaled, "use_rslora": False}))
    (target / WEIGHTS).symlink_to((folder / WEIGHTS).resolve())
    return scaled


def _check(path: Path, scaled: float, weights: int) -> None:
    header = gguf_header.read(path)
    found = header.values
    modules = {name.rpartition(".")[0] for name in header.shapes}
    if (
        (found.get("general.type"), found.get("adapter.type")) != ("adapter", "lora")
        or not math.isclose(float(found.get("adapter.lora.alpha", 0.0)), scaled, rel_tol=1e-6)
        or len(modules) < weights
        or header.shapes.keys() != {f"{module}.{part}" for module in modules for part in _PARTS}
    ):
        raise ModelError(
            "the LoRA GGUF does not have the adapter's content; leave out spec.export.loraGGUF and use spec.export.gguf"
        )
