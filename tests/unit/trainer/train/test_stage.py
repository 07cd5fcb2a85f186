"""The stage around the process that trains: memory settings, retries, signals, deaths."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from finetune_api.job import FineTuneJob
from finetune_api.layout import JobLayout
from finetune_api.plan import Defaults
from finetune_api.render import render
from finetune_api.result import StageResult
from finetune_api.status import DatasetStatus
from finetune_trainer.errors import SettingsError
from finetune_trainer.progress import watchdog
from finetune_trainer.progress.watchdog import Watchdog
from finetune_trainer.run_folder import prepared, stage_results
from finetune_trainer.run_folder.prepared import Prepared
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.sources.resolved import ResolvedModel
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.train import launcher, process_group
from finetune_trainer.train import stage as train_stage
from finetune_trainer.train.checkpoints import Checkpoints
from tests.support import fake_training
from tests.support.trainer_job import JOB

ROOT = Path(__file__).resolve().parents[4]
RUN = "a" * 64
# Waited for in vain only by a test that fails.
PATIENCE_SECONDS = 60.0


class HangClock(threading.Event):
    """The clock of a Watchdog: time passes only while a process hangs, and until it has printed its stacks."""

    def __init__(self, hangs: Callable[[], object], printed: Callable[[], object]) -> None:
        super().__init__()
        self._hangs, self._printed = hangs, printed

    def wait(self, timeout: float | None = None) -> bool:
        over = self._printed if timeout == watchdog._DUMP_SECONDS else self._hangs
        while not (self.is_set() or over()):
            super().wait(0.02)
        return self.is_set()


class Reports:
    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def report(self, activity: str, **figures: Any) -> None:
        self.all.append({"activity": activity, **figures})


@dataclass
class Stage:
    """One job that was prepared; `run` is one attempt of its train stage."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    reports: Reports = field(default_factory=Reports)
    stop: StopFlag = field(default_factory=StopFlag)
    attempts: int = 0
    hang_seconds: int | None = None
    processes: int = 1

    def prepare(self) -> None:
        path = os.pathsep.join(str(ROOT / part) for part in ("crds", "trainer-image", "."))
        self.monkeypatch.setenv("PYTHONPATH", path)
        self.monkeypatch.setenv("FAKE_TRAINING_LOG", str(self.root / "started"))
        self.monkeypatch.setenv("FAKE_OUTCOMES", json.dumps(fake_training.outcomes()))
        # -P: the names of its neighbours are those of modules of the standard library.
        self.monkeypatch.setattr(launcher, "COMMAND", [sys.executable, "-P", fake_training.__file__])
        # Where all processes end by themselves, a busy machine may take long.
        self.monkeypatch.setattr(process_group, "_OTHERS_SECONDS", PATIENCE_SECONDS)
        self.monkeypatch.setattr(launcher, "_DRAIN_SECONDS", PATIENCE_SECONDS)
        context = self.context()
        stage_results.write(context.store, context.layout, StageResult(stage="prepare", exit_code=0, run_id=RUN))
        description = Prepared(
            run_id=RUN,
            model=ResolvedModel(revision="1", reference="org/model", architecture="Llama", files=[]),
            template="Alpaca",
            chat_template="",
            stop_token_ids=[2],
            stop_strings=[],
            total_steps=2,
            dataset=DatasetStatus(examples=1, supervised_tokens=1),
            questions=[],
        )
        key = f"{context.layout.run(RUN)}/{prepared.DESCRIPTION}"
        context.store.put_bytes(key, description.model_dump_json(by_alias=True).encode())

    def context(self) -> Context:
        scratch = self.root / f"scratch-{self.attempts}"
        scratch.mkdir(exist_ok=True)
        plan = render(FineTuneJob.model_validate(JOB), Defaults(allow_cpu=True))
        training = plan.training.model_copy(update={"hang_timeout_seconds": self.hang_seconds})
        return Context(
            plan=plan.model_copy(update={"training": training}),
            layout=JobLayout("gym", "coach", "uid"),
            store=FileStore(self.root / "store"),
            reporter=self.reports,
            scratch=scratch,
            attempt=self.attempts,
            stop=self.stop,
            processes=self.processes,
        )

    def run(self, **script: Any) -> StageResult:
        self.monkeypatch.setenv("FAKE_TRAINING", json.dumps(script))
        self.attempts += 1
        return train_stage.run(self.context())

    def watch_with(self, clock: HangClock) -> None:
        def watch(*arguments: Any) -> Watchdog:
            made = Watchdog(*arguments)
            made._over = clock
            return made

        self.hang_seconds = 1800
        self.monkeypatch.setattr(launcher, "Watchdog", watch)

    def failure(self, **script: Any) -> StageResult:
        result = self.run(**script)
        assert result.exit_code != 0
        return result

    @property
    def started(self) -> list[dict[str, Any]]:
        path = self.root / "started"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def hangs(self) -> bool:
        return (self.root / "hangs").exists()

    def stacks_are_printed(self) -> bool:
        return (self.root / "dumped").exists()

    @property
    def settings(self) -> list[list[Any]]:
        return [one["settings"] for one in self.started]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(tmp_path, monkeypatch)
    made.prepare()
    return made


def when(condition: Callable[[], Any], action: Callable[[], None]) -> threading.Thread:
    """Do something in the background as soon as a condition holds."""

    def wait() -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_when_memory_runs_out_another_process_tries_more_frugal_settings(stage: Stage) -> None:
    assert stage.run(fits=[4, "Standard"]).exit_code == 0
    assert stage.settings == [[8, "None"], [8, "Standard"], [4, "Standard"]]
    assert len({one["pid"] for one in stage.started}) == 3


def test_the_models_files_are_fetched_once(stage: Stage) -> None:
    stage.run(fits=[4, "Standard"])
    assert [one["weights"] for one in stage.started] == [None, "model-files", "model-files"]


def test_a_retry_starts_with_the_memory_settings_that_were_found(stage: Stage) -> None:
    stage.run(fits=[4, "Standard"])
    stage.run(fits=[4, "Standard"])
    assert stage.settings[3:] == [[4, "Standard"]]


def test_the_memory_settings_of_another_run_do_not_count(stage: Stage) -> None:
    stage.run(fits=[4, "Standard"])
    path = stage.root / "store/gym/.runs/uid/rung.json"
    path.write_text(path.read_text().replace(RUN, "b" * 64))
    stage.run(fits=[8, "None"])
    assert stage.settings[3:] == [[8, "None"]]


def test_after_the_last_memory_settings_the_job_fails_with_the_numbers(stage: Stage) -> None:
    error = stage.failure(fits=None)
    assert error.exit_code == 79
    assert "Fake GPU had 1000 MiB free" in error.message
    assert "tried: 8 None, 8 Standard, 4 Standard, 2 Standard, 2 Offload, 1 Offload" in error.message


def test_a_failure_is_reported_as_the_process_reported_it(stage: Stage) -> None:
    thread = when(lambda: stage.started, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with stage.stop.installed():
        error = stage.failure(end="wait and save")
    thread.join()
    assert (error.exit_code, error.message, error.checkpoint_step) == (75, "saved", 7)


@pytest.mark.parametrize("end", ["wait", "break when stopped"])
def test_a_process_that_is_stopped_before_it_can_save_is_preempted(stage: Stage, end: str) -> None:
    thread = when(lambda: stage.started, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with stage.stop.installed():
        error = stage.failure(end=end)
    thread.join()
    assert (error.exit_code, error.reason) == (75, "Preempted")


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("SIGKILL", 137, "main memory was too small; raise the memory of spec.compute.resources.train"),
        ("SIGSEGV", 139, "died of SIGSEGV"),
        ("exit", 3, "ended with code 3 and no result"),
    ],
)
def test_a_process_that_dies_is_a_crash_with_its_own_code(stage: Stage, end: str, code: int, said: str) -> None:
    error = stage.failure(end=end)
    assert (error.exit_code, error.reason) == (code, "Crashed")
    assert said in error.message


def test_a_process_that_dies_leaves_its_checkpoint(stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    context = stage.context()
    for step, run_id in ((5, RUN), (7, RUN), (9, "b" * 64)):
        Checkpoints(context.store, context.layout.checkpoints, run_id, "order").upload(folder, step)
    assert stage.failure(end="SIGKILL").checkpoint_step == 7


def test_a_process_that_hangs_is_ended_and_its_log_says_where(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.watch_with(HangClock(stage.hangs, stage.stacks_are_printed))
    error = stage.failure(end="hang")
    assert (error.exit_code, error.reason) == (81, "Hung")
    assert "raise spec.training.hangTimeoutSeconds" in error.message
    printed = capfd.readouterr().err
    assert "Current thread" in printed
    assert "in hang" in printed
    assert not running(stage.started[0]["pid"])


def test_a_process_that_hangs_leaves_its_checkpoint(stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    context = stage.context()
    Checkpoints(context.store, context.layout.checkpoints, RUN, "order").upload(folder, 7)
    stage.watch_with(HangClock(stage.hangs, stage.stacks_are_printed))
    assert stage.failure(end="hang").checkpoint_step == 7


def test_a_process_that_hangs_when_asked_to_stop_is_preempted(stage: Stage) -> None:
    stage.watch_with(HangClock(lambda: stage.stop.requested, stage.stacks_are_printed))
    thread = when(stage.hangs, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with stage.stop.installed():
        error = stage.failure(end="hang")
    thread.join()
    assert error.reason == "Preempted"


def test_processes_that_follow_leave_the_result_to_the_leader(stage: Stage) -> None:
    stage.processes = 2
    assert stage.run(fits=[8, "None"]).run_id == RUN
    assert len(stage.started) == 2


@pytest.mark.parametrize("others", [{"fits": None}, {}])
def test_memory_that_runs_out_in_any_process_is_tried_again_by_all(stage: Stage, others: dict[str, Any]) -> None:
    stage.processes = 2
    # Each takes four examples of eight.
    assert stage.failure(fits=None, others=others).exit_code == 79
    assert [micro for micro, _ in stage.settings[::2]] == [8, 8, 4, 2, 2, 1]


@pytest.mark.parametrize(
    ("leader", "other", "code"),
    [("wait", "SIGKILL", 137), ("SIGKILL", "wait", 137), ("wait", "exit", 3), ("crash", "wait", 1)],
)
def test_a_process_that_dies_ends_all(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, leader: str, other: str, code: int
) -> None:
    monkeypatch.setattr(process_group, "_OTHERS_SECONDS", 0.2)
    stage.processes = 2
    assert stage.failure(end=leader, others={"end": other}).exit_code == code
    assert not any(running(one["pid"]) for one in stage.started)


def test_what_a_process_says_for_want_of_another_is_not_the_cause(stage: Stage) -> None:
    stage.processes = 2
    assert stage.failure(end="crash", others={"end": "SIGKILL"}).exit_code == 137


def test_a_batch_that_cannot_be_divided_is_refused(stage: Stage) -> None:
    stage.processes = 3
    with pytest.raises(SettingsError, match=r"spec\.training\.batchSize is 8 and cannot be divided over 3 GPUs"):
        stage.run(fits=[8, "None"])
    assert stage.started == []


def test_progress_comes_through(stage: Stage) -> None:
    stage.run(fits=[8, "None"])
    assert stage.reports.all == [{"activity": "Training", "step": 1, "total_steps": 2}]


def test_what_the_process_prints_is_printed(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    stage.run(fits=[8, "None"])
    assert "said by the training process" in capfd.readouterr().out


def test_no_training_library_is_loaded_around_it(stage: Stage) -> None:
    code = "import sys, finetune_trainer.train.stage; print({'torch', 'transformers', 'unsloth'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


ORPHAN = """
import os, subprocess, sys, time
from finetune_trainer.train import worker
if sys.argv[1] == "parent":
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], str(os.getpid()), sys.argv[2]])
    print(child.pid, flush=True)
else:
    worker._die_with(int(sys.argv[1]))
    print("ready", flush=True)
time.sleep(600)
"""


def test_nothing_is_left_when_the_stage_is_killed(stage: Stage) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, "parent", ORPHAN], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    with parent, parent.stdout as lines:  # type: ignore[union-attr]
        child = int(next(iter(lines)))
        assert lines.readline() == "ready\n"
        parent.kill()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while running(child):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
