"""Whole jobs of DPO, ORPO and KTO: prepared and trained by the command line, and killed on the way."""

import signal
from pathlib import Path
from typing import Any

import pytest

from finetune_api.report import Report
from finetune_api.status import EvaluationStatus
from finetune_api.training_spec import Method
from tests.support import tiny_model
from tests.training.conftest import Job, coach_rows, make_tiny_job

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]
METHODS: list[Method] = ["DPO", "ORPO", "KTO"]
STEPS = 12
BETA = 0.1
# Nothing but the order of floating-point additions may differ.
TOLERANCE = 1e-4
_REFUSAL = "답할 수 없어요."


def _rows(method: Method) -> list[dict[str, Any]]:
    """Rows that prefer the coach's answers to a refusal."""
    made: list[dict[str, Any]] = []
    for number, row in enumerate(coach_rows(60, 24)):
        question, answer = row["instruction"], row["output"]
        if method == "KTO":
            good = number % 2 == 0
            made.append({"prompt": question, "completion": answer if good else _REFUSAL, "label": good})
        else:
            made.append({"prompt": question, "chosen": answer, "rejected": _REFUSAL})
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    found: Method = request.param
    return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, model: Path, method: Method) -> Job:
    """Prepared, with dropout: random numbers matter."""
    settings = {"method": method, "preference": {"beta": BETA}, "maxSteps": STEPS, "learningRate": 3e-2}
    return make_tiny_job(tmp_path_factory.mktemp("prepared"), model, _rows(method), **settings)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, prepared: Job) -> Job:
    """Trained without interruption."""
    job = prepared.copied(tmp_path_factory.mktemp("calm"))
    assert job.finish("train") == 0, job.said("train")
    return job


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, prepared: Job) -> Job:
    """Ended by kill -9 after a checkpoint, and gone on with."""
    job = prepared.copied(tmp_path_factory.mktemp("killed"))
    process = job.start("train", attempt=0)
    assert job.interrupt(process, signal.SIGKILL, lambda: max(job.checkpoints, default=0) > 0) == -signal.SIGKILL
    assert job.checkpoints[-1] < STEPS
    assert job.finish("train", attempt=1) == 0, job.said("train", 1)
    return job


def _evaluation(job: Job) -> EvaluationStatus:
    return EvaluationStatus.model_validate(job.result()["evaluation"])


def test_the_status_has_losses_and_rewards(calm: Job) -> None:
    found = _evaluation(calm)

    assert float(found.holdout_loss_tuned or "nan") < float(found.holdout_loss_base or "nan")
    # So few steps teach KTO to tell good from bad, but not yet to be for the one and against the other.
    assert float(found.reward_accuracy or "nan") >= 0.5
    assert float(found.reward_margin or "nan") > 0


def test_every_step_is_recorded_with_its_rows_and_rewards(calm: Job) -> None:
    recorded = calm.metrics()

    assert [m["step"] for m in recorded] == list(range(1, STEPS + 1))
    assert all(len(m["rows"]) == 4 for m in recorded)
    assert all("loss" in m and m.keys() & {"rewardChosen", "rewardRejected"} for m in recorded)
    # A step of KTO may have answers of one kind alone.
    assert {"rewardChosen", "rewardRejected"} <= {name for m in recorded for name in m}


def test_the_report_tells_of_training_and_evaluation(calm: Job) -> None:
    report = Report.model_validate_json((calm.run / "report.json").read_text())

    assert report.training is not None
    assert report.evaluation is not None
    assert [point.step for point in report.training.loss] == list(range(1, STEPS + 1))
    assert report.evaluation.reward_margin is not None


def test_a_kill_changes_neither_rows_nor_losses(calm: Job, killed: Job) -> None:
    assert killed.run.name == calm.run.name
    assert "resuming after step" in killed.said("train", 1)
    assert [m["rows"] for m in killed.metrics()] == [m["rows"] for m in calm.metrics()]
    for name in ("loss", "gradNorm"):
        assert [m[name] for m in killed.metrics()] == pytest.approx([m[name] for m in calm.metrics()], rel=TOLERANCE)


def test_a_kill_changes_neither_the_verdict_nor_the_adapter(calm: Job, killed: Job) -> None:
    from safetensors.torch import load_file
    from torch.testing import assert_close

    name = "adapter/adapter_model.safetensors"
    assert_close(load_file(killed.run / name), load_file(calm.run / name), rtol=1e-3, atol=1e-5)
    there, here = _evaluation(calm), _evaluation(killed)
    assert here.verdict == there.verdict
    for figure in ("holdout_loss_base", "holdout_loss_tuned", "reward_margin"):
        assert float(getattr(here, figure)) == pytest.approx(float(getattr(there, figure)), abs=2e-4)
