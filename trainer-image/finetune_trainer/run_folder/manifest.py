"""`manifest.json`: the last file of a run. A run is complete when it and all files that it lists exist."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from finetune_api.base import Model, Sha256
from finetune_api.layout import MANIFEST
from finetune_api.status import Artifact, DatasetStatus, Effective, EvaluationStatus, MemoryStatus
from finetune_trainer.runtime.build_id import build_id, package_versions
from finetune_trainer.sources.resolved import ResolvedAdapter, ResolvedModel
from finetune_trainer.storage.checksum import sha256_of
from finetune_trainer.storage.store import Store

_LOGS = "logs/"
_LOGS_NOTE = "The log of the export that wrote this manifest is uploaded after it, and is not listed."


class ManifestFile(Model):
    """One file of the run, its path relative to the run's folder."""

    path: str
    size_bytes: int
    sha256: str


class Manifest(Model):
    """The inputs of the run, its results and its files."""

    # A later trainer may have written more.
    model_config = ConfigDict(extra="ignore")

    manifest_version: Literal[2] = 2
    run_id: Sha256
    # As in the plan: namespace, name, uid.
    job: dict[str, Any]
    model: ResolvedModel
    # The earlier adapter that was trained further.
    adapter: ResolvedAdapter | None = None
    template: Literal["Model", "Alpaca", "Custom"]
    dataset: DatasetStatus
    # Never parsed: plans of later versions have members that this version does not know.
    plan: dict[str, Any]
    versions: dict[str, str]
    memory: MemoryStatus | None = None
    effective: Effective | None = None
    evaluation: EvaluationStatus | None = None
    artifacts: list[Artifact]
    files: list[ManifestFile]
    # As they were when the manifest was written. A run is complete without them: a later job with the same run may
    # write them again.
    logs: list[ManifestFile] = Field([])
    logs_note: str = _LOGS_NOTE

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        return json.dumps(self.to_json(), ensure_ascii=False, indent=2).encode()


def list_files(store: Store, folder: str, known: Mapping[str, str], scratch: Path) -> list[ManifestFile]:
    """Return every file of the run by path, logs included, except the manifest.

    `known` maps paths to sha256; the other files are read back from the store.
    """
    files = []
    for stored in store.list(folder):
        path = stored.key.removeprefix(f"{folder}/")
        if path == MANIFEST:
            continue
        checksum = known.get(path)
        if checksum is None:
            copy = scratch / "checked"
            store.get_file(stored.key, copy)
            checksum = sha256_of(copy)
            copy.unlink()
        files.append(ManifestFile(path=path, size_bytes=stored.size_bytes, sha256=checksum))
    return sorted(files, key=lambda f: f.path)


def is_log(file: ManifestFile) -> bool:
    """Whether it is a stage's log."""
    return file.path.startswith(_LOGS)


def versions() -> dict[str, str]:
    """Return the versions of the trainer and its libraries."""
    return {"trainer": build_id(), **package_versions()}


def read_complete(store: Store, folder: str) -> Manifest | None:
    """Return the manifest of a run if all its files exist with their sizes, or None."""
    data = store.get_bytes(f"{folder}/{MANIFEST}")
    if data is None:
        return None
    try:
        found = Manifest.model_validate_json(data)
    except ValidationError:  # of another version
        return None
    sizes = {stored.key: stored.size_bytes for stored in store.list(folder)}
    whole = all(sizes.get(f"{folder}/{file.path}") == file.size_bytes for file in found.files)
    return found if found.files and whole else None


def all_rejected(artifacts: Iterable[Artifact]) -> str | None:
    """Return why none of the files that export was asked for stands, or None."""
    asked = [a for a in artifacts if a.type not in ("LoRAAdapter", "Modelfile")]
    if not asked or any(a.rejected is None for a in asked):
        return None
    return asked[0].rejected
