"""The rows held out to judge the result."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.split import holdout, target_rows
from finetune_trainer.errors import DatasetError


@pytest.mark.parametrize(
    ("rows", "percent", "expected"),
    [(2, 5, 1), (50, 5, 10), (60, 5, 12), (100, 5, 20), (1000, 5, 50), (1000, 20, 200), (100_000, 5, 200)],
)
def test_target_is_five_percent_within_its_limits(rows: int, percent: int, expected: int) -> None:
    assert target_rows(rows, percent) == expected


def _held(groups: list[int], percent: int, seed: int) -> Any:
    numbers = np.array(groups, np.int64)
    return holdout(numbers, numbers.astype(np.uint64) + np.uint64(2**63), percent, seed)


@given(st.lists(st.integers(0, 30), min_size=10, max_size=100), st.integers(1, 20), st.integers(0, 99))
def test_rows_of_one_group_stay_on_one_side(groups: list[int], percent: int, seed: int) -> None:
    try:
        held = _held(groups, percent, seed)
    except DatasetError:
        assert min(groups.count(g) for g in groups) > target_rows(len(groups), percent)
        return
    sides = [{g for g, h in zip(groups, held, strict=True) if h == side} for side in (True, False)]
    assert not sides[0] & sides[1]
    assert 0 < held.sum() <= target_rows(len(groups), percent)


@given(st.permutations(list(range(40))), st.integers(0, 99))
def test_order_of_the_rows_does_not_matter(order: list[int], seed: int) -> None:
    names = np.arange(1000, 1040, dtype=np.uint64)
    groups = np.arange(40)
    held = holdout(groups, names, 5, seed)
    assert set(names[held]) == set(names[order][holdout(groups, names[order], 5, seed)])


def test_seed_decides_which_rows_are_held_out() -> None:
    groups = list(range(100))
    assert (_held(groups, 5, 1) == _held(groups, 5, 1)).all()
    assert (_held(groups, 5, 1) != _held(groups, 5, 2)).any()
