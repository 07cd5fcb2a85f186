"""What a file has to reach to count as the model that was trained."""

from dataclasses import dataclass, replace

from finetune_api.spec import GGUFType, MergeBase
from finetune_trainer.parity_figures import Figures


@dataclass(frozen=True)
class Limits:
    """What a file has to reach; see `Figures`."""

    # Nats per token.
    kl: float
    top1: float
    # The file learned what the trained model did: not less, nor more.
    slope: tuple[float, float] = (0.75, 1.35)
    # Asked of files whose rounding is no loss worth to speak of.
    retained_gain: float | None = None


_LIMITS: dict[GGUFType, Limits] = {
    "F16": Limits(0.01, 0.99, retained_gain=0.8),
    "BF16": Limits(0.02, 0.97, retained_gain=0.8),
    "Q8_0": Limits(0.02, 0.97, retained_gain=0.8),
    "Q6_K": Limits(0.04, 0.95),
    "Q5_K_M": Limits(0.06, 0.92),
    "Q5_K_S": Limits(0.07, 0.92),
    "Q4_K_M": Limits(0.10, 0.90),
    "Q4_K_S": Limits(0.12, 0.88),
    "Q3_K_M": Limits(0.25, 0.82),
    "Q2_K": Limits(0.60, 0.70),
    "IQ4_XS": Limits(0.12, 0.88),
    "IQ3_M": Limits(0.30, 0.80),
    "IQ2_M": Limits(0.80, 0.65),
}
# What rounding the weights of training to 4 bit adds to the divergence, and takes from the agreement.
_OTHER_WEIGHTS = Limits(0.30, 0.20)
# Factors of what is allowed, for a model below so many parameters.
_SMALL = Limits(2.0, 2.0)
_SMALL_MODEL = 1_000_000_000
# Errors of the slope within which it may be off by chance.
_ERRORS = 2.0


def limits(gguf_type: GGUFType, *, other_weights: bool, parameters: int | None) -> Limits:
    """Return what a file of this type has to reach.

    `other_weights`: it was not made of the weights that training saw, but of what they were before rounding to 4 bit.
    """
    own = _LIMITS[gguf_type]
    if other_weights:
        own = replace(own, kl=own.kl + _OTHER_WEIGHTS.kl, top1=own.top1 - _OTHER_WEIGHTS.top1, retained_gain=None)
    if parameters is not None and parameters < _SMALL_MODEL:
        own = replace(own, kl=own.kl * _SMALL.kl, top1=1 - (1 - own.top1) * _SMALL.top1)
    return own


def are_other_weights(trained_in_4bit: bool, merge_base: MergeBase | None, *, beside_base: bool) -> bool:
    """Whether a file was not made of the weights that training saw. `beside_base`: of an adapter on the base's file."""
    return trained_in_4bit and (merge_base == "Original" or beside_base)


def judge(figures: Figures, required: Limits) -> str | None:
    """Return what is wrong, or None."""
    if figures.slope is not None and figures.slope_error is not None:
        low, high = required.slope
        margin = _ERRORS * figures.slope_error
        if figures.slope + margin < low or figures.slope - margin > high:
            return (
                f"per token it learned {figures.slope:.0%} (± {margin:.0%}) of what the trained model did, "
                f"{low:.0%} to {high:.0%} is needed"
            )
    if figures.kl is not None and figures.kl > required.kl:
        return f"its predictions diverge by {figures.kl:.3f} nats per token, at most {required.kl:g} is allowed"
    if figures.top1 < required.top1:
        return (
            f"it predicts {figures.top1:.1%} of the tokens as the trained model does, "
            f"at least {required.top1:.0%} is needed"
        )
    gain = figures.retained_gain
    if gain is not None and required.retained_gain is not None and gain < required.retained_gain:
        return f"it keeps {gain:.0%} of what training gained, at least {required.retained_gain:.0%} is needed"
    return None
