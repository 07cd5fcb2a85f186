"""How close a file's predictions are to those of the model that it is held against, as numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# A difference of fewer standard errors is within chance.
MEASURABLE = 2.0


@dataclass(frozen=True)
class Figures:
    """What was measured over all supervised tokens; losses and divergences in nats per token.

    A file is held against a model: the F16 file and the adapter's against the trained model, the others against the
    F16 file.

    - kl: of the file from the model, KL(model || file). It is summed over the model's 64 most likely tokens and all
      others as one: sum_i p_i ln(p_i / q_i) + r_p ln(r_p / r_q). By the log-sum inequality that is never more than the
      true divergence.
    - top1: share of tokens for which both have the same most likely token.
    - nll, nll_model: of the file and of the model, and error: the standard error of their difference.
    - nll_base: of the base as the model was loaded for training; gain_error: standard error of nll_base - nll_model.
    - nll_own_base: of the base in the file's own weights, which differ from nll_base where training rounded to 4 bit;
      own_gain_error: standard error of nll_own_base - nll.
    - slope: of the regression of ln q - ln c on ln p - ln b over the true tokens, where b is the base of the model and
      c the file's own: 1 if the file learned what the model did, 0 if it learned nothing. Rounding the file adds noise
      that does not depend on what was learned: it widens the slope's error but does not shift it.
    """

    top1: float
    nll: float
    nll_base: float
    nll_model: float
    nll_own_base: float
    kl: float
    tokens: int
    error: float
    gain_error: float
    own_gain_error: float
    slope: float | None = None
    slope_error: float | None = None

    @property
    def is_gain_measurable(self) -> bool:
        """Whether the model gained more than chance explains."""
        gain = self.nll_base - self.nll_model
        return gain > 0 and gain > MEASURABLE * self.gain_error

    @property
    def retained_gain(self) -> float | None:
        """(own base - file) / (base - model); None if the gain of training is within chance."""
        if not self.is_gain_measurable:
            return None
        return (self.nll_own_base - self.nll) / (self.nll_base - self.nll_model)


@dataclass(frozen=True)
class Tokens:
    """Predictions of the file and the model that it is held against: arrays with one number per supervised token."""

    # Log-probabilities of the true token, in nats.
    base: Any
    own_base: Any
    model: Any
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

    names = ("base", "own_base", "model", "file", "kl", "agrees")
    base, own_base, model, file, kl, agrees = (np.concatenate([getattr(p, name) for p in parts]) for name in names)
    gain, own_gain = model - base, file - own_base
    found = regression(gain, own_gain)
    return Figures(
        top1=float(agrees.mean()),
        nll=-float(file.mean()),
        nll_base=-float(base.mean()),
        nll_model=-float(model.mean()),
        nll_own_base=-float(own_base.mean()),
        kl=max(0.0, float(kl.mean())),
        tokens=len(base),
        error=_standard_error(file - model),
        gain_error=_standard_error(gain),
        own_gain_error=_standard_error(own_gain),
        slope=found[0] if found else None,
        slope_error=found[1] if found else None,
    )


def _standard_error(values: Any) -> float:
    return float(values.std()) / math.sqrt(len(values))
