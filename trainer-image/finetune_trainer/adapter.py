"""The trained adapter as files."""

import json
import shutil
from pathlib import Path
from typing import Any

from finetune_trainer.errors import SettingsError
from finetune_trainer.prepared import Prepared

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
# Files of a model folder that belong to the tokenizer, whichever of them there are.
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


def check_trained(model: Any) -> None:
    """Make sure that training changed the adapter: B starts at zero.

    Raises:
        SettingsError: every B is still zero.
    """
    if not any("lora_B" in name and bool(p.detach().any()) for name, p in model.named_parameters()):
        raise SettingsError(
            "training changed nothing: the adapter's weights are still zero; "
            "raise spec.training.maxSteps, or lower spec.training.warmupSteps below it"
        )


def save(model: Any, prepared: Prepared, weights: Path, folder: Path, chat_template: str | None) -> None:
    """Write the adapter in PEFT's format with the tokenizer's original files.

    Original, because a tokenizer that was loaded and saved again may differ in its special tokens.
    """
    model.save_pretrained(str(folder), safe_serialization=True)
    # It describes the folder that the base was loaded from, which nobody else has.
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(portable(config, prepared), indent=2, sort_keys=True) + "\n")
    for name in TOKENIZER_FILES:
        if (weights / name).is_file():
            shutil.copyfile(weights / name, folder / name)
    if chat_template is not None:
        (folder / CHAT_TEMPLATE).write_text(chat_template, encoding="utf-8")


def portable(config: dict[str, Any], prepared: Prepared) -> dict[str, Any]:
    """Return adapter_config.json with a base name that means something elsewhere, and the same bytes every time."""
    modules = config.get("target_modules")
    return config | {
        "base_model_name_or_path": prepared.model.reference,
        "target_modules": sorted(modules) if isinstance(modules, list) else modules,
        "auto_mapping": None,
        "inference_mode": True,
    }
