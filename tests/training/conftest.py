"""Jobs that train a real small model through the command line, as a pod does."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.evaluation import reference
from finetune_trainer.export.llama_cpp import scripts
from local_cluster.layout import cache
from local_platform.smollm2 import model_dir
from tests.support import trainer_job, warm

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6
PROVEN_ROWS = 12
GGUFS = ("F16", "Q8_0", "Q4_K_M", "IQ4_XS")
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
        self,
        stage: str,
        attempt: int = 0,
        options: Sequence[str] = (),
        before: Callable[[], None] | None = None,
    ) -> warm.Stage:
        """In a process of its own, which has imported the libraries before.

        `options` are of the trainer's command line; `before` is called in the process first.
        """
        self.termination_log.unlink(missing_ok=True)
        arguments = [*self._arguments(stage, attempt), *options]
        return warm.start(arguments, self._output(stage, attempt), self._variables, before)

    def finish(
        self,
        stage: str,
        attempt: int = 0,
        options: Sequence[str] = (),
        before: Callable[[], None] | None = None,
    ) -> int:
        """Return the exit code of `start`."""
        return self.start(stage, attempt, options, before).wait(_TIMEOUT_SECONDS)

    def start_as_a_pod_does(self, stage: str, attempt: int = 0, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """By `python -m finetune_trainer`."""
        self.termination_log.unlink(missing_ok=True)
        with self._output(stage, attempt).open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "finetune_trainer", *self._arguments(stage, attempt), *options],
                env=os.environ | self._variables,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def finish_as_a_pod_does(self, stage: str, attempt: int = 0, options: Sequence[str] = ()) -> int:
        """Return the exit code of `start_as_a_pod_does`."""
        return self.start_as_a_pod_does(stage, attempt, options).wait(_TIMEOUT_SECONDS)

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

    def interrupt(
        self, process: subprocess.Popen[bytes] | warm.Stage, number: signal.Signals, when: Callable[[], bool]
    ) -> int:
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


def make_tiny_job(root: Path, model: Path, rows: list[dict[str, Any]], dropout: float = 0.05, **training: Any) -> Job:
    """Return a job of a small model that exports nothing and was prepared."""
    root.mkdir(exist_ok=True)
    plan = trainer_job.make(root, model, rows).plan
    complete(plan, dropout, training)
    plan["evaluation"]["maxNewTokens"] = 2
    plan["export"] = {"gguf": []}
    (root / "plan.json").write_text(json.dumps(plan))
    job = Job(root)
    assert job.finish("prepare") == 0, job.said("prepare")
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


def _once(folder: Path, name: str, make: Callable[[Path], None]) -> Job:
    """Return the job of this name, made by the worker that comes first: tests change only a copy of it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    job, whole = Job(folder / name), folder / f"{name}.whole"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            make(job.root)
            whole.touch()
    return job


@pytest.fixture(scope="session", autouse=True)
def warm_converters() -> Iterator[None]:
    """Of what is converted in the process of the tests; what `exported` is made with is as in a pod."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripts, "subprocess", warm.CONVERTERS)
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job of the real model, prepared and trained by the command line without any interruption."""

    def make(root: Path) -> None:
        root.mkdir()
        plan = trainer_job.make(root, model_dir(), coach_rows(100)).plan
        complete(plan, 0.05, {})
        plan["export"] = {"gguf": ["Q8_0"]}
        (root / "plan.json").write_text(json.dumps(plan))
        job = Job(root)
        for stage in ("prepare", "train"):
            assert job.finish_as_a_pod_does(stage) == 0, job.said(stage)
        shutil.copy(job.termination_log, root / "train.json")

    return _once(tmp_path_factory.getbasetemp(), "trained", make)


@pytest.fixture(scope="session")
def exported(trained: Job, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The same job after an export of everything that there is."""

    def make(root: Path) -> None:
        job = trained.copied(root)
        plan = json.loads((root / "plan.json").read_text())
        plan["export"] = {"gguf": list(GGUFS), "loraGGUF": True, "merged": True}
        (root / "plan.json").write_text(json.dumps(plan))
        # Some hundred tokens tell right files from wrong ones; each of seven files is run on all that there are.
        path = job.run / "prepared" / reference.NAME
        compared = json.loads(path.read_text())
        path.write_text(json.dumps(compared | {"rows": compared["rows"][:PROVEN_ROWS]}))
        assert job.finish_as_a_pod_does("export") == 0, job.said("export")
        shutil.copy(job.termination_log, root / "export.json")

    return _once(tmp_path_factory.getbasetemp(), "exported", make)
