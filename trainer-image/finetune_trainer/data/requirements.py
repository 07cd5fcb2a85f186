"""The requirements of a dataset. Each returns a check if it fails, or if rows are cut or left out."""

from collections.abc import Sequence
from typing import Any, Literal

from finetune_api.plan import DatasetPlan
from finetune_api.report import CheckReport, Place, Severity
from finetune_trainer.data.findings import Findings
from finetune_trainer.data.rows.example import row_name
from finetune_trainer.data.rows.row_names import listed, number_of_rows

SMALL = 100
# The one check that needs token ids.
TRUNCATED = "TruncatedRows"


def checks(findings: Findings, truncated: Any, dataset: DatasetPlan, maximum: int) -> list[CheckReport]:
    """Return what is wrong with the dataset as a whole, failures first.

    `truncated`: which rows have more than `maximum` tokens (a bool array), or None if that is not known yet.
    """
    cut = 0 if truncated is None else int(truncated.sum())
    # Rows of the hold-out's own sources do not count.
    counted = findings.kept & ~findings.holdout
    found = [
        invalid_rows(findings.invalid_places, findings.invalid, findings.collected.rows, dataset.invalid_rows),
        truncated_rows(findings.places(truncated) if cut else [], cut, maximum, dataset.truncation),
        enough_examples(
            int(counted.sum()),
            dataset.minimum_examples,
            {
                "invalid": findings.invalid,
                "duplicate": findings.dropped_duplicates,
                "too long": cut if dataset.truncation == "Drop" else 0,
            },
        ),
    ]
    return sorted((check for check in found if check), key=lambda check: check.severity != "Fail")


def invalid_rows(
    places: Sequence[Place], count: int, total: int, wanted: Literal["Fail", "Drop"]
) -> CheckReport | None:
    """Return the check that names the invalid rows, or None without any; `places` are the first of them."""
    if not count:
        return None
    shown = "; ".join(f"{row_name(p.source, p.number, p.unit)}: {p.reason}" for p in places)
    if wanted == "Drop":
        message = f"invalid and left out: {number_of_rows(count)} of {total:,}, first {shown}"
    else:
        first = shown if count == 1 else f"{count} of {total} rows are invalid, first {shown}"
        message = f"{first}; correct this, or set dataset.checks.invalidRows to Drop"
    return CheckReport(name="InvalidRows", severity=wanted, count=count, places=list(places), message=message)


def truncated_rows(
    places: Sequence[Place], count: int, maximum: int, wanted: Literal["Warn", "Drop", "Fail"]
) -> CheckReport | None:
    """Return the check that names the rows that are too long, or None without any."""
    if not count:
        return None
    severity: Severity = wanted
    fate = {"Warn": "cut", "Drop": "left out", "Fail": "refused"}[wanted]
    message = (
        f"longer than model.maxSequenceLength ({maximum}) and {fate}: {number_of_rows(count)}, first {listed(places)}; "
        "shorten them or raise it"
    )
    if wanted == "Fail":
        message += ", or set dataset.checks.truncation to Drop or Warn"
    return CheckReport(name=TRUNCATED, severity=severity, count=count, places=list(places), message=message)


def enough_examples(found: int, minimum: int, left_out: dict[str, int]) -> CheckReport | None:
    """Return the check for few or too few examples. `left_out`: numbers of rows by what is wrong with them."""
    if found >= max(minimum, SMALL):
        return None
    if found >= minimum:
        message = f"{found} examples are few; with {SMALL} or more, results vary less"
        return CheckReport(name="SmallDataset", severity="Warn", count=found, message=message)
    counts = " and ".join(f"{count} {kind}" for kind, count in left_out.items() if count)
    message = (
        f"the dataset has {found} usable examples{f' ({counts} left out)' if counts else ''}, and "
        f"dataset.checks.minimumExamples is {minimum}; add examples or lower it"
    )
    return CheckReport(name="TooFewExamples", severity="Fail", count=found, message=message)
