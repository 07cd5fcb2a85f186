"""What users read about the size of their job."""

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults, TrainingPlan
from finetune_api.render import render
from finetune_trainer.data.epoch_warnings import epochs_planned, warnings
from tests.support.trainer_job import JOB


def _training(**members: object) -> TrainingPlan:
    """Of a job that sets its length."""
    return _left_out(max_steps=60, **members)


def _left_out(**members: object) -> TrainingPlan:
    return render(FineTuneJob.model_validate(JOB), Defaults()).training.model_copy(update=members)


def test_an_ordinary_job_has_no_warnings() -> None:
    assert warnings(rows=190, total_steps=60, training=_training()) == []


def test_rows_that_are_never_used_are_reported() -> None:
    assert warnings(rows=10_000, total_steps=60, training=_training()) == [
        "DatasetPartlySeen: 480 of 10,000 rows are used; raise training.maxSteps or set training.epochs"
    ]


def test_rows_seen_often_are_reported() -> None:
    assert warnings(rows=48, total_steps=60, training=_training()) == [
        "ManyEpochs: each row is seen 10.0 times, which invites memorizing; "
        "lower training.maxSteps or epochs, or add examples"
    ]


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"warmup_steps": 12}, None),
        (
            {"warmup_steps": 13},
            "WarmupTooLong: the learning rate rises for 13 of 60 steps; lower training.warmupSteps to 12 or less",
        ),
        (
            {"warmup_steps": 500},
            "WarmupTooLong: the learning rate rises for 60 of 60 steps; lower training.warmupSteps to 12 or less",
        ),
        ({"warmup_steps": 500, "warmup_ratio": 0.2}, None),
        (
            {"warmup_ratio": 0.5},
            "WarmupTooLong: the learning rate rises for 50% of the steps; lower training.warmupRatio to 0.2 or less",
        ),
    ],
)
def test_a_long_warm_up_is_reported(members: dict[str, object], sentence: str | None) -> None:
    assert warnings(rows=190, total_steps=60, training=_training(**members)) == ([sentence] if sentence else [])


@pytest.mark.parametrize(("rows", "steps"), [(48, 60), (10_000, 60), (48, 6)])
def test_what_the_job_leaves_out_is_no_fault_of_it(rows: int, steps: int) -> None:
    assert warnings(rows, steps, _left_out()) == []


def test_epochs_are_counted_over_trained_rows() -> None:
    assert epochs_planned(rows=48, batch_size=8, total_steps=60) == 10.0
