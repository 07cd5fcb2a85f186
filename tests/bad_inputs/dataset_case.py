"""A bad dataset, and the one sentence that `prepare` has for it."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.support.trainer_job import TrainerJob, alpaca_rows, write_rows

WANTED = (
    'JSON Lines, a JSON array, CSV with a header or Parquet, with rows such as {"instruction": "...", "output": "..."}'
)
FIX = "; correct this, or set dataset.checks.invalidRows to Drop"
SECRET = "비밀문장"
Make = Callable[[TrainerJob], None]


class Case(NamedTuple):
    """A job's files and plan are changed by `make`; it must end with the sentence."""

    name: str
    make: Make
    sentence: str


def of_bytes(data: bytes | str) -> Make:
    """The source has these bytes."""

    def make(job: TrainerJob) -> None:
        job.dataset.write_bytes(data.encode() if isinstance(data, str) else data)

    return make


def of_rows(*rows: Any) -> Make:
    """The source has these rows as JSON Lines."""

    def make(job: TrainerJob) -> None:
        write_rows(job.dataset, list(rows))

    return make


def after_good_rows(*rows: Any) -> Make:
    """Good rows on lines 1 to 60, then these."""
    return of_rows(*alpaca_rows(60), *rows)


def planned(make: Make, *, method: str = "SFT", row_format: str = "Auto", **dataset: Any) -> Make:
    """The same with another plan; `dataset` has members of its dataset part."""

    def changed(job: TrainerJob) -> None:
        job.plan["training"]["method"] = method
        job.plan["dataset"]["sources"][0]["format"] = row_format
        job.plan["dataset"].update(dataset)
        make(job)

    return changed


def message(role: str, content: Any = SECRET) -> dict[str, Any]:
    """One message of a row."""
    return {"role": role, "content": content}


def check(case: Case, job: TrainerJob, capfd: pytest.CaptureFixture[str]) -> None:
    """Run `prepare`: it says the sentence, ends with the code for datasets, and shows no row's text."""
    case.make(job)
    code = job.run("prepare")
    result = job.result()
    printed = "".join(capfd.readouterr())
    assert result["message"] == case.sentence.replace("{root}", str(job.root))
    assert (code, result["reason"]) == (65, "InvalidDataset")
    log = (job.output / result["log"]).read_text()
    for text in (printed, log, json.dumps(result, ensure_ascii=False)):
        assert "Traceback" not in text
        assert SECRET not in text
    assert result["message"] in log
