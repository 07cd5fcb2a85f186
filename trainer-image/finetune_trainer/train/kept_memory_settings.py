"""The rung that was found on the way down, in the bucket: a retry starts there instead of running out again."""

from dataclasses import dataclass

from pydantic import ValidationError

from finetune_api.base import Model
from finetune_trainer.gpu.memory_settings import Rung
from finetune_trainer.storage.store import Store

NAME = "rung.json"


class RungFile(Model):
    """`rung.json`, beside the checkpoints of one job (uid)."""

    run_id: str
    rung: Rung


@dataclass(frozen=True)
class KeptRung:
    """The rung of one run; that of another run does not count."""

    store: Store
    folder: str
    run_id: str

    def read(self) -> Rung | None:
        """Return what an earlier attempt found, or None."""
        data = self.store.get_bytes(f"{self.folder}/{NAME}")
        if data is None:
            return None
        try:
            file = RungFile.model_validate_json(data)
        except ValidationError:
            return None
        return file.rung if file.run_id == self.run_id else None

    def write(self, rung: Rung) -> None:
        """Keep it.

        Raises:
            StageError: the bucket cannot be written.
        """
        file = RungFile(run_id=self.run_id, rung=rung)
        self.store.put_bytes(f"{self.folder}/{NAME}", file.model_dump_json(by_alias=True).encode())
