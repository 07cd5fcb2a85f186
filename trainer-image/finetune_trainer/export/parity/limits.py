"""The limits that a file must meet.

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

Nothing is required of how much a file learned at most: merged into the weights before rounding to 4 bit, it gets back
what rounding removed, and may be better than the trained model by more than training gained.
"""

from dataclasses import dataclass, replace

from finetune_api.spec import GGUFType, MergeBase
from finetune_trainer.export.parity.figures import MEASURABLE, Figures


@dataclass(frozen=True)
class Limits:
    """Limits of `Figures`. None: not required."""

    # At most, in nats per token.
    kl: float | None = None
    # At least.
    top1: float | None = None
    # At least: how much of what the model learned is in the file.
    slope: float | None = None
    # How much higher than the model's its loss may be, in nats per token.
    loss: float | None = None
    # Whether it may not be worse than its own base.
    improves: bool = False


# The slope of types that round hardly at all, and of those that round away a part of what a short training changed:
# that it is a part shows that they were made of the right file.
_LOSSLESS, _ROUNDED = 0.75, 0.25
_LIMITS: dict[GGUFType, Limits] = {
    "F16": Limits(0.01, 0.99, _LOSSLESS, 0.02, improves=True),
    "BF16": Limits(0.02, 0.97, _LOSSLESS),
    "Q8_0": Limits(0.02, 0.97, _LOSSLESS),
    "Q6_K": Limits(0.04, 0.95, _ROUNDED),
    "Q5_K_M": Limits(0.06, 0.92, _ROUNDED),
    "Q5_K_S": Limits(0.07, 0.92, _ROUNDED),
    "Q4_K_M": Limits(0.10, 0.90, _ROUNDED),
    "Q4_K_S": Limits(0.12, 0.88, _ROUNDED),
    "IQ4_XS": Limits(0.12, 0.88, _ROUNDED),
    "Q3_K_M": Limits(0.25, 0.82, _ROUNDED),
    "IQ3_M": Limits(0.30, 0.80, _ROUNDED),
    "Q2_K": Limits(0.60, 0.70, _ROUNDED),
    "IQ2_M": Limits(0.80, 0.65, _ROUNDED),
}
# In other weights than those of training an adapter does not do the very same: how much worse it may be.
_LOSS_ON_OTHER_WEIGHTS = 0.1
# Factors of the limits for models with fewer parameters than _SMALL_MODEL.
_SMALL_KL, _SMALL_DISAGREEMENT = 2.0, 3.0
_SMALL_MODEL = 1_000_000_000


def limits(gguf_type: GGUFType, *, other_weights: bool, is_exact: bool, parameters: int | None) -> Limits:
    """Return the limits for a file of this type.

    `other_weights`: it was made from the weights before rounding to 4 bit, not from those that training saw.
    `is_exact`: each of its weights is proven, so that only llama.cpp itself is still in question.
    """
    own = _LIMITS[gguf_type]
    # The others are held against the F16 file, whose weights they have.
    if other_weights and gguf_type == "F16":
        own = replace(own, kl=None, top1=None, loss=_LOSS_ON_OTHER_WEIGHTS)
    if is_exact:
        own = replace(own, slope=None)
    if parameters is None or parameters >= _SMALL_MODEL:
        return own
    return replace(
        own,
        kl=None if own.kl is None else own.kl * _SMALL_KL,
        top1=None if own.top1 is None else max(0.4, 1 - (1 - own.top1) * _SMALL_DISAGREEMENT),
    )


def are_other_weights(trained_in_4bit: bool, merge_base: MergeBase | None, *, beside_base: bool) -> bool:
    """Return whether a file's weights differ from those of training.

    `beside_base`: the file is an adapter for the base's file.
    """
    return trained_in_4bit and (merge_base == "Original" or beside_base)


def judge(figures: Figures, required: Limits) -> str | None:
    """Return what is wrong, or None."""
    if required.slope is not None and figures.slope is not None and figures.slope_error is not None:
        margin = MEASURABLE * figures.slope_error
        if figures.slope + margin < required.slope:
            return (
                f"per token it learned {figures.slope:.0%} (± {margin:.0%}) of what it had to, "
                f"at least {required.slope:.0%} is needed"
            )
    if required.loss is not None:
        margin = MEASURABLE * figures.error
        if figures.nll - figures.nll_model > required.loss + margin:
            return (
                f"its loss is {figures.nll:.3f}, the trained model's {figures.nll_model:.3f}, and "
                f"{required.loss:g} (± {margin:.3f}) more is allowed"
            )
    worse = figures.nll - figures.nll_own_base > MEASURABLE * figures.own_gain_error
    if required.improves and figures.is_gain_measurable and worse:
        return f"its loss is {figures.nll:.3f}, and without the adapter it is lower, {figures.nll_own_base:.3f}"
    if required.kl is not None and figures.kl > required.kl:
        return f"its predictions diverge by {figures.kl:.3f} nats per token, at most {required.kl:g} is allowed"
    if required.top1 is not None and figures.top1 < required.top1:
        return f"it predicts {figures.top1:.1%} of the tokens as it must, at least {required.top1:.0%} is needed"
    return None
