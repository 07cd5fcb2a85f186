"""Checksums of a mounted model's files from earlier jobs of the namespace, kept in the output store.

Reading 16 GB from a network volume takes minutes, and most jobs use a model that an earlier job read.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from finetune_api.base import Model
from finetune_api.layout import JobLayout
from finetune_trainer.sources.resolved import ModelFile
from finetune_trainer.storage.store import Store

log = logging.getLogger(__name__)


class _Hashes(Model):
    files: list[ModelFile]


class HashCache:
    """One object per folder. All claims are mounted at one path, so names and sizes also identify the folder."""

    def __init__(self, store: Store, layout: JobLayout, folder: Path) -> None:
        self._store = store
        self._layout = layout
        self._folder = folder

    def get(self, found: Sequence[ModelFile]) -> list[ModelFile]:
        """Return the known checksums of a folder with the files `found`; an unreadable object counts as none.

        Raises:
            AccessDeniedError, UnavailableError: as `store.Store`.
        """
        data = self._store.get_bytes(self._key(found))
        if data is None:
            return []
        try:
            return _Hashes.model_validate_json(data).files
        except ValidationError:
            log.warning("the checksums from an earlier job cannot be read; reading the model again")
            return []

    def put(self, files: Sequence[ModelFile]) -> None:
        """Store the checksums of all files of the folder; raises as `get`."""
        data = _Hashes(files=list(files)).model_dump_json(by_alias=True, exclude_none=True).encode()
        self._store.put_bytes(self._key(files), data)

    def _key(self, files: Sequence[ModelFile]) -> str:
        named = "".join(sorted(f"{f.path}\t{f.size_bytes}\n" for f in files))
        return self._layout.model_hashes(hashlib.sha256(f"{self._folder}\n{named}".encode()).hexdigest())
