"""Divergence, slope and retained gain, as mathematics says they are."""

from typing import Any

import pytest

np = pytest.importorskip("numpy")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from finetune_trainer.export.parity.figures import Figures, Tokens, divergence, figures, regression  # noqa: E402

WORDS, KEPT = 12, 4
logits = st.lists(st.floats(-12, 12), min_size=WORDS, max_size=WORDS)


def log_softmax(values: list[float]) -> Any:
    array = np.array(values)
    return array - np.log(np.exp(array).sum())


def bucketed(p: Any, q: Any) -> float:
    """What is known of both when only the most likely of `p` are kept."""
    order = np.argsort(-p)
    top, rest = order[:KEPT], order[KEPT:]
    found = divergence(p[None, top], _sum(p[rest]), q[None, top], _sum(q[rest]))
    return float(found[0])


def _sum(values: Any) -> Any:
    return np.log(np.exp(values).sum())[None]


@given(logits, logits)
@settings(deadline=None)
def test_the_divergence_is_a_lower_bound_of_the_true_one(one: list[float], other: list[float]) -> None:
    p, q = log_softmax(one), log_softmax(other)
    exact = float((np.exp(p) * (p - q)).sum())

    assert -1e-9 <= bucketed(p, q) <= exact + 1e-9


@given(logits)
@settings(deadline=None)
def test_the_same_predictions_do_not_diverge(values: list[float]) -> None:
    p = log_softmax(values)

    assert bucketed(p, p) == 0


def test_the_divergence_of_all_tokens_is_exact_where_the_others_have_the_same_odds() -> None:
    p = log_softmax([3.0, 2.0, 1.0, 0.5, *[0.0] * 8])
    q = log_softmax([1.0, 2.0, 3.0, 0.5, *[-1.0] * 8])

    assert bucketed(p, q) == pytest.approx(float((np.exp(p) * (p - q)).sum()))


@given(st.floats(-3, 3), st.floats(-3, 3), st.lists(st.floats(-5, 5), min_size=3, max_size=50, unique_by=round))
@settings(deadline=None)
def test_the_slope_of_a_line_is_found_whatever_its_height(slope: float, height: float, x: list[float]) -> None:
    found = regression(np.array(x), slope * np.array(x) + height)

    assert found is not None
    assert found[0] == pytest.approx(slope, abs=1e-6)
    assert found[1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("x", [[], [1.0, 2.0], [1.0, 1.0, 1.0]])
def test_a_slope_takes_three_different_values(x: list[float]) -> None:
    assert regression(np.array(x), np.array(x)) is None


def test_the_slopes_error_is_what_it_scatters_by() -> None:
    numbers = np.random.default_rng(1)
    found = []
    for _ in range(400):
        x = numbers.standard_normal(200)
        found.append(regression(x, x + numbers.standard_normal(200) * (0.2 + abs(x))))
    slopes, errors = np.array(found).T

    assert slopes.mean() == pytest.approx(1, abs=0.02)
    assert errors.mean() == pytest.approx(slopes.std(), rel=0.15)


def measured(learned: float, noise: float, count: int = 2000) -> Figures:
    """Figures of a file with a share of what was learned, and noise of its own rounding."""
    numbers = np.random.default_rng(7)
    base = -numbers.exponential(2.0, count)
    gain = numbers.normal(0.2, 0.5, count)
    file = base + learned * gain + numbers.normal(0, noise, count)
    return figures([Tokens(base, base, base + gain, file, np.full(count, 0.03), np.ones(count))])


@pytest.mark.parametrize("learned", [0.0, 0.5, 1.0, 2.0])
def test_rounding_does_not_move_the_slope(learned: float) -> None:
    found = measured(learned, noise=0.8)

    assert found.slope == pytest.approx(learned, abs=0.15)
    assert found.slope_error == pytest.approx(0.8 / 0.5 / 2000**0.5, rel=0.15)


def test_what_both_bases_differ_by_does_not_move_the_slope() -> None:
    numbers = np.random.default_rng(7)
    base = -numbers.exponential(2.0, 2000)
    gain, rounding = numbers.normal(0.2, 0.5, 2000), numbers.normal(0.4, 0.8, 2000)
    own = base + rounding
    found = figures([Tokens(base, own, base + gain, own + gain, np.zeros(2000), np.ones(2000))])

    assert (found.slope, found.retained_gain) == (pytest.approx(1), pytest.approx(1))
    assert found.nll < found.nll_model


def test_rows_count_by_their_tokens() -> None:
    one = Tokens(*[np.zeros(1)] * 3, np.full(1, -4.0), np.full(1, 0.4), np.zeros(1))
    three = Tokens(*[np.zeros(3)] * 5, np.ones(3))
    found = figures([one, three])

    assert (found.nll, found.kl, found.top1, found.tokens) == (1.0, pytest.approx(0.1), 0.75, 4)


def of_losses(base: float, model: float, file: float, gain_error: float = 0.1) -> Figures:
    return Figures(
        top1=1,
        nll=file,
        nll_base=base,
        nll_model=model,
        nll_own_base=base,
        kl=0,
        tokens=9,
        error=0,
        gain_error=gain_error,
        own_gain_error=0,
    )


def test_the_retained_gain_is_the_share_of_the_loss_that_training_took_away() -> None:
    assert of_losses(3.0, 2.0, 2.2).retained_gain == pytest.approx(0.8)


@pytest.mark.parametrize("error", [0.5, 0.6])
def test_a_gain_within_two_standard_errors_tells_nothing_of_what_was_retained(error: float) -> None:
    assert of_losses(3.0, 2.0, 2.2, error).retained_gain is None


def test_a_training_that_made_it_worse_has_no_gain_to_retain() -> None:
    assert of_losses(2.0, 3.0, 2.2).retained_gain is None
