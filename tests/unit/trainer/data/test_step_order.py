"""Which rows make up each optimizer step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.step_order import order, steps, total_steps
from finetune_trainer.errors import GuardError

ROWS = st.integers(1, 200)
SEEDS = st.integers(0, 2**31 - 1)


def test_order_is_the_same_in_every_version() -> None:
    assert order(3407, 0, 8) == [3, 0, 7, 2, 5, 1, 6, 4]
    assert order(3407, 1, 8) == [3, 7, 6, 0, 2, 4, 1, 5]


@given(SEEDS, st.integers(0, 50), ROWS)
def test_each_epoch_has_every_row_once(seed: int, epoch: int, n: int) -> None:
    assert sorted(order(seed, epoch, n)) == list(range(n))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(order(seed, epoch, 20)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(ROWS, st.integers(1, 64), SEEDS, st.integers(1, 5))
def test_epochs_show_every_row_equally_often(n: int, batch: int, seed: int, epochs: int) -> None:
    shown = [row for step in steps(n, batch, seed, epochs=epochs) for row in step]
    assert sorted(shown) == sorted(list(range(n)) * epochs)


@given(ROWS, st.integers(1, 64), SEEDS, st.integers(1, 20))
def test_steps_are_full_and_as_many_as_asked_for(n: int, batch: int, seed: int, maximum: int) -> None:
    found = list(steps(n, batch, seed, max_steps=maximum))
    assert [len(step) for step in found] == [batch] * maximum


@given(ROWS, st.integers(1, 64), SEEDS, st.integers(1, 10), st.integers(1, 10))
def test_a_longer_run_begins_like_a_shorter_one(n: int, batch: int, seed: int, first: int, more: int) -> None:
    short = list(steps(n, batch, seed, max_steps=first))
    assert list(steps(n, batch, seed, max_steps=first + more))[:first] == short


@given(ROWS, st.integers(1, 64), SEEDS, st.integers(1, 5))
def test_total_counts_the_steps(n: int, batch: int, seed: int, epochs: int) -> None:
    assert total_steps(n, batch, epochs=epochs) == len(list(steps(n, batch, seed, epochs=epochs)))


@given(ROWS, st.integers(1, 64), st.integers(1, 64), SEEDS, st.integers(1, 5))
def test_the_batch_size_only_cuts_the_order(n: int, batch: int, other: int, seed: int, epochs: int) -> None:
    shown = [[row for step in steps(n, size, seed, epochs=epochs) for row in step] for size in (batch, other)]
    assert shown[0] == shown[1]


@given(ROWS, SEEDS, st.integers(1, 5))
def test_epochs_follow_one_another(n: int, seed: int, epochs: int) -> None:
    shown = [row for step in steps(n, 8, seed, epochs=epochs) for row in step]
    assert shown == [row for epoch in range(epochs) for row in order(seed, epoch, n)]


def test_a_plan_without_an_end_is_refused() -> None:
    with pytest.raises(GuardError, match=r"neither training\.maxSteps nor training\.epochs"):
        total_steps(10, 2)
