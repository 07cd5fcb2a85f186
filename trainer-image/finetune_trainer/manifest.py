"""`manifest.json`: the last file of a run. A run is complete when it exists."""

import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.layout import MANIFEST
from finetune_api.plan import Plan
from finetune_api.result import StageResult
from finetune_trainer.checkpoints import sha256_of
from finetune_trainer.prepared import Prepared
from finetune_trainer.store import Store

_MANIFEST_VERSION = 1
# What the result depends on.
_PACKAGES = (
    "accelerate",
    "bitsandbytes",
    "llama-cpp-python",
    "peft",
    "torch",
    "transformers",
    "trl",
    "unsloth",
    "unsloth_zoo",
)
_LOGS = "logs/"


@dataclass(frozen=True)
class ManifestFile:
    """One file of the run, its path relative to the run's folder."""

    path: str
    size_bytes: int
    sha256: str


def list_files(store: Store, folder: str, known: Mapping[str, str], scratch: Path) -> list[ManifestFile]:
    """Return every file of the run but its logs, which grow after the manifest is written.

    `known` maps paths to sha256; the other files are read back from the store.
    """
    files = []
    for stored in store.list(folder):
        path = stored.key.removeprefix(f"{folder}/")
        if path == MANIFEST or path.startswith(_LOGS):
            continue
        checksum = known.get(path)
        if checksum is None:
            copy = scratch / "checked"
            store.get_file(stored.key, copy)
            checksum = sha256_of(copy)
            copy.unlink()
        files.append(ManifestFile(path, stored.size_bytes, checksum))
    return files


def versions() -> dict[str, str]:
    """Return the versions of what made the result."""
    found = {"trainer": os.environ.get("FINETUNE_BUILD_ID", "unknown")}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def document(
    plan: Plan,
    prepared: Prepared,
    trained: StageResult,
    files: Sequence[ManifestFile],
    parity: Mapping[str, Mapping[str, float | None]],
) -> bytes:
    """Return the manifest's JSON: what the run was made from and what it consists of."""
    settings = plan.to_json()
    trained_json = trained.to_json()
    content: dict[str, Any] = {
        "manifestVersion": _MANIFEST_VERSION,
        "runId": prepared.run_id,
        "job": settings["job"],
        "model": prepared.model.to_json(),
        "template": prepared.template,
        "dataset": prepared.dataset.to_json(),
        "plan": settings,
        "versions": versions(),
        "effective": trained_json.get("effective"),
        "evaluation": trained_json.get("evaluation"),
        "parity": parity,
        "files": [
            {"path": file.path, "sizeBytes": file.size_bytes, "sha256": file.sha256}
            for file in sorted(files, key=lambda f: f.path)
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=2).encode()
