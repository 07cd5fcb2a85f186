"""When a GGUF counts as the model that was trained."""

from dataclasses import replace
from typing import get_args

import pytest

from finetune_api.spec import GGUFType
from finetune_trainer.export.parity.figures import Figures
from finetune_trainer.export.parity.limits import judge, limits

GOOD = Figures(top1=0.999, nll=1.01, nll_base=2.5, nll_tuned=1.0, kl=0.001, tokens=2000, slope=0.99, slope_error=0.01)
TYPES: tuple[GGUFType, ...] = get_args(GGUFType)


def wrong(figures: Figures, gguf_type: GGUFType, *, other_weights: bool = False) -> str | None:
    return judge(figures, limits(gguf_type, other_weights=other_weights, parameters=8_000_000_000))


@pytest.mark.parametrize("other_weights", [True, False])
@pytest.mark.parametrize("gguf_type", TYPES)
def test_a_faithful_file_passes(gguf_type: GGUFType, other_weights: bool) -> None:
    assert wrong(GOOD, gguf_type, other_weights=other_weights) is None


@pytest.mark.parametrize("other_weights", [True, False])
@pytest.mark.parametrize("gguf_type", TYPES)
@pytest.mark.parametrize("slope", [0.0, 2.0, -1.0])
def test_a_file_that_did_not_learn_the_same_fails_however_near_it_is(
    gguf_type: GGUFType, other_weights: bool, slope: float
) -> None:
    figures = replace(GOOD, slope=slope, slope_error=0.05)
    assert "of what the trained model did" in str(wrong(figures, gguf_type, other_weights=other_weights))


def test_half_of_what_was_learned_is_too_little_of_a_large_file() -> None:
    assert "learned 50% (± 10%)" in str(wrong(replace(GOOD, slope=0.5, slope_error=0.05), "Q8_0"))


def test_a_slope_that_is_off_by_chance_is_not_judged() -> None:
    assert wrong(replace(GOOD, slope=0.5, slope_error=0.3), "F16") is None


def test_other_predictions_fail_whatever_the_loss() -> None:
    assert wrong(replace(GOOD, top1=0.5), "Q8_0") == (
        "it predicts 50.0% of the tokens as the trained model does, at least 97% is needed"
    )


def test_a_divergence_fails_whatever_the_agreement() -> None:
    assert wrong(replace(GOOD, kl=0.5), "Q8_0") == (
        "its predictions diverge by 0.500 nats per token, at most 0.02 is allowed"
    )


def test_a_lost_gain_fails_in_a_file_that_is_nearly_lossless() -> None:
    lost = replace(GOOD, nll=1.4)
    assert "keeps 73% of what training gained" in str(wrong(lost, "F16"))
    assert wrong(lost, "Q4_K_M") is None


def test_small_models_and_other_weights_are_given_more() -> None:
    strict = limits("Q4_K_M", other_weights=False, parameters=8_000_000_000)
    small = limits("Q4_K_M", other_weights=False, parameters=135_000_000)
    other = limits("Q4_K_M", other_weights=True, parameters=8_000_000_000)

    assert all(wide.kl > strict.kl and wide.top1 < strict.top1 for wide in (small, other))
    assert all(wide.slope == strict.slope for wide in (small, other))


def test_a_model_of_unknown_size_is_not_taken_for_a_small_one() -> None:
    assert limits("F16", other_weights=False, parameters=None) == limits(
        "F16", other_weights=False, parameters=8_000_000_000
    )
