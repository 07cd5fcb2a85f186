"""Keeps a file that failed its proof for analysis. It is never published."""

import json
from collections.abc import Callable
from pathlib import Path

from finetune_api.spec import GGUFType, MergeBase
from finetune_trainer.export.rejected_file import RejectedFile
from finetune_trainer.storage.store import Store

# In the run's folder.
FOLDER = "rejected"
# What the name of a file's figures ends with, after its own.
FIGURES = ".json"
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
    store: Store, run: str, name: str, path: Path, rejected: RejectedFile, advised: str, advance: Callable[[int], None]
) -> str:
    """Upload the file and its figures below `run`, and return why it was rejected, where it is and what to do."""
    key = f"{run}/{FOLDER}/{name}"
    size, moved = path.stat().st_size, 0

    def progress(count: int) -> None:
        nonlocal moved
        moved += count
        advance(100 * moved // size)

    store.put_file(key, path, progress)
    content = {"file": name, "reason": rejected.message, "figures": rejected.figures}
    store.put_bytes(f"{key}{FIGURES}", json.dumps(content, ensure_ascii=False, indent=2).encode())
    return f"{rejected.message}; it is kept as {key}, with its figures; {advised}"
