"""The verdict: compares the losses of the hold-out rows before and after training, row by row."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.status import Verdict

# Two standard errors: 95 % of a normal distribution. With fewer rows the standard error itself is unreliable.
STANDARD_ERRORS = 2.0
FEWEST_ROWS = 8


@dataclass(frozen=True)
class Comparison:
    """Means over the rows, each row with the same weight, in the unit of the losses.

    `difference` = mean(base_i - tuned_i) = `base` - `tuned`: above 0 if the loss fell. `standard_error` =
    s / sqrt(n) with the sample standard deviation s of the n differences; None for a single row. Pairing removes
    the differences between rows, which would otherwise hide the effect of training.
    """

    rows: int
    base: float
    tuned: float
    difference: float
    standard_error: float | None

    @property
    def verdict(self) -> Verdict:
        """Better or Worse if the difference is more than chance explains."""
        if self.rows < FEWEST_ROWS or self.standard_error is None:
            return "NotEnoughEvidence"
        if abs(self.difference) <= STANDARD_ERRORS * self.standard_error:
            return "NotEnoughEvidence"
        return "Better" if self.difference > 0 else "Worse"

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        spread = "" if self.standard_error is None else f" +- {self.standard_error:.2f}"
        figures = f"from {self.base:.2f} to {self.tuned:.2f} (difference {abs(self.difference):.2f}{spread})"
        rows = f"On {self.rows} rows it never saw" if self.rows != 1 else "On 1 row it never saw"
        if self.verdict == "Better":
            return f"{rows}, the loss fell {figures}."
        if self.verdict == "Worse":
            return f"{rows}, the loss rose {figures}: the base model is better."
        return f"{rows}, the loss went {figures}, which may be chance."


def compare(base: Sequence[float], tuned: Sequence[float]) -> Comparison | None:
    """Compare the losses of the same rows in the same order; None if there are none.

    Raises:
        ValueError: a loss is not finite, or the numbers of rows differ.
    """
    if not all(map(math.isfinite, [*base, *tuned])):
        raise ValueError("a loss is not finite")
    differences = [before - after for before, after in zip(base, tuned, strict=True)]
    if not differences:
        return None
    rows = len(differences)
    return Comparison(
        rows=rows,
        base=statistics.fmean(base),
        tuned=statistics.fmean(tuned),
        difference=statistics.fmean(differences),
        standard_error=statistics.stdev(differences) / math.sqrt(rows) if rows > 1 else None,
    )
