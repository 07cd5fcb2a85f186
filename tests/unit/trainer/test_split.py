"""The rows held out to judge the result."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.example import Example
from finetune_trainer.data.split import group_key, holdout, target_rows
from finetune_trainer.errors import DatasetError


def _examples(questions: list[str]) -> list[Example]:
    return [
        Example("s", i + 1, i, ({"role": "user", "content": q}, {"role": "assistant", "content": str(i)}))
        for i, q in enumerate(questions)
    ]


@pytest.mark.parametrize(
    ("rows", "percent", "expected"),
    [(2, 5, 1), (50, 5, 10), (60, 5, 12), (100, 5, 20), (1000, 5, 50), (1000, 20, 200), (100_000, 5, 200)],
)
def test_target_is_five_percent_within_its_limits(rows: int, percent: int, expected: int) -> None:
    assert target_rows(rows, percent) == expected


@given(st.lists(st.integers(0, 30), min_size=10, max_size=100), st.integers(1, 20), st.integers(0, 99))
def test_rows_with_one_question_stay_on_one_side(numbers: list[int], percent: int, seed: int) -> None:
    examples = _examples([f"question {n}" for n in numbers])
    try:
        held = holdout(examples, percent, seed)
    except DatasetError:
        smallest_group = min(numbers.count(n) for n in numbers)
        assert smallest_group > target_rows(len(numbers), percent)
        return
    held_questions = {group_key(e) for e in examples if e.row_id in held}
    trained_questions = {group_key(e) for e in examples if e.row_id not in held}
    assert not held_questions & trained_questions
    assert 0 < len(held) <= target_rows(len(examples), percent)


def test_seed_decides_which_rows_are_held_out() -> None:
    examples = _examples([f"question {i}" for i in range(100)])
    assert holdout(examples, 5, 1) == holdout(examples, 5, 1)
    assert holdout(examples, 5, 1) != holdout(examples, 5, 2)


@pytest.mark.parametrize("other", ["  무엇인가요", "무엇인가요?", "무엇인가요 ?!", "무엇인가요..."])
def test_spelling_does_not_make_another_question(other: str) -> None:
    first, second = _examples(["무엇인가요", other])
    assert group_key(first) == group_key(second)
