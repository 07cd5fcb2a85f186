"""What users are told about the size of their job."""

from finetune_trainer.data.arithmetic import epochs_planned, warnings


def test_an_ordinary_job_has_no_warnings() -> None:
    assert warnings(rows=190, examples=210, batch_size=8, total_steps=60, composed=0) == []


def test_rows_that_are_never_used_are_told() -> None:
    assert warnings(rows=10_000, examples=10_200, batch_size=8, total_steps=60, composed=0) == [
        "DatasetPartlySeen: 480 of 10,000 rows are used; raise training.maxSteps or set training.epochs"
    ]


def test_few_rows_seen_often_are_told() -> None:
    assert warnings(rows=48, examples=60, batch_size=8, total_steps=60, composed=3) == [
        "ManyEpochs: each row is seen 10.0 times, which invites memorizing; "
        "lower training.maxSteps or epochs, or add examples",
        "SmallDataset: 60 examples are few; from 100 on the result is steadier",
        "TextComposed: 3 rows had decomposed letters (NFD), which were composed (NFC)",
    ]


def test_epochs_are_counted_over_trained_rows() -> None:
    assert epochs_planned(rows=48, batch_size=8, total_steps=60) == 10.0
