"""The verdict over the hold-out rows."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.evaluation.verdict import FEWEST_ROWS, Comparison, compare

# Quarters: their sums and differences are exact.
LOSSES = st.integers(0, 80).map(lambda n: n / 4)
PAIRS = st.lists(st.tuples(LOSSES, LOSSES), min_size=1, max_size=40)
OPPOSITE = {"Better": "Worse", "Worse": "Better", "NotEnoughEvidence": "NotEnoughEvidence"}


def of(pairs: list[tuple[float, float]]) -> Comparison:
    found = compare([b for b, _ in pairs], [t for _, t in pairs])
    assert found is not None
    return found


@given(PAIRS)
def test_to_swap_base_and_tuned_turns_the_verdict(pairs: list[tuple[float, float]]) -> None:
    forth, back = of(pairs), of([(t, b) for b, t in pairs])

    assert back.verdict == OPPOSITE[forth.verdict]
    assert back.difference == -forth.difference


@given(PAIRS, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_unit_of_the_losses_does_not_matter(pairs: list[tuple[float, float]], factor: float) -> None:
    assert of([(b * factor, t * factor) for b, t in pairs]).verdict == of(pairs).verdict


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(pairs: list[tuple[float, float]], random: Random) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)

    assert of(shuffled).verdict == of(pairs).verdict


@given(st.lists(st.tuples(LOSSES, LOSSES), min_size=1, max_size=FEWEST_ROWS - 1))
def test_few_rows_are_never_enough(pairs: list[tuple[float, float]]) -> None:
    assert of(pairs).verdict == "NotEnoughEvidence"


@given(st.integers(FEWEST_ROWS, 40), LOSSES)
def test_what_did_not_change_is_not_better(rows: int, loss: float) -> None:
    assert of([(loss, loss)] * rows).verdict == "NotEnoughEvidence"


def test_the_same_gain_in_every_row_is_certain() -> None:
    found = of([(2.5, 1.5)] * FEWEST_ROWS)

    assert (found.verdict, found.standard_error) == ("Better", 0.0)


def test_pairing_finds_a_small_gain_between_rows_that_differ_much() -> None:
    assert of([(float(n), n - (0.1 if n % 2 else 0.2)) for n in range(1, 21)]).verdict == "Better"


def test_a_gain_in_one_row_of_many_is_not_enough() -> None:
    assert of([(2.0, 2.0)] * 9 + [(4.0, 1.0)]).verdict == "NotEnoughEvidence"


def test_standard_error_is_that_of_the_mean_difference() -> None:
    found = of([(2.0, 1.0), (2.0, 0.0), (2.0, 1.0), (2.0, 0.0)])

    # Differences 1, 2, 1, 2: sample variance 1/3, so sqrt(1/3/4).
    assert found.standard_error == pytest.approx(math.sqrt(1 / 12))
    assert found.difference == 1.5


def test_every_row_has_the_same_weight() -> None:
    assert (of([(4.0, 1.0), (2.0, 1.0)]).base, of([(4.0, 1.0), (2.0, 1.0)]).tuned) == (3.0, 1.0)


def test_no_rows_give_no_comparison() -> None:
    assert compare([], []) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        compare([1.0, 2.0], [1.0, bad])


def test_unequal_numbers_of_rows_are_refused() -> None:
    with pytest.raises(ValueError):
        compare([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (
            [(2.0, 1.0), (3.0, 1.5)] * 10,
            "On 20 rows it never saw, the loss fell from 2.50 to 1.25 (difference 1.25 +- 0.06).",
        ),
        (
            [(1.0, 2.0)] * 8,
            "On 8 rows it never saw, the loss rose from 1.00 to 2.00 (difference 1.00 +- 0.00): "
            "the base model is better.",
        ),
        (
            [(2.0, 1.0)],
            "On 1 row it never saw, the loss went from 2.00 to 1.00 (difference 1.00), which may be chance.",
        ),
    ],
)
def test_the_sentence_has_the_figures(pairs: list[tuple[float, float]], sentence: str) -> None:
    assert of(pairs).sentence == sentence
