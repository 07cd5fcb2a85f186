"""The trained adapter as files."""

import json
import shutil
from pathlib import Path
from typing import Any

from finetune_trainer.errors import ModelError, SettingsError
from finetune_trainer.run_folder.prepared import Prepared

# In the run's folder.
FOLDER = "adapter"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
# Files of a model folder that belong to the tokenizer, as far as they exist.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
)
CHAT_TEMPLATE = "chat_template.jinja"


def start_from(model: Any, folder: Path) -> None:
    """Set the fresh adapter to the earlier one in `folder`.

    Raises:
        ModelError: their matrices differ.
    """
    import torch
    from safetensors import safe_open

    matrices = _matrices(model)
    with safe_open(folder / WEIGHTS, framework="pt") as file, torch.no_grad():
        if matrices.keys() != set(file.keys()) or any(
            list(p.shape) != file.get_slice(name).get_shape() for name, p in matrices.items()
        ):
            raise ModelError("model.adapter does not have the same matrices as this model's adapter; leave it out")
        for name, parameter in matrices.items():
            parameter.copy_(file.get_tensor(name))


def changed(model: Any, start: Path | None = None) -> bool:
    """Return whether training changed the adapter: B starts at zero, or as it is in the folder `start`."""
    import torch
    from safetensors import safe_open

    matrices = {name: p.detach().cpu() for name, p in _matrices(model).items() if "lora_B" in name}
    if start is None:
        return any(bool(b.any()) for b in matrices.values())
    with safe_open(start / WEIGHTS, framework="pt") as file:
        return any(not torch.equal(b, file.get_tensor(name).to(b.dtype)) for name, b in matrices.items())


def is_finite(model: Any) -> bool:
    """Return whether the adapter's weights are numbers: no loss is computed after the last update, which shows that."""
    return all(bool(p.isfinite().all()) for p in _matrices(model).values())


def check_trained(model: Any, start: Path | None = None) -> None:
    """Check that training changed the adapter (see `changed`).

    Raises:
        SettingsError: no B changed.
    """
    if not changed(model, start):
        raise SettingsError(
            f"training changed nothing: the adapter's weights are {'as they were' if start else 'still zero'}; "
            "raise spec.training.maxSteps, or lower spec.training.warmupSteps below it"
        )


def _matrices(model: Any) -> dict[str, Any]:
    """Return the parameters of the trained adapter by their names in its file."""
    return {name.replace(".default.", "."): p for name, p in model.named_parameters() if ".default." in name}


def save(model: Any, prepared: Prepared, weights: Path, folder: Path, chat_template: str | None) -> None:
    """Write the adapter in PEFT's format with the tokenizer's original files.

    The original files, because a tokenizer that is loaded and saved again may differ in its special tokens.
    """
    model.save_pretrained(str(folder), safe_serialization=True)
    # It names the local folder that the base was loaded from.
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(portable(config, prepared), indent=2, sort_keys=True) + "\n")
    for name in TOKENIZER_FILES:
        if (weights / name).is_file():
            shutil.copyfile(weights / name, folder / name)
    if chat_template is not None:
        (folder / CHAT_TEMPLATE).write_text(chat_template, encoding="utf-8")


def portable(config: dict[str, Any], prepared: Prepared) -> dict[str, Any]:
    """Return adapter_config.json with a portable base name, and the same bytes every time."""
    modules = config.get("target_modules")
    return config | {
        "base_model_name_or_path": prepared.model.reference,
        "target_modules": sorted(modules) if isinstance(modules, list) else modules,
        "auto_mapping": None,
        "inference_mode": True,
    }
