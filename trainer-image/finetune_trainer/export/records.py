"""What export has made, proven and uploaded already: one record per file, written after the file itself.

A pod may be killed at any moment. The next attempt goes on at the first file without a valid record, and merges
nothing if there is none.
"""

import logging

from pydantic import ValidationError

from finetune_api.base import Model
from finetune_api.layout import JobLayout
from finetune_api.status import Parity
from finetune_trainer.storage.store import Store

log = logging.getLogger(__name__)


class Made(Model):
    """What a file was made from and by. A file of other settings is another file."""

    run_id: str
    adapter_sha256: str
    trainer: str


class Record(Model):
    """One finished file."""

    made: Made
    # Relative to the run's folder; of the merged model the folder, with a slash. None: it was proven and not asked for.
    path: str | None
    size_bytes: int
    # Of the merged model that of its list of files.
    sha256: str
    parity: Parity | None = None
    # To each question, of a GGUF.
    answers: list[str] | None = None


class ExportState:
    """The records of one job (uid) for one run."""

    def __init__(self, store: Store, layout: JobLayout, folder: str, made: Made) -> None:
        self._store = store
        self._layout = layout
        self._folder = folder
        self._made = made
        self._sizes = {stored.key: stored.size_bytes for stored in store.list(folder)}
        self._records: dict[str, Record] = {}

    def find(self, name: str) -> Record | None:
        """Return the record of a file that need not be made again, or None."""
        if name not in self._records:
            record = self._read(name)
            if record is None:
                return None
            self._records[name] = record
        return self._records[name]

    def keep(
        self,
        name: str,
        path: str | None,
        size_bytes: int,
        sha256: str,
        parity: Parity | None = None,
        answers: list[str] | None = None,
    ) -> Record:
        """Record a file that is in its place now."""
        record = Record(
            made=self._made, path=path, size_bytes=size_bytes, sha256=sha256, parity=parity, answers=answers
        )
        self._store.put_bytes(self._layout.exported(name), record.model_dump_json(by_alias=True).encode())
        self._records[name] = record
        return record

    def forget(self, name: str) -> None:
        """Delete a record before its file is replaced: a record never vouches for another file of the same size."""
        self._store.delete(self._layout.exported(name))
        self._records.pop(name, None)

    def _read(self, name: str) -> Record | None:
        data = self._store.get_bytes(self._layout.exported(name))
        if data is None:
            return None
        try:
            record = Record.model_validate_json(data)
        except ValidationError:  # of another version
            return None
        if record.made != self._made or not self._is_there(record):
            return None
        log.info("%s was made by an earlier attempt", name)
        return record

    def _is_there(self, record: Record) -> bool:
        if record.path is None:
            return True
        if record.path.endswith("/"):
            folder = f"{self._folder}/{record.path}"
            return sum(size for key, size in self._sizes.items() if key.startswith(folder)) == record.size_bytes
        return self._sizes.get(f"{self._folder}/{record.path}") == record.size_bytes
