"""Several processes that train together, as one per GPU does, learn what one process learns; in one pod or several."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.train.messages import STOPPED
from finetune_trainer.train.process_group import free_port
from tests.support import tiny_model, warm
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
    assert job.finish("train") == 0, job.said("train")
    return job


def test_two_processes_learn_what_one_learns(prepared: Job, alone: Job, tmp_path: Path) -> None:
    rows = [len(m["rows"]) for m in alone.metrics()]
    assert rows[-1] < rows[0] == 8
    job = prepared.copied(tmp_path)
    assert job.finish_as_a_pod_does("train", options=TWO) == 0, job.said("train")
    assert job.result()["effective"]["gradientAccumulation"] == 2
    assert_learned_the_same(job, alone)


def test_two_processes_continue_after_kills_as_if_nothing_had_happened(
    prepared: Job, alone: Job, tmp_path: Path
) -> None:
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


class Pods:
    """Two pods that train one job: all that they have in common is its bucket."""

    def __init__(self, job: Job, attempt: int, monkeypatch: pytest.MonkeyPatch) -> None:
        leader = f"127.0.0.1:{free_port()}"
        self.parts: list[Job] = []
        self.processes: list[warm.Stage] = []
        for node in (0, 1):
            part = Job(job.root / f"node-{node}")
            part.root.mkdir(exist_ok=True)
            (part.root / "plan.json").write_bytes((job.root / "plan.json").read_bytes())
            monkeypatch.setenv("FINETUNE_SCRATCH", str(part.root / "scratch"))
            options = ["--nodes", "2", "--leader", leader, "--node", str(node)]
            self.parts.append(part)
            self.processes.append(part.start("train", attempt, options=options))
        self.attempt = attempt

    def codes(self) -> list[int]:
        """Return the exit codes; a pod that does not notice that the other is gone fails here."""
        return [process.wait(300) for process in self.processes]

    def said(self) -> str:
        return "\n".join(part.said("train", self.attempt) for part in self.parts)


def test_two_pods_continue_after_kills_and_learn_what_one_process_learns(
    prepared: Job, alone: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepared.copied(tmp_path)
    pods = Pods(job, 0, monkeypatch)
    pods.parts[0].interrupt(
        pods.processes[1], signal.SIGTERM, lambda: "Training step 0" in pods.parts[0].said("train", 0)
    )
    assert pods.codes() == [75, 75], pods.said()
    saved = job.checkpoints[-1]
    assert [part.result()["checkpointStep"] for part in pods.parts] == [saved, saved]
    assert [part.result()["message"] for part in pods.parts] == [STOPPED, STOPPED]

    pods = Pods(job, 1, monkeypatch)
    pods.parts[1].interrupt(pods.processes[1], signal.SIGKILL, lambda: max(job.checkpoints) > saved + 1)
    killed_at = time.monotonic()
    assert pods.codes() == [75, -signal.SIGKILL], pods.said()
    # A minute is promised.
    took = time.monotonic() - killed_at
    print(f"the other pod ended {took:.0f} s after the kill")
    assert took < 240
    assert pods.parts[0].result()["message"] == "training stopped because it lost contact with node 1 of 2"

    pods = Pods(job, 2, monkeypatch)
    assert pods.codes() == [0, 0], pods.said()
    assert_learned_the_same(job, alone)
    effective = json.loads((job.run / "report.json").read_text())["training"]["effective"]
    assert (effective["processes"], effective["gradientAccumulation"]) == (2, 2)
    assert pods.parts[1].result()["artifacts"] == []
    logs = sorted(path.name for path in job.run.glob("logs/train-2*"))
    assert logs == ["train-2-node-1.log", "train-2.log"]
