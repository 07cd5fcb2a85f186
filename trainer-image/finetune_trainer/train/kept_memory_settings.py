"""The memory settings that a shortage led to, kept in the bucket: a retry starts with them."""

from dataclasses import dataclass

from pydantic import Field, ValidationError

from finetune_api.base import Model
from finetune_trainer.gpu.memory_settings import MemorySettings
from finetune_trainer.storage.store import Store

NAME = "rung.json"


class _File(Model):
    """The file, beside the checkpoints of one job (uid)."""

    run_id: str
    memory_settings: MemorySettings = Field(alias="rung")


@dataclass(frozen=True)
class KeptMemorySettings:
    """The memory settings of one run; those of another run do not count."""

    store: Store
    folder: str
    run_id: str

    def read(self) -> MemorySettings | None:
        """Return what an earlier attempt found, or None."""
        data = self.store.get_bytes(f"{self.folder}/{NAME}")
        if data is None:
            return None
        try:
            file = _File.model_validate_json(data)
        except ValidationError:
            return None
        return file.memory_settings if file.run_id == self.run_id else None

    def write(self, memory_settings: MemorySettings) -> None:
        """Keep them.

        Raises:
            StageError: the bucket cannot be written.
        """
        file = _File(run_id=self.run_id, memory_settings=memory_settings)
        self.store.put_bytes(f"{self.folder}/{NAME}", file.model_dump_json(by_alias=True).encode())
