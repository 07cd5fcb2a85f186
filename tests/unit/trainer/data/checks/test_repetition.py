"""Rows that repeat others, found by their hashes."""

import numpy as np

from finetune_trainer.data.checks.repetition import contradicting, first_with, overused


def test_every_row_knows_the_first_with_its_key() -> None:
    assert first_with(np.array([7, 5, 7, 5, 9])).tolist() == [0, 1, 0, 1, 4]


def test_another_answer_to_the_same_prompt_contradicts() -> None:
    prompts, answers = np.array([1, 1, 2, 1]), np.array([1, 2, 3, 1])
    assert contradicting(prompts, answers).tolist() == [False, True, False, False]


def _overused(rows: int, prompts: int, length: int) -> int:
    """Of 100 rows, `rows` have one answer, to so many prompts."""
    answers = np.array([1] * rows + list(range(10, 110 - rows)))
    asked = np.array([i % prompts for i in range(rows)] + list(range(1000, 1100 - rows)))
    return int(overused(answers, asked, np.full(100, length)).sum())


def test_one_answer_to_many_prompts_is_reported() -> None:
    assert _overused(rows=10, prompts=10, length=40) == 10


def test_labels_may_repeat() -> None:
    assert _overused(rows=50, prompts=50, length=5) == 0


def test_one_prompt_with_one_answer_is_no_boilerplate() -> None:
    assert _overused(rows=50, prompts=2, length=40) == 0
