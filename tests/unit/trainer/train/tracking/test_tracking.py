"""Figures reach TensorBoard files and a real MLflow server, and training never waits for either."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune_api.layout import JobLayout
from finetune_api.plan import Plan
from finetune_api.status import DatasetStatus
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.sources.resolved import ResolvedModel
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.train import tracking
from finetune_trainer.train.tracking.mlflow import parameters
from finetune_trainer.train.tracking.tensorboard import TensorBoardFiles
from finetune_trainer.train.tracking.tracker import MOST_WAITING, Outcome, Point, Tracker
from tests.support import mlflow_server, trainer_job

FINISHED = Outcome("FINISHED", {"verdict": "Better"})
RUN_ID = "ab" * 32
PREPARED = Prepared(
    run_id=RUN_ID,
    model=ResolvedModel(revision="c0ffee", reference="org/model", architecture="LlamaForCausalLM", files=[]),
    template="Model",
    chat_template="",
    stop_token_ids=[2],
    stop_strings=["</s>"],
    total_steps=4,
    dataset=DatasetStatus(examples=60, supervised_tokens=900),
    questions=[],
)


@pytest.fixture(scope="module", autouse=True)
def starting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str] | None]:
    """Comes up while the other tests run."""
    if mlflow_server.binary() is None:
        yield None
        return
    with mlflow_server.running(tmp_path_factory.mktemp("mlflow")) as ready:
        yield ready


class Silent:
    def report(self, activity: Any, **figures: Any) -> None:
        pass


def context_of(root: Path, attempt: int = 0, mlflow: str | None = None, credentials: Path | None = None) -> Context:
    content = trainer_job.make(root, root / "model").plan
    if mlflow:
        content["mlflow"] = {"uri": mlflow, "experiment": "gym/coach"}
    if credentials:
        content["mlflow"]["credentialsDir"] = str(credentials)
    plan = Plan.model_validate(content)
    layout = JobLayout(plan.job.namespace, plan.job.name, plan.job.uid)
    scratch = root / f"scratch-{attempt}"
    scratch.mkdir(exist_ok=True)
    return Context(plan, layout, FileStore(root / "output"), Silent(), scratch, attempt, StopFlag())


def run_folder(context: Context) -> Path:
    return context.scratch.parent / "output" / context.layout.run(RUN_ID)


class Memory:
    """A sink that keeps what it gets; `obstacle` runs before each write."""

    name = "memory"

    def __init__(self, obstacle: Callable[[], None] = lambda: None) -> None:
        self.points: list[Point] = []
        self.outcome: Outcome | None = None
        self.obstacle = obstacle

    def write(self, points: Sequence[Point]) -> None:
        self.obstacle()
        self.points += points

    def close(self, outcome: Outcome) -> None:
        self.outcome = outcome


def test_all_points_arrive_in_order_before_the_end() -> None:
    sink = Memory()
    tracker = Tracker([sink], 0, every_seconds=0.001)
    for step in range(1, 200):
        tracker.log(step, {"train/loss": 1 / step})
    tracker.close(FINISHED)

    assert [point.step for point in sink.points] == list(range(1, 200))
    assert sink.outcome == FINISHED


def test_steps_before_the_checkpoint_are_left_out() -> None:
    sink = Memory()
    tracker = Tracker([sink], 3)
    for step in range(6):
        tracker.log(step, {"train/loss": 1.0})
    tracker.close(FINISHED)

    assert [point.step for point in sink.points] == [3, 4, 5]


def test_figures_that_are_no_numbers_are_left_out() -> None:
    sink = Memory()
    tracker = Tracker([sink], 0)
    tracker.log(1, {"train/loss": float("nan"), "train/grad_norm": 2.0})
    tracker.log(2, {"train/loss": float("inf")})
    tracker.close(FINISHED)

    assert [(point.step, dict(point.values)) for point in sink.points] == [(1, {"train/grad_norm": 2.0})]


def test_a_sink_that_was_away_gets_its_points_later() -> None:
    answers = iter([ConnectionError("refused"), ConnectionError("refused")])

    def obstacle() -> None:
        if (error := next(answers, None)) is not None:
            raise error

    sink = Memory(obstacle)
    tracker = Tracker([sink], 0, every_seconds=0.001)
    tracker.log(1, {"train/loss": 1.0})
    while not sink.points:
        time.sleep(0.001)
    tracker.close(FINISHED)

    assert [point.step for point in sink.points] == [1]


def test_a_sink_that_fails_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    def obstacle() -> None:
        raise ConnectionError("refused")

    with caplog.at_level(logging.WARNING):
        tracker = Tracker([Memory(obstacle)], 0, every_seconds=0.001)
        for step in range(50):
            tracker.log(step, {"train/loss": 1.0})
            time.sleep(0.001)
        tracker.close(FINISHED)

    assert len(caplog.records) == 1
    assert "memory did not accept the metrics of this training, which continues without it" in caplog.text


def test_a_sink_that_hangs_holds_up_neither_training_nor_the_other_sinks() -> None:
    release = threading.Event()
    fine_ended = threading.Event()

    class Fine(Memory):
        def close(self, outcome: Outcome) -> None:
            super().close(outcome)
            fine_ended.set()

    # It answers only when all is over.
    stuck, fine = Memory(lambda: (release.wait(), None)[1]), Fine()
    tracker = Tracker([stuck, fine], 0, every_seconds=0.001)
    for step in range(MOST_WAITING + 10):
        tracker.log(step, {"train/loss": 1.0})
    tracker.close(FINISHED, timeout=0.1)

    assert fine_ended.wait(60)
    assert fine.outcome == FINISHED
    assert stuck.outcome is None
    release.set()


def test_step_figures_name_what_is_there() -> None:
    entry = {"loss": 1.5, "grad_norm": 0.5, "learning_rate": 2e-4, "epoch": 0.1}

    assert tracking.step_figures(entry, 120.0) == {
        "train/loss": 1.5,
        "train/grad_norm": 0.5,
        "train/learning_rate": 2e-4,
        "train/tokens_per_second": 120.0,
    }
    assert tracking.step_figures({"loss": 1.5}, None) == {"train/loss": 1.5}


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_files_are_in_the_bucket_at_the_end(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    context = context_of(tmp_path)
    tracker = tracking.open(context, PREPARED, 0)
    for step in (1, 2, 3):
        tracker.log(step, {"train/loss": 1 / step})
    tracker.log(3, {"holdout/loss": 0.25})
    tracker.close(FINISHED)

    folder = run_folder(context) / "tensorboard"
    assert scalars(folder, "train/loss") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert scalars(folder, "holdout/loss") == [(3, 0.25)]


def test_a_resumed_attempt_replaces_the_steps_after_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    first = tracking.open(context_of(tmp_path, 0), PREPARED, 0)
    for step in range(1, 6):
        first.log(step, {"train/loss": 1.0})
    first.close(Outcome("KILLED"))
    context = context_of(tmp_path, 1)
    second = tracking.open(context, PREPARED, 2)
    for step in range(3, 7):
        second.log(step, {"train/loss": 2.0})
    second.close(FINISHED)

    folder = run_folder(context) / "tensorboard"
    assert len(list(folder.iterdir())) == 2
    assert scalars(folder, "train/loss") == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0), (6, 2.0)]


def test_an_attempt_without_figures_leaves_no_file(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    tracking.open(context, PREPARED, 0).close(Outcome("FAILED"))

    assert not (run_folder(context) / "tensorboard").exists()


def test_parameters_are_those_of_the_plan_without_places_or_secrets(tmp_path: Path) -> None:
    plan = context_of(tmp_path, mlflow="http://mlflow.corp").plan
    found = parameters(plan, PREPARED)

    assert found["training.learningRate"] == "0.0002"
    assert found["training.lora.rank"] == "16"
    assert found["training.method"] == "SFT"
    assert found["model.name"] == "org/model"
    assert found["dataset.examples"] == "60"
    assert not any(name.startswith(("output", "job", "mlflow")) for name in found)


def test_a_long_run_is_in_the_bucket_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    context = context_of(tmp_path)
    files = TensorBoardFiles(
        context.store, context.layout.run(RUN_ID), tmp_path, attempt=0, resumed_step=0, upload_seconds=100
    )
    began = time.monotonic()
    files.write([Point(1, 0.0, {"train/loss": 1.0})])
    assert not (run_folder(context) / "tensorboard").exists()
    monkeypatch.setattr(time, "monotonic", lambda: began + 101)
    files.write([Point(2, 0.0, {"train/loss": 0.5})])
    found = scalars(run_folder(context) / "tensorboard", "train/loss")
    files.close(FINISHED)

    assert found == [(1, 1.0), (2, 0.5)]


def test_points_are_in_the_file_once_after_the_bucket_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    context = context_of(tmp_path)
    files = TensorBoardFiles(
        context.store, context.layout.run(RUN_ID), tmp_path, attempt=0, resumed_step=0, upload_seconds=1
    )
    points = [Point(1, 0.0, {"train/loss": 1.0}), Point(1, 0.0, {"holdout/loss": 2.0})]
    with monkeypatch.context() as away:
        away.setattr(time, "monotonic", lambda: float("inf"))
        away.setattr(FileStore, "put_file", lambda *_: (_ for _ in ()).throw(OSError("away")))
        with pytest.raises(OSError, match="away"):
            files.write(points)
    files.write(points)
    files.close(FINISHED)

    assert scalars(run_folder(context) / "tensorboard", "train/loss") == [(1, 1.0)]
    assert scalars(run_folder(context) / "tensorboard", "holdout/loss") == [(1, 2.0)]


def test_credentials_go_to_the_server_and_not_into_the_environment(
    tmp_path: Path, refusing: tuple[str, list[str]]
) -> None:
    pytest.importorskip("mlflow")
    url, seen = refusing
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "MLFLOW_TRACKING_TOKEN").write_text("the-token\n")
    tracker = tracking.open(context_of(tmp_path, mlflow=url, credentials=tmp_path / "secret"), PREPARED, 0)
    tracker.log(1, {"train/loss": 1.0})
    tracker.close(FINISHED, timeout=60)

    assert seen
    assert set(seen) == {"Bearer the-token"}
    assert "the-token" not in "".join(os.environ.values())


@pytest.fixture
def refusing() -> Iterator[tuple[str, list[str]]]:
    """A server that refuses everything, and the Authorization headers that it saw."""
    seen: list[str] = []

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_error(403)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


@pytest.fixture
def server(starting_server: Callable[[], str] | None) -> str:
    pytest.importorskip("mlflow")
    if starting_server is None:
        pytest.skip("the MLflow server is not installed (hack/venv mlflow)")
    return starting_server()


def runs_of(url: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(url)
    experiment = client.get_experiment_by_name("gym/coach")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def history(url: str, run: Any, name: str) -> list[tuple[int, float]]:
    from mlflow.tracking import MlflowClient

    return sorted((m.step, m.value) for m in MlflowClient(url).get_metric_history(run.info.run_id, name))


@pytest.mark.timeout(600)
def test_a_resumed_run_continues_in_the_same_mlflow_run(tmp_path: Path, server: str) -> None:
    first = tracking.open(context_of(tmp_path, 0, server), PREPARED, 0)
    for step in range(1, 6):
        first.log(step, {"train/loss": float(step)})
    first.close(Outcome("KILLED"), timeout=120)
    (killed,) = runs_of(server)
    second = tracking.open(context_of(tmp_path, 1, server), PREPARED, 2)
    for step in range(3, 8):
        second.log(step, {"train/loss": float(step)})
    second.log(7, {"holdout/loss": 0.5})
    second.close(FINISHED, timeout=120)

    (run,) = runs_of(server)
    assert (killed.info.status, run.info.status) == ("KILLED", "FINISHED")
    assert history(server, run, "train/loss") == [(step, float(step)) for step in range(1, 8)]
    assert history(server, run, "holdout/loss") == [(7, 0.5)]
    assert run.data.params["training.learningRate"] == "0.0002"
    assert run.data.tags["finetune.verdict"] == "Better"
    assert (run.data.tags["finetune.namespace"], run.data.tags["finetune.job"]) == ("gym", "coach")


def test_a_server_that_is_away_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("mlflow")
    with caplog.at_level(logging.WARNING, "finetune_trainer"):
        tracker = tracking.open(context_of(tmp_path, mlflow="http://127.0.0.1:9"), PREPARED, 0)
        tracker.log(1, {"train/loss": 1.0})
        tracker.close(FINISHED, timeout=60)

    assert [r.getMessage().split(":")[0] for r in caplog.records if r.name.startswith("finetune_trainer")] == [
        "MLflow did not accept the metrics of this training, which continues without it"
    ]
