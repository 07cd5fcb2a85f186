"""When training has diverged: its loss is no number, or stays far above where it began.

Too high a learning rate does that. Such a training does not recover, so it ends early. What it learned before counts
if it is better than the base.
"""

import math
import re
from dataclasses import dataclass

from finetune_trainer.errors import DivergedError
from finetune_trainer.evaluation.verdict import Comparison
from finetune_trainer.gpu.precision import Precision

# The loss of single steps varies with their rows; that of so many in a row is no chance.
STEPS = 10


def far_above(start: float) -> float:
    """Return the loss above which training is lost: twice that of the start, and 1 more at least.

    The second is for small losses, of which rows differ by a multiple.
    """
    return max(2 * start, start + 1)


class DivergenceWatch:
    """Follows the loss of all steps of a run; a resumed attempt adds those of the earlier ones first."""

    def __init__(self, base: float | None) -> None:
        """`base`: the mean hold-out loss before training; None without hold-out rows."""
        self._base = base
        self._start: float | None = None
        self._steps = 0
        self._above = 0
        # What went wrong, in words, once training has diverged.
        self.found: str | None = None

    def add(self, loss: float) -> None:
        """Take in the loss of the next step."""
        self._steps += 1
        if not math.isfinite(loss):
            self.found = self.found or f"the loss became {loss} at step {self._steps}"
            return
        if self._start is None:
            # The first loss is that of the model before training, on a few rows; hold-out rows are more.
            self._start = max(loss, self._base or 0.0)
        limit = far_above(self._start)
        self._above = self._above + 1 if loss > limit else 0
        if self._above >= STEPS:
            self.found = self.found or (
                f"the loss of steps {self._steps - STEPS + 1} to {self._steps} was above {limit:.2f}, and it began at "
                f"{self._start:.2f}"
            )

    @property
    def ends_far_above(self) -> bool:
        """Whether the loss of the last step is far above the start: too few steps may have followed to be sure."""
        return self._above > 0


@dataclass(frozen=True)
class Remedy:
    """What would have kept training from diverging."""

    learning_rate: float
    precision: Precision

    @property
    def rate(self) -> str:
        """A tenth of the learning rate, as spec.training.learningRate has it."""
        return re.sub(r"e-0*", "e-", f"{self.learning_rate / 10:.3g}")

    def __str__(self) -> str:
        found = f'create the job again with spec.training.learningRate "{self.rate}", a tenth of its present one'
        if self.precision != "fp16":
            return found
        return f"{found}, or with spec.training.precision BF16 if the GPU supports it (compute capability 8.0 or newer)"


def conclude(
    watch: DivergenceWatch, comparison: Comparison | None, remedy: Remedy, *, finite: bool, kept_step: int
) -> str | None:
    """Return the warning about a training that diverged after a step that is worth keeping; None: it did not diverge.

    `finite`: whether the weights that are kept, and their hold-out loss, are numbers. `comparison` is of these with the
    base; None without hold-out rows, or if they are no numbers.

    Raises:
        DivergedError: it diverged, and what is kept is not better than the base.
    """
    found = watch.found
    if found is None and not finite:
        found = "the adapter's weights or its hold-out loss are not finite after training"
    if found is None and comparison is not None:
        found = _too_short_to_see(watch, comparison)
    if found is None:
        return None
    if comparison is None or comparison.verdict != "Better":
        raise DivergedError(f"training diverged: {found}, and no step that was kept is better than the base; {remedy}")
    return (
        f"TrainingDiverged: {found}; training ended early, and step {kept_step}, which is better than the base, was "
        f'kept; with training.learningRate "{remedy.rate}", a tenth, another job could train to its end'
    )


def _too_short_to_see(watch: DivergenceWatch, comparison: Comparison) -> str | None:
    # Both losses: overfitting raises that of the hold-out rows alone.
    if not watch.ends_far_above or comparison.tuned <= far_above(comparison.base):
        return None
    return f"the loss on the hold-out rows rose from {comparison.base:.2f} to {comparison.tuned:.2f}"
