"""The order of prepare: what takes minutes comes after what users get wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.sources import folder_model
from tests.support.trainer_job import TrainerJob, alpaca_rows, write_rows


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the model's files that are read whole."""
    names: list[str] = []
    original = folder_model.sha256_of

    def spy(path: Path) -> str:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(folder_model, "sha256_of", spy)
    return names


def _run_id(job: TrainerJob, **training: Any) -> str:
    job.plan["training"] |= training
    (job.root / "plan.json").write_text(json.dumps(job.plan))
    assert job.run("prepare") == 0
    found: str = job.result()["runId"]
    return found


@pytest.mark.parametrize(
    "row", [{"instruction": "", "input": "", "output": ""}, {"instruction": "x" * 9999, "output": "y"}]
)
def test_a_bad_row_is_reported_before_the_weights_are_read(
    job: TrainerJob, read: list[str], row: dict[str, str]
) -> None:
    write_rows(job.dataset, [*alpaca_rows(60), row])
    assert job.run("prepare") == 65
    assert read == []


def test_weights_are_pinned_by_their_bytes(job: TrainerJob, read: list[str]) -> None:
    first = _run_id(job)
    assert "model.safetensors" in read
    weights = Path(job.plan["model"]["path"]) / "model.safetensors"
    (described,) = job.output.glob(f"gym/coach/{first}/prepared/prepared.json")
    files = {f["path"]: f["identity"] for f in json.loads(described.read_text())["model"]["files"]}
    assert files["model.safetensors"] == folder_model.sha256_of(weights)


def test_the_length_that_is_left_out_is_reported(job: TrainerJob) -> None:
    _run_id(job)
    dataset = job.result()["dataset"]
    assert (dataset["stepsPlanned"], dataset["epochsPlanned"]) == (60, "10.00")


def test_a_length_that_is_left_out_is_the_same_run_as_that_number(job: TrainerJob) -> None:
    assert _run_id(job) == _run_id(job, maxSteps=60) != _run_id(job, maxSteps=61)
