"""The losses and rewards of single rows, against the papers' formulas."""

import math

import pytest

from finetune_api.plan import PreferencePlan
from finetune_trainer.methods import dpo, kto, orpo
from finetune_trainer.methods.kto import BinaryRow
from finetune_trainer.methods.preference import PreferenceRow

PAIR = PreferenceRow(0, [5], [6, 7], [8, 9, 10, 11])
GOOD, BAD = BinaryRow(0, [5], [6, 7], True), BinaryRow(1, [8], [9], False)
SETTINGS = PreferencePlan(beta=0.5, desirable_weight=2.0, undesirable_weight=3.0)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_the_dpo_loss_of_the_base_is_log_2() -> None:
    made = dpo.score((-10.0, -20.0), (-10.0, -20.0), 0.1)
    assert made.loss == pytest.approx(math.log(2))
    assert (made.good_reward, made.bad_reward) == (0.0, 0.0)


def test_the_dpo_loss_counts_what_changed_since_before() -> None:
    made = dpo.score((-8.0, -23.0), (-10.0, -20.0), 0.1)
    assert (made.good_reward, made.bad_reward) == pytest.approx((0.2, -0.3))
    assert made.loss == pytest.approx(-math.log(sigmoid(0.5)))


def test_a_very_wrong_preference_does_not_overflow() -> None:
    assert dpo.score((-10000.0, 0.0), (0.0, -10000.0), 1.0).loss == pytest.approx(20000.0)


def test_the_orpo_loss_is_the_plain_one_and_the_odds_ratio_of_mean_tokens() -> None:
    made = orpo.score(PAIR, (-2.0, -8.0), 0.1)

    def odds(log_probability: float) -> float:
        return math.exp(log_probability) / (1 - math.exp(log_probability))

    assert made.loss == pytest.approx(1.0 - 0.1 * math.log(sigmoid(math.log(odds(-1.0) / odds(-2.0)))))
    assert made.good_reward == pytest.approx(0.1 * math.log(odds(-1.0)))
    assert made.bad_reward == pytest.approx(0.1 * math.log(odds(-2.0)))


def test_orpo_takes_an_answer_that_is_certain() -> None:
    assert math.isfinite(orpo.score(PAIR, (0.0, -8.0), 0.1).loss)


def test_the_kto_loss_of_the_base_is_half_the_weight() -> None:
    sums = [(-10.0, -30.0), (-20.0, -40.0)]
    made = kto.scores([GOOD, BAD], sums, sums, SETTINGS)
    assert [score.loss for score in made] == [1.0, 1.5]


def test_the_kto_loss_is_relative_to_the_drift_on_mismatched_answers() -> None:
    before, now = [(-10.0, -30.0), (-20.0, -40.0)], [(-7.0, -28.0), (-21.0, -38.0)]
    good, bad = kto.scores([GOOD, BAD], now, before, SETTINGS)
    assert good.loss == pytest.approx(2.0 * (1 - sigmoid(0.5 * (3.0 - 2.0))))
    assert bad.loss == pytest.approx(3.0 * (1 - sigmoid(0.5 * (2.0 + 1.0))))
    assert (good.good_reward, good.bad_reward, bad.good_reward, bad.bad_reward) == (1.5, None, None, -0.5)


def test_a_negative_drift_counts_as_none() -> None:
    before, now = [(-10.0, -30.0)], [(-7.0, -35.0)]
    (made,) = kto.scores([GOOD], now, before, SETTINGS)
    assert made.loss == pytest.approx(2.0 * (1 - sigmoid(0.5 * 3.0)))


def test_no_hold_out_rows_have_no_scores() -> None:
    assert kto.scores([], [], [], SETTINGS) == []
