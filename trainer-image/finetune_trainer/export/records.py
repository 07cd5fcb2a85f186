"""Records of the files that export has made, verified and uploaded, each written after its file.

A pod may be killed at any moment. The next attempt continues with the first file that has no valid record. If all have
one, it does not merge.
"""

import logging

from pydantic import ValidationError

from finetune_api.base import Model
from finetune_api.layout import JobLayout
from finetune_api.status import Parity
from finetune_trainer.storage.store import Store

log = logging.getLogger(__name__)


class Made(Model):
    """What a file was made from and by. A record with other values does not count."""

    run_id: str
    adapter_sha256: str
    trainer: str


class GGUFAnswer(Model):
    """What a GGUF answers to a question."""

    text: str
    # It ended with a stop token, not because it was cut.
    stopped: bool


class Record(Model):
    """One finished file."""

    made: Made
    # Relative to the run's folder; for the merged model its folder, with a slash. None: verified, but not published.
    path: str | None
    size_bytes: int
    # For the merged model the checksum of its list of files.
    sha256: str
    parity: Parity | None = None
    # A GGUF's answer to each question.
    answers: list[GGUFAnswer] | None = None
    # Why the file failed its proof; it is then in rejected/.
    rejected: str | None = None


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
        """Return the record of a file that is already complete, or None."""
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
        answers: list[GGUFAnswer] | None = None,
        rejected: str | None = None,
    ) -> Record:
        """Record a file that is uploaded."""
        record = Record(
            made=self._made,
            path=path,
            size_bytes=size_bytes,
            sha256=sha256,
            parity=parity,
            answers=answers,
            rejected=rejected,
        )
        self._store.put_bytes(self._layout.exported(name), record.model_dump_json(by_alias=True).encode())
        self._records[name] = record
        return record

    def forget_rejected(self) -> None:
        """Forget the files that failed their proof, so that the next attempt makes them again."""
        for name in [name for name, record in self._records.items() if record.rejected is not None]:
            self.forget(name)

    def forget(self, name: str) -> None:
        """Delete a record before its file is replaced, or it would count for another file of the same size."""
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
        log.info("%s is complete: an earlier attempt made it", name)
        return record

    def _is_there(self, record: Record) -> bool:
        if record.path is None:
            return True
        if record.path.endswith("/"):
            folder = f"{self._folder}/{record.path}"
            return sum(size for key, size in self._sizes.items() if key.startswith(folder)) == record.size_bytes
        return self._sizes.get(f"{self._folder}/{record.path}") == record.size_bytes
