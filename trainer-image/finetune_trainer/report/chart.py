"""The geometry of the report's loss curve, in the units of an SVG's viewBox: x to the right, y downwards."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.report import StepValue

# With fewer points a moving mean adds nothing.
_FEWEST_TO_SMOOTH = 30
_WINDOWS = 25
# Margins around the plot for the labels of the ticks.
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 12.0, 30.0


@dataclass(frozen=True)
class Tick:
    """A line of the grid with its label."""

    position: float
    label: str


@dataclass(frozen=True)
class Dot:
    """One hold-out measurement."""

    x: float
    y: float
    kept: bool


@dataclass(frozen=True)
class LossChart:
    """Everything that the template draws; lines are `points` attributes."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    loss: str
    # The moving mean; empty for a short curve.
    smooth: str
    holdout: str
    dots: list[Dot]
    # The x of the kept step.
    kept: float


def loss_chart(
    loss: Sequence[StepValue], holdout: Sequence[StepValue], kept_step: int, width: int, height: int
) -> LossChart | None:
    """Return the chart of both curves, or None if there is nothing finite to draw."""
    loss, holdout = finite(loss), finite(holdout)
    points = [*loss, *holdout]
    if not points:
        return None
    values = [p.value for p in points]
    labels = max(3, width // 80)
    y_scale = ticks(min(values), max(values), 5)
    x_scale = ticks(0, max(1, kept_step, *(p.step for p in points)), labels, whole=True)
    last = max(1, kept_step, *(p.step for p in points))
    right, bottom = width - _RIGHT, height - _BOTTOM

    def x(step: float) -> float:
        return round(_LEFT + (right - _LEFT) * step / last, 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - _TOP) * (value - y_scale[0]) / (y_scale[-1] - y_scale[0]), 1)

    def line(of: Sequence[StepValue]) -> str:
        return " ".join(f"{x(p.step):g},{y(p.value):g}" for p in of)

    decimals = max(0, -math.floor(math.log10(y_scale[1] - y_scale[0]) + 1e-9))
    return LossChart(
        width=width,
        height=height,
        left=_LEFT,
        right=right,
        top=_TOP,
        bottom=bottom,
        x_ticks=[Tick(x(t), f"{t:,.0f}") for t in x_scale if t <= last],
        y_ticks=[Tick(y(t), f"{t:.{decimals}f}" if abs(t) < 1e5 else f"{t:.1e}") for t in y_scale],
        loss=line(loss),
        smooth=line(smoothed(loss)) if len(loss) >= _FEWEST_TO_SMOOTH else "",
        holdout=line(holdout),
        dots=[Dot(x(p.step), y(p.value), p.step == kept_step) for p in holdout],
        kept=x(kept_step),
    )


def finite(points: Sequence[StepValue]) -> list[StepValue]:
    """Return the points that can be drawn; a diverged loss may not be finite."""
    return [p for p in points if math.isfinite(p.value)]


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Return about `most` + 2 round numbers at most (1, 2 or 5 times a power of ten apart) that enclose low and high.

    There are at least two, so that a flat curve can be drawn.
    """
    if high <= low:
        margin = abs(low) * 0.1 or 1.0
        low, high = (low, high + margin) if whole else (low - margin, high + margin)
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Products, not sums: adding 0.1 ten times does not give 1.
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def smoothed(points: Sequence[StepValue]) -> list[StepValue]:
    """Return the centred moving mean over a twenty-fifth of the points; at the ends the window is shorter."""
    half = max(1, len(points) // _WINDOWS // 2)
    found = []
    for i, point in enumerate(points):
        near = points[max(0, i - half) : i + half + 1]
        found.append(StepValue(step=point.step, value=sum(p.value for p in near) / len(near)))
    return found


def table(
    loss: Sequence[StepValue], holdout: Sequence[StepValue], most: int
) -> list[tuple[int, float | None, float | None]]:
    """Return rows of step, training loss and hold-out loss: every hold-out point, and at most `most` others."""
    trained, held = {p.step: p.value for p in loss}, {p.step: p.value for p in holdout}
    chosen = list(trained)
    if len(chosen) > most:
        last = len(chosen) - 1
        chosen = [chosen[round(i * last / (most - 1))] for i in range(most)]
    return [(step, trained.get(step), held.get(step)) for step in sorted({*chosen, *held})]
