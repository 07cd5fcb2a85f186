"""When a GGUF counts as the model that was trained."""

from dataclasses import replace
from typing import get_args

import pytest

from finetune_api.spec import GGUFType
from finetune_trainer.export.parity.figures import Figures
from finetune_trainer.export.parity.limits import judge, limits

GOOD = Figures(
    top1=0.999,
    nll=1.001,
    nll_base=2.5,
    nll_model=1.0,
    nll_own_base=2.4,
    kl=0.001,
    tokens=2000,
    error=0.001,
    gain_error=0.02,
    own_gain_error=0.02,
    slope=0.99,
    slope_error=0.01,
)
TYPES: tuple[GGUFType, ...] = get_args(GGUFType)


def wrong(figures: Figures, gguf_type: GGUFType, *, other_weights: bool = False, is_exact: bool = False) -> str | None:
    required = limits(gguf_type, other_weights=other_weights, is_exact=is_exact, parameters=8_000_000_000)
    return judge(figures, required)


@pytest.mark.parametrize("other_weights", [True, False])
@pytest.mark.parametrize("gguf_type", TYPES)
def test_a_faithful_file_passes(gguf_type: GGUFType, other_weights: bool) -> None:
    assert wrong(GOOD, gguf_type, other_weights=other_weights) is None


@pytest.mark.parametrize("other_weights", [True, False])
@pytest.mark.parametrize("gguf_type", TYPES)
@pytest.mark.parametrize("slope", [0.0, -1.0])
def test_a_file_that_learned_nothing_fails_however_near_it_is(
    gguf_type: GGUFType, other_weights: bool, slope: float
) -> None:
    figures = replace(GOOD, slope=slope, slope_error=0.05)
    assert "of what it had to" in str(wrong(figures, gguf_type, other_weights=other_weights))


def test_half_of_what_was_learned_is_too_little_of_a_large_file() -> None:
    assert "learned 50% (± 10%)" in str(wrong(replace(GOOD, slope=0.5, slope_error=0.05), "Q8_0"))


def test_a_slope_that_is_off_by_chance_is_not_judged() -> None:
    assert wrong(replace(GOOD, slope=0.5, slope_error=0.3), "F16") is None


@pytest.mark.parametrize("slope", [0.4, 2.48])
def test_weights_that_are_proven_need_no_slope(slope: float) -> None:
    assert wrong(replace(GOOD, slope=slope), "F16", is_exact=True) is None


def test_to_be_better_than_the_trained_model_is_no_fault() -> None:
    # As the original weights are, where training rounded them to 4 bit.
    better = replace(GOOD, nll=1.978, nll_model=2.188, nll_base=2.37, nll_own_base=2.1, slope=2.48, kl=0.3, top1=0.6)
    assert wrong(better, "F16", other_weights=True, is_exact=True) is None


def test_a_file_that_is_worse_than_the_trained_model_fails() -> None:
    assert wrong(replace(GOOD, nll=1.11), "F16", other_weights=True) == (
        "its loss is 1.110, the trained model's 1.000, and 0.1 (± 0.002) more is allowed"
    )
    assert wrong(replace(GOOD, nll=1.03), "F16") is not None


def test_a_file_that_is_worse_than_its_own_base_fails() -> None:
    worse = replace(GOOD, nll_own_base=0.9)
    assert wrong(worse, "F16") == "its loss is 1.001, and without the adapter it is lower, 0.900"
    assert wrong(replace(worse, own_gain_error=0.06), "F16") is None
    # Rounding to fewer bits costs more than a short training gains.
    assert wrong(worse, "Q4_K_M") is None


def test_other_predictions_fail_whatever_the_loss() -> None:
    assert wrong(replace(GOOD, top1=0.5), "Q8_0") == (
        "it predicts 50.0% of the tokens as it must, at least 97% is needed"
    )


@pytest.mark.parametrize("other_weights", [True, False])
def test_a_divergence_fails_whatever_the_agreement_and_whatever_was_trained(other_weights: bool) -> None:
    assert wrong(replace(GOOD, kl=0.5), "Q8_0", other_weights=other_weights) == (
        "its predictions diverge by 0.500 nats per token, at most 0.02 is allowed"
    )


def test_small_models_are_given_more() -> None:
    strict = limits("Q4_K_M", other_weights=False, is_exact=False, parameters=8_000_000_000)
    small = limits("Q4_K_M", other_weights=False, is_exact=False, parameters=135_000_000)
    assert (small.kl, small.top1, small.slope) == (pytest.approx(0.2), pytest.approx(0.7), strict.slope)


def test_a_model_of_unknown_size_is_not_taken_for_a_small_one() -> None:
    unknown, large = (
        limits("F16", other_weights=False, is_exact=False, parameters=count) for count in (None, 8_000_000_000)
    )
    assert unknown == large
