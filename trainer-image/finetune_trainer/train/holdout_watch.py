"""When the hold-out rows are measured during training, which adapter is kept, and when training stops early."""

import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finetune_trainer.evaluation.curve import Curve
from finetune_trainer.model import adapter
from finetune_trainer.runtime.sigterm import StopRequested
from finetune_trainer.train.checkpoints import Checkpoints

CURVE = "curve.json"
log = logging.getLogger(__name__)


class HoldoutWatch:
    """Follows the hold-out loss of one run over all its attempts: `curve` is part of every checkpoint."""

    def __init__(
        self,
        steps: frozenset[int],
        measure: Callable[[int], float],
        changed: Callable[[], bool],
        folder: Path,
        *,
        keep_best: bool,
        patience: int | None,
    ) -> None:
        """`steps`: after which to measure.

        `measure` returns the loss, which may be no number, or raises StopRequested if SIGTERM comes meanwhile;
        `changed`: is the adapter another one than before training? `folder` holds the best adapter so far.
        """
        self._steps = steps
        self._measure = measure
        self._changed = changed
        self._folder = folder
        self._keep_best = keep_best
        self._patience = patience
        self.curve = Curve()

    def resume(self, step: int, folder: Path, checkpoints: Checkpoints) -> None:
        """Continue from the checkpoint of `step` in `folder`; the best adapter is there or in another checkpoint.

        Raises:
            pydantic.ValidationError: the checkpoint's curve is invalid.
            StageError: the bucket cannot be read.
        """
        path = folder / CURVE
        self.curve = Curve.from_json(path.read_bytes()) if path.exists() else Curve()
        while self._keep_best and (best := self.curve.best_step) is not None:
            if best == step:
                self._take(folder)
                return
            if checkpoints.download_file(best, adapter.WEIGHTS, self._folder):
                return
            log.warning("the checkpoint of step %d, the best so far, is gone; the next best one counts", best)
            self.curve.forget(best)

    def due(self, step: int) -> bool:
        """Return whether to measure the hold-out rows after `step`."""
        # While the learning rate warms up, or FP16 finds its scale, steps change nothing. If training makes the model
        # worse, such an adapter would be the best, and it would be of no use.
        return step in self._steps and not self.curve.has(step) and self._changed()

    def left(self, done: int) -> int:
        """Return how many measurements are still to come after `done` steps, if training does not stop early."""
        return sum(1 for step in self._steps if step > done)

    def measure(self, step: int) -> bool:
        """Measure them; return whether this step's adapter has to be kept.

        After SIGTERM the measurement is left to the next attempt.
        """
        try:
            loss = self._measure(step)
        except StopRequested:
            return False
        if not math.isfinite(loss):
            log.warning("the hold-out loss after step %d is not finite", step)
            return False
        best = self.curve.add(step, loss)
        log.info("hold-out loss after step %d: %.4f%s", step, loss, ", the best so far" if best else "")
        return best and self._keep_best

    @property
    def ended(self) -> bool:
        """True if training stops early."""
        return self.curve.exhausted(self._patience)

    @property
    def protected(self) -> int | None:
        """The step whose checkpoint must not be deleted."""
        return self.curve.best_step if self._keep_best else None

    def saved(self, folder: Path, step: int) -> None:
        """The trainer wrote the checkpoint of `step` to `folder`: add the curve, and keep its adapter if it is best."""
        (folder / CURVE).write_bytes(self.curve.to_json())
        if step == self.protected:
            self._take(folder)

    def restore(self, model: Any, last_step: int) -> int:
        """Put the kept adapter into the model, which has that of `last_step`; return its step."""
        best = self.protected
        if best is None or best == last_step:
            return last_step
        adapter.start_from(model, self._folder)
        log.info("the adapter of step %d is kept: its hold-out loss is the lowest", best)
        return best

    def _take(self, folder: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / adapter.WEIGHTS, self._folder / adapter.WEIGHTS)
