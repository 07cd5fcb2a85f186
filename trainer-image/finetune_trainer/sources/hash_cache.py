"""Checksums of a mounted model's files that earlier jobs of the namespace made, kept in the output store.

Reading 16 GB from a network volume takes minutes, and most jobs train a model that was read before.
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
    """One object per folder: all claims are mounted at one path, so names and sizes tell the folders apart too."""

    def __init__(self, store: Store, layout: JobLayout, folder: Path) -> None:
        self._store = store
        self._layout = layout
        self._folder = folder

    def get(self, found: Sequence[ModelFile]) -> list[ModelFile]:
        """Return what is known of a folder that has the files `found`; what cannot be read is not known.

        Raises:
            AccessDeniedError, UnavailableError: as `store.Store`.
        """
        data = self._store.get_bytes(self._key(found))
        if data is None:
            return []
        try:
            return _Hashes.model_validate_json(data).files
        except ValidationError:
            log.warning("the checksums that an earlier job kept cannot be read; the model is read anew")
            return []

    def put(self, files: Sequence[ModelFile]) -> None:
        """Keep the checksums of all files of the folder; raises as `get`."""
        data = _Hashes(files=list(files)).model_dump_json(by_alias=True, exclude_none=True).encode()
        self._store.put_bytes(self._key(files), data)

    def _key(self, files: Sequence[ModelFile]) -> str:
        named = "".join(sorted(f"{f.path}\t{f.size_bytes}\n" for f in files))
        return self._layout.model_hashes(hashlib.sha256(f"{self._folder}\n{named}".encode()).hexdigest())
