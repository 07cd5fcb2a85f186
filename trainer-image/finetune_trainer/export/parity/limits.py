"""The limits that a file must meet to count as the trained model.

They are for models of a billion parameters or more; a smaller model is allowed twice the divergence and three times the
disagreement. SmolLM2-135M-Instruct after six steps in 32 bit, asked in Korean, which it hardly speaks (421 tokens;
loss 4.165 before, 3.919 after; the slope's standard error in brackets; Q3_K_M, Q2_K and IQ
types with an importance matrix of the training rows):

    file      KL      top-1  slope          file                KL      top-1  slope
    F16       0.0000  1.000  1.00 (0.00)    F16 of the base     0.0610  0.841  0.00 (0.00)
    Q8_0      0.0041  0.936  1.04 (0.01)    Q4_K_M of the base  0.1348  0.777  -0.10 (0.06)
    Q6_K      0.0104  0.919  1.04 (0.02)    F16, B halved       0.0160  0.900  0.51 (0.01)
    Q5_K_M    0.0703  0.808  0.89 (0.07)    Q4_K_M, B halved    0.0788  0.796  0.34 (0.06)
    Q5_K_S    0.0826  0.801  0.96 (0.07)
    Q4_K_M    0.0513  0.850  0.83 (0.05)
    Q4_K_S    0.0706  0.824  0.66 (0.07)
    Q3_K_M    0.0860  0.793  0.67 (0.10)
    Q2_K      0.2871  0.629  1.00 (0.14)
    IQ4_XS    0.1125  0.770  0.72 (0.11)
    IQ3_M     0.1278  0.760  1.06 (0.08)

The limits of BF16 and IQ2_M follow those of their neighbours.

The same adapter on the model in 4 bit, exported from the original weights (loss 4.340 and 4.142):

    file      KL      top-1  gain  slope          file             KL      top-1  gain  slope
    F16       0.2453  0.665  2.13  0.98 (0.16)    F16 of the base  0.3530  0.639  0.88  0.00 (0.18)
    Q8_0      0.2477  0.653  2.14  1.02 (0.16)    Q8_0 of the base 0.3534  0.630  0.95  0.08 (0.18)
    Q4_K_M    0.2941  0.627  1.78  0.80 (0.19)

There, the original weights bring back what rounding to 4 bit removed. That hides what was learned in every figure but
the slope, in which the base of training is on both sides and cancels out.
"""

from dataclasses import dataclass, replace

from finetune_api.spec import GGUFType, MergeBase
from finetune_trainer.export.parity.figures import Figures


@dataclass(frozen=True)
class Limits:
    """Limits of `Figures`."""

    # Nats per token.
    kl: float
    top1: float
    # How much of what the trained model learned is in the file: neither less nor more. Fewer bits allow a wider range.
    slope: tuple[float, float] = (0.75, 1.35)
    # Only for types that round hardly at all; otherwise rounding would count as a loss of what was learned.
    retained_gain: float | None = None


_OF_FIVE_BITS = (0.7, 1.35)
_OF_FOUR_BITS = (0.6, 1.4)
_OF_FEWER_BITS = (0.4, 1.6)
_LIMITS: dict[GGUFType, Limits] = {
    "F16": Limits(0.01, 0.99, retained_gain=0.8),
    # Eight bits of precision round away a part of what a short training changed.
    "BF16": Limits(0.02, 0.97, retained_gain=0.7),
    "Q8_0": Limits(0.02, 0.97, retained_gain=0.8),
    "Q6_K": Limits(0.04, 0.95),
    "Q5_K_M": Limits(0.06, 0.92, _OF_FIVE_BITS),
    "Q5_K_S": Limits(0.07, 0.92, _OF_FIVE_BITS),
    "Q4_K_M": Limits(0.10, 0.90, _OF_FOUR_BITS),
    "Q4_K_S": Limits(0.12, 0.88, _OF_FOUR_BITS),
    "IQ4_XS": Limits(0.12, 0.88, _OF_FOUR_BITS),
    "Q3_K_M": Limits(0.25, 0.82, _OF_FEWER_BITS),
    "IQ3_M": Limits(0.30, 0.80, _OF_FEWER_BITS),
    "Q2_K": Limits(0.60, 0.70, _OF_FEWER_BITS),
    "IQ2_M": Limits(0.80, 0.65, _OF_FEWER_BITS),
}
# What rounding the weights to 4 bit in training adds to the divergence and takes from the agreement.
_OTHER_WEIGHTS = Limits(0.25, 0.15)
# Factors of the limits for models with fewer parameters than _SMALL_MODEL.
_SMALL = Limits(2.0, 3.0)
_SMALL_MODEL = 1_000_000_000
# The slope may be outside its range by this many standard errors.
_ERRORS = 2.0


def limits(gguf_type: GGUFType, *, other_weights: bool, parameters: int | None) -> Limits:
    """Return the limits for a file of this type.

    `other_weights`: it was made from the weights before rounding to 4 bit, not from those that training saw.
    """
    own = _LIMITS[gguf_type]
    if other_weights:
        own = replace(own, kl=own.kl + _OTHER_WEIGHTS.kl, top1=own.top1 - _OTHER_WEIGHTS.top1, retained_gain=None)
    if parameters is not None and parameters < _SMALL_MODEL:
        own = replace(own, kl=own.kl * _SMALL.kl, top1=max(0.4, 1 - (1 - own.top1) * _SMALL.top1))
    return own


def are_other_weights(trained_in_4bit: bool, merge_base: MergeBase | None, *, beside_base: bool) -> bool:
    """Return whether a file's weights differ from those of training.

    `beside_base`: the file is an adapter for the base's file.
    """
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
