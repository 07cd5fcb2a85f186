"""Which steps are measured, which is best, and when it is enough."""

import pytest

from finetune_trainer.evaluation.curve import Curve, evaluation_steps, measurements


@pytest.mark.parametrize(
    ("total", "expected"),
    [(60, {12, 24, 36, 48, 60}), (7, {2, 3, 5, 6, 7}), (5, {1, 2, 3, 4, 5}), (3, {1, 2, 3}), (1, {1})],
)
def test_about_five_measurements_are_spread_over_the_run(total: int, expected: set[int]) -> None:
    assert evaluation_steps(total) == expected


@pytest.mark.parametrize(
    ("trained", "held", "times"), [(480, 25, 5), (24, 20, 1), (60, 20, 3), (8, 20, 1), (8, 0, 5), (2, 0, 2)]
)
def test_measuring_takes_no_more_rows_than_training(trained: int, held: int, times: int) -> None:
    assert measurements(trained, held) == times


def test_without_steps_nothing_is_measured() -> None:
    assert evaluation_steps(0) == frozenset()


def curve(*losses: float) -> Curve:
    made = Curve()
    for index, loss in enumerate(losses):
        made.add(10 * (index + 1), loss)
    return made


def test_the_best_step_is_the_first_of_the_lowest() -> None:
    assert curve(3.0, 2.0, 2.0, 2.5).best_step == 20


def test_an_empty_curve_has_no_best_step() -> None:
    assert Curve().best_step is None


@pytest.mark.parametrize(
    ("losses", "expected"),
    [((), False), ((2.0, 3.0), False), ((2.0, 3.0, 2.5), True), ((2.0, 3.0, 1.0), False), ((3.0, 2.0), False)],
)
def test_patience_counts_measurements_without_a_better_one(losses: tuple[float, ...], expected: bool) -> None:
    assert curve(*losses).exhausted(2) is expected


def test_without_patience_it_never_ends_early() -> None:
    assert not curve(1.0, *[2.0] * 50).exhausted(None)


def test_a_forgotten_step_is_not_the_best_any_more() -> None:
    made = curve(3.0, 1.0, 2.0)
    made.forget(20)
    assert made.best_step == 30


def test_the_file_brings_back_the_curve() -> None:
    assert Curve.from_json(curve(3.0, 1.5).to_json()) == curve(3.0, 1.5)
