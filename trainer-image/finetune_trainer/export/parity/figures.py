"""How close a file's predictions are to the trained model's, as numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# A gain of fewer standard errors is too small to tell how much of it a file retains.
_MEASURABLE = 2.0


@dataclass(frozen=True)
class Figures:
    """What was measured over all supervised tokens; losses and divergences in nats per token.

    - kl: of the file from the trained model, KL(trained || file). It is summed over the trained model's 64 most likely
      tokens and all others as one: sum_i p_i ln(p_i / q_i) + r_p ln(r_p / r_q). By the log-sum inequality that is never
      more than the true divergence.
    - top1: share of tokens for which both have the same most likely token.
    - gain_error: standard error of the gain nll_base - nll_tuned.
    - slope: of the regression of ln q - ln b on ln p - ln b over the true tokens, where b is the base as it was loaded
      for training: 1 if the file learned what the trained model did, 0 if it learned nothing. Rounding the
      file adds noise that does not depend on what was learned: it widens the slope's error but does not shift it.
    """

    top1: float
    nll: float
    nll_base: float
    nll_tuned: float
    kl: float | None = None
    tokens: int = 0
    gain_error: float = 0.0
    slope: float | None = None
    slope_error: float | None = None

    @property
    def retained_gain(self) -> float | None:
        """(base - file) / (base - trained); None if the gain of training is within chance."""
        gain = self.nll_base - self.nll_tuned
        measurable = gain > 0 and gain > _MEASURABLE * self.gain_error
        return (self.nll_base - self.nll) / gain if measurable else None


@dataclass(frozen=True)
class Tokens:
    """The file's predictions: arrays with one number per supervised token."""

    # Log-probabilities of the true token, in nats.
    base: Any
    tuned: Any
    file: Any
    # KL divergence in nats, and whether the most likely token is the same.
    kl: Any
    agrees: Any


def divergence(top: Any, rest: Any, file_top: Any, file_rest: Any) -> Any:
    """Return KL(trained || file) in nats by position, from log-probabilities: [n, k] of the same tokens, and [n]."""
    import numpy as np

    return (np.exp(top) * (top - file_top)).sum(axis=1) + np.exp(rest) * (rest - file_rest)


def regression(x: Any, y: Any) -> tuple[float, float] | None:
    """Return the slope of y on x and its standard error, or None if x is constant or has fewer than three values.

    The error is White's (1980), HC0, because likely tokens scatter less than unlikely ones.
    """
    import numpy as np

    if len(x) < 3:
        return None
    centred = x - x.mean()
    spread = float((centred**2).sum())
    if not spread > 0:
        return None
    slope = float((centred * y).sum()) / spread
    left = y - y.mean() - slope * centred
    return slope, float(np.sqrt((centred**2 * left**2).sum())) / spread


def figures(parts: Sequence[Tokens]) -> Figures:
    """Return the figures over the tokens of all rows."""
    import numpy as np

    base, tuned, file, kl, agrees = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("base", "tuned", "file", "kl", "agrees")
    )
    gain = tuned - base
    found = regression(gain, file - base)
    return Figures(
        top1=float(agrees.mean()),
        nll=-float(file.mean()),
        nll_base=-float(base.mean()),
        nll_tuned=-float(tuned.mean()),
        kl=max(0.0, float(kl.mean())),
        tokens=len(base),
        gain_error=float(gain.std()) / math.sqrt(len(gain)),
        slope=found[0] if found else None,
        slope_error=found[1] if found else None,
    )
