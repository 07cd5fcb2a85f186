"""The geometry of the loss curve."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.report import StepValue
from finetune_trainer.report.chart import LossChart, loss_chart, smoothed, table, ticks


def _points(*values: float, start: int = 1) -> list[StepValue]:
    return [StepValue(step=start + i, value=v) for i, v in enumerate(values)]


def _chart(loss: list[StepValue], holdout: list[StepValue], kept: int = 1) -> LossChart:
    found = loss_chart(loss, holdout, kept, 760, 300)
    assert found is not None
    return found


def _coordinates(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in line.split())]


def test_ticks_are_round_numbers_around_the_values() -> None:
    assert ticks(1.21, 2.69, 5) == [1.0, 1.5, 2.0, 2.5, 3.0]


def test_ticks_of_steps_are_whole() -> None:
    assert ticks(0, 3, 9, whole=True) == [0, 1, 2, 3]


def test_ticks_have_no_errors_of_addition() -> None:
    assert ticks(0.0, 1.0, 10)[3] == pytest.approx(0.3, abs=1e-15)


def test_a_flat_curve_has_ticks_on_both_sides() -> None:
    found = ticks(2.0, 2.0, 5)
    assert found[0] < 2.0 < found[-1]


_losses = st.floats(-1e6, 1e6, allow_nan=False)


@given(_losses, _losses, st.integers(2, 10))
def test_ticks_enclose_the_values_and_are_few(one: float, other: float, most: int) -> None:
    low, high = min(one, other), max(one, other)
    found = ticks(low, high, most)
    slack = 1e-6 * max(abs(low), abs(high), 1e-300)
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert 2 <= len(found) <= most + 3
    assert found == sorted(set(found))


@given(st.lists(_losses, max_size=60), st.lists(_losses, max_size=6), st.integers(0, 80))
def test_everything_lies_within_the_plot(loss: list[float], holdout: list[float], kept: int) -> None:
    found = loss_chart(_points(*loss), _points(*holdout, start=0), kept, 340, 240)
    if found is None:
        assert not loss
        assert not holdout
        return
    drawn = _coordinates(found.loss) + _coordinates(found.smooth) + [(d.x, d.y) for d in found.dots]
    assert all(found.left <= x <= found.right for x, _ in drawn)
    assert all(found.top - 0.1 <= y <= found.bottom + 0.1 for _, y in drawn)
    assert found.left <= found.kept <= found.right
    assert all(found.left <= t.position <= found.right for t in found.x_ticks)


def test_a_higher_loss_lies_higher() -> None:
    (_, first), (_, second) = _coordinates(_chart(_points(3.0, 1.0), []).loss)
    assert first < second


def test_losses_that_are_no_numbers_are_left_out() -> None:
    found = _chart(_points(2.0, math.nan, math.inf, 1.0), [])
    assert len(_coordinates(found.loss)) == 2


def test_without_a_finite_loss_there_is_no_chart() -> None:
    assert loss_chart(_points(math.nan), [], 1, 760, 300) is None


def test_a_single_measurement_is_drawn() -> None:
    assert len(_chart([], _points(2.0, start=0), kept=0).dots) == 1


def test_the_dot_of_the_kept_step_is_marked() -> None:
    found = _chart([], _points(3.0, 2.0, 2.5, start=0), kept=1)
    assert [d.kept for d in found.dots] == [False, True, False]


def test_only_a_long_curve_gets_a_mean() -> None:
    assert _chart(_points(*[1.0] * 29), []).smooth == ""
    assert _chart(_points(*[1.0] * 30), []).smooth != ""


def test_the_mean_is_taken_over_the_neighbours_that_there_are() -> None:
    assert [p.value for p in smoothed(_points(1.0, 2.0, 6.0))] == [1.5, 3.0, 4.0]


def test_labels_of_close_losses_differ() -> None:
    labels = [t.label for t in _chart(_points(2.0001, 2.0004), []).y_ticks]
    assert len(labels) == len(set(labels))


def test_the_table_has_every_holdout_point_and_some_of_the_others() -> None:
    rows = table(_points(*[1.0] * 300), [StepValue(step=0, value=2.0), StepValue(step=151, value=1.5)], 40)
    assert rows[0] == (0, None, 2.0)
    assert (151, 1.0, 1.5) in rows or (151, None, 1.5) in rows
    assert rows[-1][0] == 300
    assert len(rows) <= 42


def test_a_holdout_point_of_the_table_has_its_training_loss_beside_it() -> None:
    rows = table(_points(*[1.0] * 300), [StepValue(step=151, value=1.5)], 2)
    assert rows == [(1, 1.0, None), (151, 1.0, 1.5), (300, 1.0, None)]
