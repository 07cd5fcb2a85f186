"""The hold-out loss over the steps of a run, the best step, and early stopping."""

import math
from dataclasses import dataclass, field

from finetune_api.base import Model

POINTS = 5


class CurvePoint(Model):
    """One measurement."""

    step: int
    # Mean of the method's own loss over the hold-out rows, each with the same weight.
    loss: float


class CurveFile(Model):
    """`curve.json` of a checkpoint: a resumed run keeps its earlier measurements."""

    points: list[CurvePoint]


def measurements(trained_rows: int, holdout_rows: int) -> int:
    """Return how often to measure: five times, or less often so that no more rows are measured than trained on.

    Measuring a row takes about a third of the time of training on one, so measuring stays the smaller part.
    """
    return max(1, min(POINTS, trained_rows // max(1, holdout_rows)))


def evaluation_steps(total_steps: int, points: int = POINTS) -> frozenset[int]:
    """Return the steps after which to measure: evenly spaced, with the last step."""
    return frozenset(math.ceil(total_steps * i / points) for i in range(1, points + 1)) - {0}


@dataclass
class Curve:
    """The measurements so far."""

    points: list[CurvePoint] = field(default_factory=list)

    def has(self, step: int) -> bool:
        """Return whether `step` was measured."""
        return any(point.step == step for point in self.points)

    def add(self, step: int, loss: float) -> bool:
        """Keep a measurement; return whether it is the best one."""
        self.points.append(CurvePoint(step=step, loss=loss))
        return self.best_step == step

    def forget(self, step: int) -> None:
        """Drop the measurement of a step whose adapter is lost, so that it cannot become the best step."""
        self.points = [point for point in self.points if point.step != step]

    @property
    def best_step(self) -> int | None:
        """The step with the lowest loss, the earliest of equals; None without measurements."""
        return min(self.points, key=lambda point: (point.loss, point.step)).step if self.points else None

    def exhausted(self, patience: int | None) -> bool:
        """Return whether none of the last `patience` measurements was better."""
        if patience is None:
            return False
        return sum(1 for point in self.points if point.step > (self.best_step or 0)) >= patience

    def to_json(self) -> bytes:
        """Return the file of a checkpoint."""
        return CurveFile(points=self.points).model_dump_json(by_alias=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Curve":
        """Read what `to_json` wrote.

        Raises:
            pydantic.ValidationError: the data is invalid.
        """
        return cls(CurveFile.model_validate_json(data).points)
