"""Neither a kill, nor another micro-batch, nor a look at the hold-out rows changes what is learned."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.evaluation.curve import evaluation_steps
from finetune_trainer.evaluation.evaluation import Evaluation
from finetune_trainer.train import leader
from tests.support import tiny_model
from tests.training.conftest import Job, coach_rows, make_tiny_job

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]
STEPS = 20
# Nothing but the order of floating-point additions may differ.
TOLERANCE = 1e-4
ADAPTER = Path("adapter/adapter_model.safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


def tiny_job(root: Path, model: Path, dropout: float, **settings: Any) -> Job:
    settings = {"batchSize": 8, "maxSteps": STEPS, "learningRate": 3e-2} | settings
    return make_tiny_job(root, model, coach_rows(60, 24), dropout, **settings)


@pytest.fixture(scope="module")
def unsteady(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Job:
    """Prepared, with dropout: random numbers matter."""
    return tiny_job(tmp_path_factory.mktemp("unsteady"), model, 0.05)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Job:
    """Prepared, without dropout, which draws other numbers for another micro-batch."""
    return tiny_job(tmp_path_factory.mktemp("steady"), model, 0.0)


def trained(job: Job, before: Callable[[], None] | None = None) -> Job:
    """Train without interruption."""
    assert job.finish("train", before=before) == 0, job.said("train")
    return job


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, unsteady: Job) -> Job:
    return trained(unsteady.copied(tmp_path_factory.mktemp("calm")))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, steady: Job) -> Job:
    return trained(steady.copied(tmp_path_factory.mktemp("plain")))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, unsteady: Job) -> tuple[Job, dict[str, Any]]:
    """The calm job, stopped by SIGTERM once and by kill -9 once; with the termination message of the first."""
    job = unsteady.copied(tmp_path_factory.mktemp("stopped"))
    process = job.start_as_a_pod_does("train", attempt=0)
    code = job.interrupt(process, signal.SIGTERM, lambda: "Training step 0" in job.said("train", 0))
    assert code == 75, job.said("train", 0)
    reported = job.result()
    process = job.start("train", attempt=1)
    newer = reported["checkpointStep"] + 1
    assert job.interrupt(process, signal.SIGKILL, lambda: max(job.checkpoints) > newer) == -signal.SIGKILL
    assert job.finish("train", attempt=2) == 0, job.said("train", 2)
    return job, reported


def use_micro_batch(job: Job, size: int) -> None:
    """Do as an attempt that ran out of memory: leave another rung for the next one."""
    (state,) = job.output.glob("*/.runs/*")
    memory_settings = {"micro_batch_size": size, "gradient_checkpointing": "None"}
    (state / "rung.json").write_text(json.dumps({"runId": job.run.name, "rung": memory_settings}))


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory, steady: Job) -> Job:
    """The plain job, killed in the middle: before with a micro-batch of 1, afterwards of 8."""
    job = steady.copied(tmp_path_factory.mktemp("resized"))
    use_micro_batch(job, 1)
    process = job.start("train", attempt=0)
    assert job.interrupt(process, signal.SIGKILL, lambda: max(job.checkpoints, default=0) > 2) == -signal.SIGKILL
    use_micro_batch(job, 8)
    assert job.finish("train", attempt=1) == 0, job.said("train", 1)
    assert job.result()["effective"]["microBatchSize"] == 8
    return job


def assert_learned_the_same(job: Job, other: Job) -> None:
    assert_steps_are_the_same(job, other)
    assert_adapters_are_the_same(job.run / ADAPTER, other.run / ADAPTER)


def assert_steps_are_the_same(job: Job, other: Job) -> None:
    assert job.run.name == other.run.name
    assert [m["rows"] for m in job.metrics()] == [m["rows"] for m in other.metrics()]
    for name in ("loss", "gradNorm", "learningRate"):
        assert [m[name] for m in job.metrics()] == pytest.approx([m[name] for m in other.metrics()], rel=TOLERANCE)


def assert_adapters_are_the_same(one: Path, other: Path) -> None:
    from safetensors.torch import load_file
    from torch.testing import assert_close

    assert_close(load_file(one), load_file(other), rtol=1e-3, atol=1e-5)


def last_checkpoint(job: Job) -> Path:
    (folder,) = job.output.glob(f"*/.runs/*/checkpoints/{job.checkpoints[-1]}")
    return folder / ADAPTER.name


def curve(job: Job) -> list[dict[str, Any]]:
    report: dict[str, Any] = json.loads((job.run / "report.json").read_text())
    found: list[dict[str, Any]] = report["training"]["holdoutLoss"]
    return found


def test_sigterm_saves_and_says_from_where_it_continues(stopped: tuple[Job, dict[str, Any]]) -> None:
    _, reported = stopped
    assert reported["reason"] == "Preempted"
    assert 1 <= reported["checkpointStep"] < STEPS


def test_kills_change_nothing(calm: Job, stopped: tuple[Job, dict[str, Any]]) -> None:
    assert_learned_the_same(stopped[0], calm)


def test_only_the_first_attempt_evaluates_the_base(stopped: tuple[Job, dict[str, Any]]) -> None:
    job, _ = stopped
    reused = "an earlier attempt evaluated the base"
    assert [reused in job.said("train", attempt) for attempt in range(3)] == [False, True, True]


def evaluation(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job.run / "report.json").read_text())["evaluation"]
    return found


def test_what_is_judged_does_not_depend_on_kills(calm: Job, stopped: tuple[Job, dict[str, Any]]) -> None:
    here, there = evaluation(stopped[0]), evaluation(calm)
    assert here["holdoutLossBase"] == pytest.approx(there["holdoutLossBase"], rel=TOLERANCE)
    assert [a["base"] for a in here["answers"]] == [a["base"] for a in there["answers"]]


def test_the_micro_batch_changes_nothing_even_in_the_middle(plain: Job, resized: Job) -> None:
    assert_learned_the_same(resized, plain)


def test_the_hold_out_curve_continues_after_kills(calm: Job, stopped: tuple[Job, dict[str, Any]]) -> None:
    assert [point["step"] for point in curve(stopped[0])] == sorted(evaluation_steps(STEPS))
    for there, here in zip(curve(calm), curve(stopped[0]), strict=True):
        assert here["value"] == pytest.approx(there["value"], rel=TOLERANCE)


def look_at_no_hold_out_rows() -> None:
    """In the process that trains."""
    leader.evaluation_steps = lambda total, points: frozenset()


def test_looking_at_the_hold_out_rows_changes_nothing(calm: Job, unsteady: Job, tmp_path: Path) -> None:
    job = trained(unsteady.copied(tmp_path), look_at_no_hold_out_rows)
    assert curve(job) == []
    # Not what is kept, which is the best step of what was seen.
    assert_steps_are_the_same(job, calm)
    assert_adapters_are_the_same(last_checkpoint(job), last_checkpoint(calm))


def worsen_with_each_step() -> None:
    """In the process that trains."""
    Evaluation.during = lambda self, step: float(step)  # type: ignore[method-assign]


def test_the_best_step_is_kept_and_training_ends_early_also_when_it_is_resumed(model: Path, tmp_path: Path) -> None:
    job = tiny_job(tmp_path, model, 0.0, earlyStoppingPatience=2)
    for attempt in range(2):
        # Every fourth step is measured.
        assert job.finish("train", attempt, before=worsen_with_each_step) == 0, job.said("train", attempt)
        assert [m["step"] for m in job.metrics()] == list(range(1, 13))
        assert job.result()["evaluation"]["bestStep"] == 4
        kept = (job.run / ADAPTER).read_bytes()
        (checkpoints,) = job.output.glob("*/.runs/*/checkpoints")
        assert kept == (checkpoints / "4" / ADAPTER.name).read_bytes()
        # As if the pod had died after its last checkpoint.
        shutil.rmtree(job.run / "adapter")
    assert "Training step" not in job.said("train", 1)
