"""Neither a kill, nor another micro-batch, nor a look at the hold-out rows changes what is learned."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.curve import evaluation_steps
from tests.support import tiny_model
from tests.training.conftest import Job, make_job

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]
STEPS = 20
# Nothing but the order of floating-point additions may differ.
TOLERANCE = 1e-4

# The stage with another program as the process that trains.
STAGE = """
import sys
from finetune_trainer import train_process
from finetune_trainer.cli import main
train_process.COMMAND = [sys.executable, "-c", {child!r}]
sys.exit(main(sys.argv[1:]))
"""
UNSEEN = """
import sys
from finetune_trainer import train_process, training
training.evaluation_steps = lambda total, points: frozenset()
sys.exit(train_process.main(sys.argv[1:]))
"""
OVERFITTING = """
import sys
from finetune_trainer import train_process
from finetune_trainer.evaluation import Evaluation
Evaluation.during = lambda self, step: float(step)
sys.exit(train_process.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


def tiny_job(root: Path, model: Path, dropout: float, **training: Any) -> Job:
    training = {"batchSize": 8, "maxSteps": STEPS, "learningRate": 3e-2} | training
    return make_job(root, model, dropout=dropout, **training)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Job:
    """Trained without interruption, with dropout: random numbers matter."""
    job = tiny_job(tmp_path_factory.mktemp("calm"), model, 0.05)
    assert job.finish("train") == 0, job.said("train")
    return job


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Job:
    """Trained without interruption and dropout, which draws other numbers for another micro-batch."""
    job = tiny_job(tmp_path_factory.mktemp("plain"), model, 0.0)
    assert job.finish("train") == 0, job.said("train")
    return job


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Job, dict[str, Any]]:
    """The calm job, stopped by SIGTERM once and by kill -9 once; with the termination message of the first."""
    job = tiny_job(tmp_path_factory.mktemp("stopped"), model, 0.05)
    process = job.start("train", attempt=0)
    code = job.interrupt(process, signal.SIGTERM, lambda: "Training step 0" in job.said("train", 0))
    assert code == 75, job.said("train", 0)
    told = job.result()
    process = job.start("train", attempt=1)
    newer = told["checkpointStep"] + 1
    assert job.interrupt(process, signal.SIGKILL, lambda: max(job.checkpoints) > newer) == -signal.SIGKILL
    assert job.finish("train", attempt=2) == 0, job.said("train", 2)
    return job, told


def use_micro_batch(job: Job, size: int) -> None:
    """Do as an attempt that ran out of memory: leave another rung for the next one."""
    (state,) = job.output.glob("*/.runs/*")
    rung = {"micro_batch_size": size, "gradient_checkpointing": "None"}
    (state / "rung.json").write_text(json.dumps({"runId": job.run.name, "rung": rung}))


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Job:
    """The plain job, killed in the middle: before with a micro-batch of 1, afterwards of 8."""
    job = tiny_job(tmp_path_factory.mktemp("resized"), model, 0.0)
    use_micro_batch(job, 1)
    process = job.start("train", attempt=0)
    assert job.interrupt(process, signal.SIGKILL, lambda: max(job.checkpoints, default=0) > 2) == -signal.SIGKILL
    use_micro_batch(job, 8)
    assert job.finish("train", attempt=1) == 0, job.said("train", 1)
    assert job.result()["effective"]["microBatchSize"] == 8
    return job


def assert_learned_the_same(job: Job, other: Job) -> None:
    from safetensors.torch import load_file
    from torch.testing import assert_close

    assert job.run.name == other.run.name
    assert [m["rows"] for m in job.metrics()] == [m["rows"] for m in other.metrics()]
    for name in ("loss", "gradNorm", "learningRate"):
        assert [m[name] for m in job.metrics()] == pytest.approx([m[name] for m in other.metrics()], rel=TOLERANCE)
    name = "adapter/adapter_model.safetensors"
    assert_close(load_file(job.run / name), load_file(other.run / name), rtol=1e-3, atol=1e-5)


def curve(job: Job) -> list[dict[str, Any]]:
    report: dict[str, Any] = json.loads((job.run / "report.json").read_text())
    found: list[dict[str, Any]] = report["training"]["holdoutLoss"]
    return found


def test_sigterm_saves_and_says_from_where_it_goes_on(stopped: tuple[Job, dict[str, Any]]) -> None:
    _, told = stopped
    assert told["reason"] == "Preempted"
    assert 1 <= told["checkpointStep"] < STEPS


def test_kills_change_nothing(calm: Job, stopped: tuple[Job, dict[str, Any]]) -> None:
    assert_learned_the_same(stopped[0], calm)


def test_the_micro_batch_changes_nothing_even_in_the_middle(plain: Job, resized: Job) -> None:
    assert_learned_the_same(resized, plain)


def test_the_hold_out_curve_goes_on_after_kills(calm: Job, stopped: tuple[Job, dict[str, Any]]) -> None:
    assert [point["step"] for point in curve(stopped[0])] == sorted(evaluation_steps(STEPS))
    for there, here in zip(curve(calm), curve(stopped[0]), strict=True):
        assert here["value"] == pytest.approx(there["value"], rel=TOLERANCE)


def test_looking_at_the_hold_out_rows_changes_nothing(calm: Job, model: Path, tmp_path: Path) -> None:
    job = tiny_job(tmp_path, model, 0.05)
    assert job.finish("train", code=STAGE.format(child=UNSEEN)) == 0, job.said("train")
    assert curve(job) == []
    assert_learned_the_same(job, calm)


def test_the_best_step_is_kept_and_training_ends_early_also_when_it_is_resumed(model: Path, tmp_path: Path) -> None:
    job = tiny_job(tmp_path, model, 0.0, earlyStoppingPatience=2)
    for attempt in range(2):
        assert job.finish("train", attempt, code=STAGE.format(child=OVERFITTING)) == 0, job.said("train", attempt)
        # Every fourth step is measured, and is worse than the one before.
        assert [m["step"] for m in job.metrics()] == list(range(1, 13))
        assert job.result()["evaluation"]["bestStep"] == 4
        kept = (job.run / "adapter/adapter_model.safetensors").read_bytes()
        (checkpoints,) = job.output.glob("*/.runs/*/checkpoints")
        assert kept == (checkpoints / "4/adapter_model.safetensors").read_bytes()
        # As if the pod had died after its last checkpoint.
        shutil.rmtree(job.run / "adapter")
    assert "Training step" not in job.said("train", 1)
