"""What was measured of the base, kept in the bucket: an attempt that resumes does not measure it again."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from finetune_api.base import Model
from finetune_trainer.evaluation.generate import Answer
from finetune_trainer.methods.interface import Score
from finetune_trainer.storage.store import Store

NAME = "base-evaluation.json"
log = logging.getLogger(__name__)


class BaseEvaluation(Model):
    """The figures and answers of the model before training."""

    # Of the hold-out rows.
    scores: list[Score]
    # Of the rows that files are compared on, token by token.
    log_probabilities: list[list[float]]
    answers: list[Answer]
    # With the job's system prompt; None without one.
    instructed_answers: list[Answer] | None = None
    # How long the hold-out rows took, and everything.
    scoring_seconds: float = 0.0
    seconds: float = 0.0


class _File(Model):
    """The file, beside the checkpoints of one job (uid)."""

    sha256: str
    base: BaseEvaluation


@dataclass(frozen=True)
class KeptBase:
    """One job's evaluation of the base."""

    store: Store
    folder: str
    # Everything that it depends on: the run, with its model and data, what is asked, and the precision.
    inputs: tuple[object, ...]

    def get(self, measure: Callable[[], BaseEvaluation]) -> BaseEvaluation:
        """Return what an earlier attempt measured from the same inputs, or measure it and keep it.

        Raises:
            StageError: the bucket cannot be read or written.
        """
        if (found := self._read()) is not None:
            log.info("an earlier attempt evaluated the base; its figures are used again")
            return found
        measured = measure()
        file = _File(sha256=self._sha256, base=measured)
        self.store.put_bytes(self._key, file.model_dump_json(by_alias=True).encode())
        return measured

    def _read(self) -> BaseEvaluation | None:
        data = self.store.get_bytes(self._key)
        if data is None:
            return None
        try:
            file = _File.model_validate_json(data)
        except ValidationError:
            return None
        return file.base if file.sha256 == self._sha256 else None

    @property
    def _key(self) -> str:
        return f"{self.folder}/{NAME}"

    @property
    def _sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.inputs).encode()).hexdigest()
