"""What the status says of the data."""

from finetune_api.report import CheckReport
from finetune_api.status import DatasetStatus
from finetune_trainer.data.status_warnings import chosen


def _check(name: str, message: str = "m") -> CheckReport:
    return CheckReport(name=name, severity="Warn", count=1, message=message)


def test_the_most_important_come_first() -> None:
    checks = [_check("RepeatedAnswer"), _check("NearDuplicates"), _check("PersonalData")]
    assert chosen(checks, ["TextComposed: c", "ManyEpochs: d"]) == [
        "ManyEpochs: d",
        "PersonalData: m",
        "NearDuplicates: m",
        "RepeatedAnswer: m",
        "TextComposed: c",
    ]


def test_eight_are_reported() -> None:
    sentences = [f"Note{i}: x" for i in range(8)]
    assert chosen([], sentences) == sentences


def test_of_more_the_last_says_where_they_are() -> None:
    found = chosen([], [f"Note{i}: x" for i in range(11)])
    assert found[:7] == [f"Note{i}: x" for i in range(7)]
    assert found[7:] == ["MoreWarnings: 4 more warnings are in report.json"]


def test_long_ones_are_cut_to_what_the_status_takes() -> None:
    found = chosen([_check("PersonalData", "가" * 600)], [])
    assert found[0].endswith("…")
    assert DatasetStatus(examples=1, supervised_tokens=1, warnings=found).warnings == found
