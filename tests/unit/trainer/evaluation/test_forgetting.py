"""The measure of forgetting, without a model."""

import math

import pytest

from finetune_trainer.evaluation import forgetting

torch = pytest.importorskip("torch")


def test_half_of_the_questions_are_korean_and_each_is_there_once() -> None:
    asked = forgetting.questions()
    korean = [q for q in asked if any("가" <= character <= "힣" for character in q.prompt)]

    assert (len(asked), len(korean)) == (40, 20)
    assert len({q.prompt for q in asked}) == len(asked)
    assert all(q.answer.strip() for q in asked)


def test_what_did_not_change_has_no_divergence() -> None:
    logits = torch.randn(5, 11)

    # A constant added to all logits of a position changes no probability.
    assert forgetting.kl_sum(logits, logits + 3.0) == pytest.approx(0.0, abs=1e-5)


def test_divergence_is_that_of_the_distributions() -> None:
    base, tuned = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()

    assert forgetting.kl_sum(base, tuned) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))


def test_long_answers_are_summed_over_all_their_positions() -> None:
    base, tuned = torch.randn(100, 7), torch.randn(100, 7)
    whole = torch.nn.functional.kl_div(tuned.log_softmax(1), base.log_softmax(1), reduction="sum", log_target=True)

    assert forgetting.kl_sum(base, tuned) == pytest.approx(float(whole), rel=1e-5)
