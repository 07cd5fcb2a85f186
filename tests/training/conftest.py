"""Jobs that train a real small model through the command line, as a pod does."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from local_cluster.layout import cache
from local_platform.smollm2 import model_dir
from tests.support import in_process, trainer_job

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6
# As the trainer does, before torch is imported: threads that spin while they wait take the cores from those that work.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
_TIMEOUT_SECONDS = 600
# Of tests that load a model in their own process.
LOADS_A_MODEL = (
    # Of a library that bitsandbytes loads.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
    # Other tests may have imported transformers in this process before; on a CPU Unsloth patches nothing of it.
    pytest.mark.filterwarnings("ignore:WARNING. Unsloth should be imported before:UserWarning"),
)


@dataclass
class Job:
    """One job with a folder as its bucket."""

    root: Path

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def termination_log(self) -> Path:
        return self.root / "termination-log"

    @property
    def run(self) -> Path:
        (description,) = self.output.glob("*/*/*/prepared/prepared.json")
        return description.parents[1]

    @property
    def checkpoints(self) -> list[int]:
        """Steps of the complete ones."""
        return sorted(int(p.parent.name) for p in self.output.glob("*/.runs/*/checkpoints/*/complete.json"))

    def start(
        self, stage: str, attempt: int = 0, code: str | None = None, options: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """In a process of its own; `code`: a program to run instead of the trainer's, with its arguments.

        `options` are of the trainer's command line.
        """
        self.termination_log.unlink(missing_ok=True)
        program = ["-c", code] if code else ["-m", "finetune_trainer"]
        with self._output(stage, attempt).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *program, *self._arguments(stage, attempt), *options],
                env=os.environ | self._variables,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def finish(self, stage: str, attempt: int = 0, code: str | None = None, options: Sequence[str] = ()) -> int:
        return self.start(stage, attempt, code, options).wait(_TIMEOUT_SECONDS)

    def finish_here(self, stage: str, attempt: int = 0) -> int:
        """In this process, which has imported the libraries before."""
        self.termination_log.unlink(missing_ok=True)
        return in_process.run(self._arguments(stage, attempt), self._output(stage, attempt), self._variables)

    def copied(self, root: Path) -> "Job":
        """Return the same job with a bucket of its own, as far as this one has come."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        plan = json.loads((root / "plan.json").read_text())
        plan["output"]["path"] = str(root / "output")
        (root / "plan.json").write_text(json.dumps(plan))
        return Job(root)

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.termination_log.read_bytes())
        return found

    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]

    def said(self, stage: str, attempt: int = 0) -> str:
        return self._output(stage, attempt).read_text(errors="replace")

    def _output(self, stage: str, attempt: int) -> Path:
        return self.root / f"{stage}-{attempt}.out"

    def _arguments(self, stage: str, attempt: int) -> list[str]:
        return [stage, "--plan", str(self.root / "plan.json"), "--attempt", str(attempt)]

    @property
    def _variables(self) -> dict[str, str]:
        return {
            "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in ("crds", "trainer-image")),
            "FINETUNE_TERMINATION_LOG": str(self.termination_log),
            "LLAMA_CPP_DIR": str(cache() / "llama.cpp"),
            # Two jobs of one test are runs of one trainer, even while somebody edits it.
            "FINETUNE_BUILD_ID": "test",
        }

    def interrupt(self, process: subprocess.Popen[bytes], number: signal.Signals, when: Callable[[], bool]) -> int:
        """Send a signal as soon as `when`, and return the exit code."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not when():
            assert process.poll() is None, "it ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        return process.wait(_TIMEOUT_SECONDS)


def coach_rows(count: int, characters: int | None = None) -> list[dict[str, Any]]:
    """Return rows of the example, with answers of at most so many characters."""
    lines = (ROOT / "examples/coach.jsonl").read_text().splitlines()[:count]
    return [row | {"output": row["output"][:characters]} for row in map(json.loads, lines)]


def make_job(root: Path, model: Path | None = None, dropout: float = 0.05, **training: Any) -> Job:
    """Return a job that was prepared: of a real model, or of `model`; `training` replaces members of the plan's."""
    plan = trainer_job.make(root, model or model_dir(), coach_rows(100)).plan
    complete(plan, dropout, training)
    plan["export"] = {"gguf": ["Q8_0"]}
    (root / "plan.json").write_text(json.dumps(plan))
    job = Job(root)
    assert job.finish("prepare") == 0, job.said("prepare")
    return job


def make_tiny_job(root: Path, model: Path, rows: list[dict[str, Any]], dropout: float = 0.05, **training: Any) -> Job:
    """Return a job of a small model that exports nothing and was prepared in this process."""
    plan = trainer_job.make(root, model, rows).plan
    complete(plan, dropout, training)
    plan["evaluation"]["maxNewTokens"] = 2
    plan["export"] = {"gguf": []}
    (root / "plan.json").write_text(json.dumps(plan))
    job = Job(root)
    assert job.finish_here("prepare") == 0, job.said("prepare")
    return job


def complete(plan: dict[str, Any], dropout: float, training: dict[str, Any]) -> None:
    """Fill a plan for a short run in 32 bit; `training` replaces members of the plan's."""
    plan["model"]["quantization"] = "None"
    plan["training"] |= {
        "batchSize": 4,
        "microBatchSize": 2,
        "maxSteps": STEPS,
        "learningRate": 1e-3,
        "warmupSteps": 1,
        "gradientCheckpointing": "None",
        "checkpointSteps": 2,
    } | training
    plan["training"]["lora"] |= {"rank": 8, "dropout": dropout}
    plan["training"].pop("checkpointSeconds", None)
    plan["evaluation"] = {"prompts": ["스쿼트는 어떻게 하나요?"], "maxNewTokens": 16}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that was trained without any interruption, once for all workers: tests change only a copy of it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    job = Job(folder / "trained")
    with (folder / "trained.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The last thing that is written.
        told = job.root / "train.json"
        if not told.exists():
            job.root.mkdir()
            make_job(job.root)
            assert job.finish("train") == 0, job.said("train")
            shutil.copy(job.termination_log, told)
    return job


@pytest.fixture(scope="session")
def exported(trained: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The same job after export."""
    job = trained.copied(tmp_path_factory.mktemp("exported"))
    assert job.finish("export") == 0, job.said("export")
    shutil.copy(job.termination_log, job.root / "export.json")
    return job
