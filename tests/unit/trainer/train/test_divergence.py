"""When training counts as lost, and what then counts as a result."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.errors import DivergedError
from finetune_trainer.evaluation.verdict import Comparison, compare
from finetune_trainer.train.divergence import STEPS, DivergenceWatch, Remedy, conclude, far_above

BETTER = compare([2.0, 2.2] * 10, [1.0, 1.2] * 10)
WORSE = compare([2.0, 2.4] * 10, [67.0, 68.4] * 10)
UNSURE = compare([2.0] * 4, [1.0] * 4)
REMEDY = Remedy(1.0, "bf16")


def watched(*losses: float, base: float | None = 2.37) -> DivergenceWatch:
    watch = DivergenceWatch(base)
    for loss in losses:
        watch.add(loss)
    return watch


def concluded(watch: DivergenceWatch, comparison: Comparison | None, *, finite: bool = True) -> str | None:
    return conclude(watch, comparison, REMEDY, finite=finite, kept_step=12)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_the_end(loss: float) -> None:
    assert watched(2.0, 1.9, loss).found == f"the loss became {loss} at step 3"


def test_a_loss_that_stays_far_above_the_start_is_the_end() -> None:
    rising = [2.0, *[60.0] * (STEPS - 1)]
    assert watched(*rising).found is None
    assert watched(*rising, 60.0).found == "the loss of steps 2 to 11 was above 4.74, and it began at 2.37"


def test_what_comes_later_does_not_change_why() -> None:
    assert watched(math.nan, *[60.0] * 20, 1.0).found == "the loss became nan at step 1"


def test_single_steps_may_be_far_above() -> None:
    assert watched(2.0, *[60.0, 60.0, 2.0] * 20).found is None


@given(st.lists(st.floats(0, 3.3), min_size=1, max_size=60))
def test_rows_that_differ_are_no_divergence(losses: list[float]) -> None:
    assert watched(*losses).found is None


def test_a_first_row_that_is_easy_does_not_set_the_start() -> None:
    assert watched(0.01, *[2.4] * 30).found is None


def test_without_hold_out_rows_the_first_step_is_the_start() -> None:
    assert watched(2.0, *[4.1] * STEPS, base=None).found is not None


@pytest.mark.parametrize(("start", "limit"), [(0.1, 1.1), (1.0, 2.0), (2.37, 4.74)])
def test_far_above_is_twice_and_one_more_at_least(start: float, limit: float) -> None:
    assert far_above(start) == pytest.approx(limit)


def test_a_training_that_does_not_diverge_has_no_warning() -> None:
    assert concluded(watched(*[2.0] * 20), BETTER) is None


@pytest.mark.parametrize("comparison", [WORSE, UNSURE, None])
def test_diverged_and_not_better_fails_with_the_rate_to_use(comparison: Comparison | None) -> None:
    with pytest.raises(DivergedError) as caught:
        concluded(watched(math.nan), comparison)
    assert (caught.value.exit_code, caught.value.reason) == (82, "TrainingDiverged")
    assert caught.value.message == (
        "training diverged: the loss became nan at step 1, and no step that was kept is better than the base; create "
        'the job again with spec.training.learningRate "0.1", a tenth of its present one'
    )


def test_a_step_that_is_better_counts_with_a_warning() -> None:
    assert concluded(watched(2.0, math.nan), BETTER) == (
        "TrainingDiverged: the loss became nan at step 2; training ended early, and step 12, which is better than the "
        'base, was kept; with training.learningRate "0.1", a tenth, another job could train to its end'
    )


def test_weights_that_are_no_numbers_fail() -> None:
    with pytest.raises(DivergedError, match="not finite after training"):
        concluded(watched(2.0), None, finite=False)


def test_a_short_training_is_judged_by_its_last_step_and_the_hold_out_rows() -> None:
    with pytest.raises(DivergedError, match=r"the loss on the hold-out rows rose from 2\.20 to 67\.70"):
        concluded(watched(2.0, 2.1, 30.0, 60.0), WORSE)


def test_overfitting_is_no_divergence() -> None:
    assert concluded(watched(2.0, 1.0, 0.1), WORSE) is None


@pytest.mark.parametrize(("rate", "tenth"), [(1.0, "0.1"), (2e-4, "2e-5"), (5e-6, "5e-7"), (1e-10, "1e-11")])
def test_the_rate_is_written_as_the_field_takes_it(rate: float, tenth: str) -> None:
    assert Remedy(rate, "bf16").rate == tenth


def test_half_precision_has_another_remedy() -> None:
    assert str(Remedy(1.0, "fp16")).endswith(
        "or with spec.training.precision BF16 if the GPU supports it (compute capability 8.0 or newer)"
    )
