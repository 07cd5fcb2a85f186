"""The manifest lists every file of a run with its checksum."""

import hashlib
from pathlib import Path

from finetune_trainer.run_folder import manifest
from finetune_trainer.run_folder.manifest import ManifestFile
from finetune_trainer.storage.folder import FileStore


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_it_lists_what_lies_in_the_runs_folder_and_tells_the_logs_apart(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    for name in ("adapter/a.safetensors", "gguf/x.gguf", "logs/train-0.log", "manifest.json", "SERVE.md"):
        store.put_bytes(f"team/coach/run/{name}", name.encode())
    store.put_bytes("team/coach/latest.json", b"{}")
    store.put_bytes("team/coach/running/SERVE.md", b"another run")
    files = manifest.list_files(store, "team/coach/run", {"gguf/x.gguf": "known"}, tmp_path)
    assert files == [
        ManifestFile(path="SERVE.md", size_bytes=8, sha256=sha256(b"SERVE.md")),
        ManifestFile(path="adapter/a.safetensors", size_bytes=21, sha256=sha256(b"adapter/a.safetensors")),
        ManifestFile(path="gguf/x.gguf", size_bytes=11, sha256="known"),
        ManifestFile(path="logs/train-0.log", size_bytes=16, sha256=sha256(b"logs/train-0.log")),
    ]
    assert [file.path for file in files if manifest.is_log(file)] == ["logs/train-0.log"]


def test_it_names_the_versions_that_made_the_result() -> None:
    assert {"torch", "unsloth", "peft", "trainer"} <= manifest.versions().keys()
