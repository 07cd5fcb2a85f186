"""A file that is not the trained model: kept for analysis, never published."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from finetune_api.spec import GGUFType, MergeBase
from finetune_trainer.errors import ModelError
from finetune_trainer.export.parity.check import Figures, Rejected
from finetune_trainer.storage.store import Store

# In the run's folder.
FOLDER = "rejected"
# Nearly lossless types: if one of these is rejected, more bits do not help.
_NEARLY_LOSSLESS: tuple[GGUFType, ...] = ("F16", "BF16", "Q8_0")


def advice(gguf_type: GGUFType | None, trained_in_4bit: bool, merge_base: MergeBase | None) -> str:
    """Return the remedy, as the end of a sentence. `gguf_type`: None for a LoRA GGUF."""
    if gguf_type is not None and gguf_type not in _NEARLY_LOSSLESS:
        return f"replace {gguf_type} in export.gguf with Q8_0 or another type of more bits"
    if gguf_type is not None and trained_in_4bit and merge_base == "Original":
        return "set export.mergeBase to Trained, which merges into the weights as training saw them"
    wrong = "export.loraGGUF" if gguf_type is None else "export.gguf"
    return f"leave out {wrong}, serve the adapter itself, and report this as a bug with the figures"


def keep(
    store: Store, run: str, name: str, path: Path, rejected: Rejected, advised: str, advance: Callable[[int], None]
) -> ModelError:
    """Upload the file and its figures below `run`, and return the error that ends the stage."""
    key = f"{run}/{FOLDER}/{name}"
    size, moved = path.stat().st_size, 0

    def progress(count: int) -> None:
        nonlocal moved
        moved += count
        advance(100 * moved // size)

    store.put_file(key, path, progress)
    content = {"file": name, "reason": rejected.message, "figures": _figures(rejected.figures)}
    store.put_bytes(f"{key}.json", json.dumps(content, ensure_ascii=False, indent=2).encode())
    return ModelError(f"{rejected.message}; it is kept as {key}, with its figures; {advised}")


def _figures(figures: Figures) -> dict[str, float | None]:
    return asdict(figures) | {"retained_gain": figures.retained_gain}
