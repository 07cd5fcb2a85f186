"""The lengths of the rows."""

from typing import Any, Literal

from finetune_api.report import Bin, Lengths


def summary(values: Any, unit: Literal["tokens", "characters"]) -> Lengths | None:
    """Return statistics of an array of lengths; each bin of the histogram is twice as wide as the previous one."""
    import numpy as np

    if not len(values):
        return None
    ordered = np.sort(values)
    bins: list[Bin] = []
    up_to, before = 64, 0
    while before < len(ordered):
        reached = int(np.searchsorted(ordered, up_to, side="right"))
        if reached > before or bins:
            bins.append(Bin(up_to=up_to, count=reached - before))
        before, up_to = reached, up_to * 2
    return Lengths(
        unit=unit,
        minimum=int(ordered[0]),
        median=_percentile(ordered, 50),
        p95=_percentile(ordered, 95),
        maximum=int(ordered[-1]),
        histogram=bins,
    )


def _percentile(ordered: Any, percent: int) -> int:
    """Nearest rank: always the length of some row."""
    return int(ordered[max(-(-len(ordered) * percent // 100), 1) - 1])
