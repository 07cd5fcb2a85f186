"""The files of a model in a folder, in a bucket or on a hub."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from finetune_trainer.errors import ModelError
from finetune_trainer.sources.resolved import ModelFile
from finetune_trainer.storage.store import Progress

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_METADATA_SUFFIXES = {".json", ".jinja", ".model", ".txt"}
# Pickles can run code when they are loaded.
_UNSAFE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt"}


@dataclass(frozen=True)
class Listing:
    """All files of one revision."""

    # Hub commit, or sha256 over the files' identities; "" while these are not known.
    revision: str
    files: tuple[ModelFile, ...]


class ModelFiles(Protocol):
    """A place that has a model.

    Every method raises:
        ModelError: the model does not exist, or changed.
        AccessDeniedError, UnavailableError, SettingsError: as `store.Store`.
    """

    @property
    def reference(self) -> str:
        """A portable name: org/name, or the last folder."""

    def listing(self) -> Listing:
        """Return the needed files, at once: where the identity of their bytes takes reading them, without it."""

    def identified(self, listing: Listing) -> Listing:
        """Return the same files with the identity of their bytes; this may read all of them."""

    def read_ranges(self, file: ModelFile, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of (start, length) each."""

    def fetch(self, files: Sequence[ModelFile], folder: Path, progress: Progress) -> Path:
        """Return a folder with these files: `folder`, or the one where they are already."""

    def close(self) -> None:
        """Close connections and end processes."""


def is_needed(path: str) -> bool:
    """Return whether the trainer reads a file of a repository: safetensors, configuration, tokenizer."""
    pure = PurePosixPath(path)
    return len(pure.parts) == 1 and pure.suffix in {*_METADATA_SUFFIXES, ".safetensors"} and not path.startswith(".")


def is_weights(file: ModelFile) -> bool:
    """Return whether the file holds tensors; the others are small."""
    return file.path.endswith(".safetensors")


def check_weights_present(reference: str, paths: Iterable[str]) -> None:
    """Check that there are weights in the one accepted format.

    Raises:
        ModelError: there are none.
    """
    paths = list(paths)
    if INDEX in paths or SINGLE in paths:
        return
    if any(PurePosixPath(p).suffix in _UNSAFE_SUFFIXES for p in paths):
        raise ModelError(
            f"{reference} has its weights as pickle files (.bin, .pt) only, which can run code; "
            "use a repository with .safetensors files"
        )
    if any(p.endswith(".gguf") for p in paths):
        raise ModelError(
            f"{reference} has GGUF files only, which cannot be trained; use the repository they were made from"
        )
    raise ModelError(f"{reference} has no {SINGLE} and no {INDEX}; check the path, and that the upload was complete")


def combined_revision(files: Iterable[ModelFile]) -> str:
    """Return the sha256 over names, sizes and identities, for places without commits."""
    lines = sorted(f"{f.path}\t{f.size_bytes}\t{f.identity}\n" for f in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
