"""Rewards of the preference methods."""

from finetune_trainer.evaluation.rewards import Rewards, rewards
from finetune_trainer.methods.interface import Score


def pair(good: float, bad: float) -> Score:
    return Score(loss=0.5, good_reward=good, bad_reward=bad)


def test_a_pair_is_judged_rightly_if_the_good_answer_has_the_higher_reward() -> None:
    assert rewards([pair(0.5, 0.25), pair(-0.25, -0.5), pair(0.0, 0.25), pair(0.5, 0.5)]) == Rewards(
        accuracy=0.5, margin=0.0625
    )


def test_a_single_answer_is_judged_by_the_sign_of_its_reward() -> None:
    scores = [
        Score(0.5, good_reward=0.5),
        Score(0.5, good_reward=-0.25),
        Score(0.5, bad_reward=-0.5),
        Score(0.5, bad_reward=0.25),
    ]

    assert rewards(scores) == Rewards(accuracy=0.5, margin=0.25)


def test_there_is_no_margin_without_bad_answers() -> None:
    assert rewards([Score(0.5, good_reward=0.4)]) == Rewards(accuracy=1.0, margin=None)


def test_plain_training_has_no_rewards() -> None:
    assert rewards([Score(1.0)]) is None
