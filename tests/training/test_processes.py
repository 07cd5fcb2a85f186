"""Several processes that train together, as one per GPU does, learn what one process learns."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny_model
from tests.training.conftest import Job, coach_rows, make_tiny_job
from tests.training.test_resume import assert_learned_the_same

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]
TWO = ["--processes", "2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


def tiny_job(root: Path, model: Path, **settings: Any) -> Job:
    """One epoch, whose last step is shorter. Without dropout, which draws other numbers in each process."""
    settings = {"batchSize": 8, "maxSteps": None, "epochs": 1, "learningRate": 3e-2} | settings
    return make_tiny_job(root, model, coach_rows(58, 24), 0.0, **settings)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Job:
    return tiny_job(tmp_path_factory.mktemp("prepared"), model)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, prepared: Job) -> Job:
    job = prepared.copied(tmp_path_factory.mktemp("alone"))
    assert job.finish_here("train") == 0, job.said("train")
    return job


def test_two_processes_learn_what_one_learns(prepared: Job, alone: Job, tmp_path: Path) -> None:
    rows = [len(m["rows"]) for m in alone.metrics()]
    assert rows[-1] < rows[0] == 8
    job = prepared.copied(tmp_path)
    assert job.finish("train", options=TWO) == 0, job.said("train")
    assert job.result()["effective"]["gradientAccumulation"] == 2
    assert_learned_the_same(job, alone)


def test_two_processes_go_on_after_kills_as_if_nothing_had_happened(prepared: Job, alone: Job, tmp_path: Path) -> None:
    job = prepared.copied(tmp_path)
    process = job.start("train", attempt=0, options=TWO)
    code = job.interrupt(process, signal.SIGTERM, lambda: "Training step 0" in job.said("train", 0))
    assert code == 75, job.said("train", 0)
    assert job.result()["checkpointStep"] >= 1
    process = job.start("train", attempt=1, options=TWO)
    newer = job.checkpoints[-1] + 1
    assert job.interrupt(process, signal.SIGKILL, lambda: max(job.checkpoints) > newer) == -signal.SIGKILL
    assert job.finish("train", attempt=2, options=TWO) == 0, job.said("train", 2)
    assert_learned_the_same(job, alone)
