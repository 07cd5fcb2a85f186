"""How long a job trains that does not say so."""

import pytest

from finetune_api.plan import TrainingPlan
from finetune_trainer.data.epoch_warnings import warnings
from finetune_trainer.data.length import resolved, total_steps
from tests.unit.trainer.data.test_epoch_warnings import _left_out

PREFERENCE_METHODS = ["DPO", "ORPO", "KTO"]


def _resolved(rows: int, **members: object) -> TrainingPlan:
    training = _left_out(**members)
    return resolved(training, total_steps(training, rows))


@pytest.mark.parametrize(
    ("rows", "steps"),
    [
        (1, 60),
        # A hundred examples, of which twenty are held out: the recipe's number of steps.
        (80, 60),
        (160, 60),
        # Three passes.
        (161, 61),
        (1_000, 375),
        (1_600, 600),
        (4_800, 600),
        # One pass.
        (4_801, 601),
        (20_000, 2_500),
        # A part of the rows.
        (1_000_000, 2_500),
    ],
)
def test_the_steps_follow_the_rows(rows: int, steps: int) -> None:
    assert total_steps(_left_out(), rows) == steps


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("rows", [10, 5_000, 20_000])
def test_up_to_20000_rows_are_all_seen(batch_size: int, rows: int) -> None:
    assert total_steps(_left_out(batch_size=batch_size), rows) * batch_size >= rows


@pytest.mark.parametrize("method", PREFERENCE_METHODS)
@pytest.mark.parametrize("rows", [1, 48, 1_000_000])
def test_a_preference_is_seen_once(method: str, rows: int) -> None:
    found = _resolved(rows, method=method)
    assert (found.epochs, found.max_steps) == (1, None)
    assert total_steps(found, rows) == total_steps(_left_out(method=method), rows)


def test_what_is_resolved_is_what_a_job_that_sets_it_asks_for() -> None:
    assert _resolved(80) == _left_out(max_steps=60, warmup_steps=5)


@pytest.mark.parametrize("members", [{"max_steps": 7}, {"epochs": 2}])
def test_a_length_of_the_job_stays(members: dict[str, int]) -> None:
    found = _resolved(80, warmup_steps=3, **members)
    assert found == _left_out(warmup_steps=3, **members)


@pytest.mark.parametrize(
    ("members", "rows", "warmup"),
    [({}, 80, 5), ({"method": "DPO"}, 48, 1), ({"max_steps": 3}, 80, 0), ({"warmup_ratio": 0.1}, 80, None)],
)
def test_a_short_training_warms_up_shortly(members: dict[str, object], rows: int, warmup: int | None) -> None:
    assert _resolved(rows, **members).warmup_steps == warmup


@pytest.mark.parametrize("method", ["SFT", *PREFERENCE_METHODS])
@pytest.mark.parametrize("rows", [1, 10, 48, 5_000, 1_000_000])
def test_no_default_is_warned_of(method: str, rows: int) -> None:
    training = _left_out(method=method)
    assert warnings(rows, total_steps(training, rows), training) == []
