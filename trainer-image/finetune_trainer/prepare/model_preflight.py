"""Checks everything about the model that can be checked without a GPU and without its weights."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from finetune_api.memory import Shape
from finetune_api.plan import Plan
from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.model import merge_base, original_weights
from finetune_trainer.model.checked import CheckedModel
from finetune_trainer.model.safetensors_header import Tensor, parameter_count, read_tensors
from finetune_trainer.runtime.llama_cpp_dir import CONVERTER, llama_cpp_dir
from finetune_trainer.sources.model_files import INDEX, SINGLE, Listing, ModelFiles, is_weights
from finetune_trainer.sources.resolved import ModelFile, ResolvedModel

_CONVERTER_SECONDS = 600


def check(plan: Plan, model: ModelFiles, listing: Listing, folder: Path) -> CheckedModel:
    """Check the model against the plan; `folder` has its small files.

    Raises:
        ModelError: the model cannot be trained or converted.
        SettingsError: the plan asks for something that this model does not have.
    """
    reference = model.reference
    config = _read_json(folder, "config.json", reference)
    architecture = _architecture(config, reference)
    stored_in_4bit = _is_stored_in_4bit(config, reference)
    chosen = merge_base.choose(plan, stored_in_4bit=stored_in_4bit)
    _check_against_plan(plan, config, stored_in_4bit)
    files = _used_files(listing, folder, reference)
    tensors = read_tensors(model, [f for f in files if is_weights(f)])
    _check_target_modules(plan.training.lora.target_modules, tensors)
    tokenizer = _load_tokenizer(folder, reference)
    _check_vocabulary(tokenizer, tensors, reference)
    if plan.export.merges or plan.export.lora_gguf:
        _check_convertible(folder, reference)
    resolved = ResolvedModel(
        revision=listing.revision,
        reference=reference,
        architecture=architecture,
        parameters=parameter_count(tensors.values(), packed=stored_in_4bit),
        stored_in_4bit=stored_in_4bit,
        files=files,
    )
    eos = _generation_eos(folder, config)
    return CheckedModel(resolved, tokenizer, tensors, eos, Shape.of(config), config, chosen)


def check_original(trained: CheckedModel, model: ModelFiles, listing: Listing, folder: Path) -> ResolvedModel:
    """Check the 16-bit weights that a 4-bit model was made from; `folder` has their small files.

    Raises:
        ModelError: they are damaged, not in 16 bit, or belong to another model.
    """
    config = _read_json(folder, "config.json", model.reference)
    files = _used_files(listing, folder, model.reference)
    tensors = read_tensors(model, [f for f in files if is_weights(f)])
    original_weights.check_listed(trained.tensors, tensors, trained.config, config)
    return ResolvedModel(
        revision=listing.revision,
        reference=model.reference,
        architecture=trained.resolved.architecture,
        parameters=parameter_count(tensors.values(), packed=False),
        files=files,
    )


def _read_json(folder: Path, name: str, reference: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{reference} has no {name}; check the path, and that the upload was complete") from None
    except ValueError:
        raise ModelError(f"{reference}: {name} is not JSON; upload it again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{reference}: {name} is not a JSON object; upload it again")
    return content


def _architecture(config: Mapping[str, Any], reference: str) -> str:
    from transformers import __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as SUPPORTED

    model_type = config.get("model_type")
    if model_type not in SUPPORTED:
        if config.get("auto_map"):
            raise ModelError(
                f"{reference} needs its own Python code, which is not executed; use a model that the libraries support"
            )
        raise ModelError(
            f'{reference}: model_type "{model_type}" is not known to transformers {__version__} as a model that '
            "writes text; choose another model, or a trainer image with newer libraries"
        )
    default = SUPPORTED[model_type]
    known = {default} if isinstance(default, str) else set(default)
    named = (config.get("architectures") or [sorted(known)[0]])[0]
    if named not in known and not str(named).endswith("ForConditionalGeneration"):
        raise ModelError(f"{reference} is a {named}, which does not write text; choose a {sorted(known)[0]}")
    return str(named)


def _is_stored_in_4bit(config: Mapping[str, Any], reference: str) -> bool:
    quantization = config.get("quantization_config")
    if not quantization:
        return False
    method = quantization.get("quant_method")
    if method == "bitsandbytes" and quantization.get("load_in_4bit"):
        return True
    raise ModelError(
        f"{reference} has its weights quantized by {method}, which cannot be trained; "
        "use the 16-bit repository or one in bitsandbytes 4-bit"
    )


def _check_against_plan(plan: Plan, config: Mapping[str, Any], stored_in_4bit: bool) -> None:
    if stored_in_4bit and plan.model.quantization == "None":
        raise SettingsError(
            "model.quantization is None, but the weights are stored in 4 bit; set it to NF4 or use a 16-bit repository"
        )
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int) and plan.model.max_sequence_length > longest:
        raise SettingsError(
            f"model.maxSequenceLength is {plan.model.max_sequence_length}, and the model reads at most {longest} tokens"
        )


def _used_files(listing: Listing, folder: Path, reference: str) -> list[ModelFile]:
    """Return the files without weights that nothing reads, such as a second copy in one file."""
    present = {f.path for f in listing.files}
    if INDEX in present:
        weight_map = _read_json(folder, INDEX, reference).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(f"{reference}: {INDEX} has no weight_map; upload it again")
        weights = set(weight_map.values())
    else:
        weights = {SINGLE}
    if missing := sorted(weights - present):
        raise ModelError(
            f"{reference} lacks {len(missing)} of {len(weights)} weight files, first {missing[0]}; upload them"
        )
    return [f for f in listing.files if f.path in weights or not is_weights(f)]


def _check_target_modules(targets: Iterable[str], tensors: Mapping[str, Tensor]) -> None:
    modules = {name.split(".")[-2] for name, t in tensors.items() if name.endswith(".weight") and len(t.shape) == 2}
    if missing := sorted(set(targets) - modules):
        linear = sorted(m for m in modules if m.endswith("proj")) or sorted(modules)
        raise SettingsError(
            f"training.lora.targetModules names {', '.join(missing)}, which the model does not have; "
            f"it has {', '.join(linear)}"
        )


def _load_tokenizer(folder: Path, reference: str) -> Any:
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{reference} has no tokenizer (tokenizer.json or tokenizer.model); upload it")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        # The libraries raise all kinds of exceptions for a damaged file.
        raise ModelError(
            f"{reference}: the tokenizer cannot be loaded ({type(error).__name__}); upload its files again"
        ) from error


def _check_vocabulary(tokenizer: Any, tensors: Mapping[str, Tensor], reference: str) -> None:
    sizes = [t.shape[0] for n, t in tensors.items() if n.endswith(("embed_tokens.weight", "wte.weight"))]
    if sizes and len(tokenizer) > sizes[0]:
        raise ModelError(
            f"{reference}: the tokenizer has {len(tokenizer)} tokens and the weights only {sizes[0]}; "
            "they belong to different models"
        )


def _generation_eos(folder: Path, config: Mapping[str, Any]) -> list[int]:
    found: Any = config.get("eos_token_id")
    path = folder / "generation_config.json"
    if path.is_file():
        found = _read_json(folder, path.name, folder.name).get("eos_token_id", found)
    values = found if isinstance(found, list) else [found]
    return [v for v in values if isinstance(v, int)]


def _check_convertible(folder: Path, reference: str) -> None:
    """Let the converter read the vocabulary now: it knows tokenizers by name, and fails for an unknown one."""
    root = llama_cpp_dir()
    out = Path(os.environ["TMPDIR"]) / "vocabulary.gguf"
    command = [sys.executable, str(root / CONVERTER), str(folder), "--vocab-only", "--outfile", str(out)]
    paths = [str(root / "gguf-py"), os.environ.get("PYTHONPATH", "")]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    try:
        done = subprocess.run(command, env=variables, timeout=_CONVERTER_SECONDS, check=False)
    finally:
        out.unlink(missing_ok=True)
    if done.returncode != 0:
        raise ModelError(
            f"{reference} cannot be converted to GGUF: llama.cpp's converter does not know its tokenizer or "
            "architecture (its output is in the log); remove export.gguf or choose another model"
        )
