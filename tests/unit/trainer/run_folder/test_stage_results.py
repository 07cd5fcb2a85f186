"""`--report`: what a finished stage left is reported once more, and nothing else happens."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_api import exit_codes
from finetune_api.layout import JobLayout
from finetune_api.plan import Plan
from finetune_api.result import StageResult
from finetune_api.spec import STAGES, Stage
from finetune_api.status import EvaluationStatus
from finetune_trainer.run_folder import stage_results
from finetune_trainer.storage.open import open_output
from tests.support.s3_server import free_port
from tests.support.trainer_job import TrainerJob

RUN_ID = "a" * 64
LOG = f"gym/coach/{RUN_ID}/logs/train-0.log"


def leave(job: TrainerJob, stage: Stage, run_id: str = RUN_ID, **members: Any) -> StageResult:
    result = StageResult(stage=stage, exit_code=0, run_id=run_id, **members)
    stage_results.write(
        open_output(Plan.model_validate(job.plan).output), JobLayout("gym", "coach", "11111111-2222"), result
    )
    return result


def files(job: TrainerJob) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in job.output.rglob("*") if p.is_file()}


@pytest.fixture
def reporting(job: TrainerJob) -> TrainerJob:
    # The tiny model and the rows are not needed.
    job.plan["model"]["path"] = "/nowhere"
    job.dataset.unlink()
    job.arguments[:] = ["--report", "--attempt", "1"]
    return job


@pytest.mark.parametrize("stage", STAGES)
def test_a_stored_result_is_reported_as_the_stage_reported_it(reporting: TrainerJob, stage: Stage) -> None:
    leave(reporting, "prepare")
    evaluation = EvaluationStatus(verdict="Better", holdout_loss_base="2.31")
    left = leave(reporting, stage, log=LOG, evaluation=evaluation, timings={"total": 7.5})
    assert reporting.run(stage) == 0
    assert reporting.termination_log.read_bytes() == left.termination_message()


def test_nothing_is_written_to_the_output(reporting: TrainerJob) -> None:
    leave(reporting, "prepare")
    leave(reporting, "train")
    before = files(reporting)
    assert reporting.run("train") == 0
    assert files(reporting) == before


def test_a_stage_that_left_no_result_has_a_code_of_its_own(reporting: TrainerJob) -> None:
    leave(reporting, "prepare")
    assert reporting.run("train") == 72
    assert reporting.result()["reason"] == "ResultMissing"
    assert reporting.result()["message"] == (
        f"train left no result: {reporting.output.as_uri()} has no gym/.runs/11111111-2222/train.json; "
        "it has to run again"
    )


def test_a_result_of_other_rows_is_none(reporting: TrainerJob) -> None:
    leave(reporting, "prepare", run_id="b" * 64)
    leave(reporting, "train")
    assert reporting.run("train") == 72


def test_a_bucket_that_is_away_is_reported_as_such(reporting: TrainerJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    endpoint = f"http://127.0.0.1:{free_port()}"
    reporting.plan["output"] = {"s3": {"uri": "s3://results/", "endpoint": endpoint, "forcePathStyle": True}}
    assert reporting.run("train") == 69
    assert reporting.result()["reason"] == "StorageUnavailable"


def test_a_damaged_result_is_a_crash_whose_traceback_is_printed(
    reporting: TrainerJob, capfd: pytest.CaptureFixture[str]
) -> None:
    leave(reporting, "prepare")
    (reporting.output / "gym/.runs/11111111-2222/train.json").write_text("{}")
    assert reporting.run("train") == 1
    assert reporting.result()["message"] == "unexpected ValidationError in train"
    assert "ValidationError" in capfd.readouterr().err


def test_a_preparation_without_a_run_id_is_permanent(job: TrainerJob) -> None:
    job.plan["allowCPU"] = True
    result = StageResult(stage="prepare", exit_code=0)
    layout = JobLayout("gym", "coach", "11111111-2222")
    stage_results.write(open_output(Plan.model_validate(job.plan).output), layout, result)
    code = job.run("train")
    assert code in exit_codes.PERMANENT
    assert job.result()["message"].startswith("prepare finished without a run id; this is a fault of the trainer image")


def test_no_training_library_is_loaded(reporting: TrainerJob) -> None:
    leave(reporting, "prepare")
    leave(reporting, "train")
    plan = reporting.root / "plan.json"
    plan.write_text(json.dumps(reporting.plan))
    program = (
        "import sys\n"
        "from finetune_trainer.cli import main\n"
        "code = main(['train', '--report', '--plan', sys.argv[1]])\n"
        "assert code == 0, code\n"
        "loaded = {'torch', 'transformers', 'unsloth', 'numpy', 'pyarrow'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(plan)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
