"""Whenever the plug is pulled, the bucket tells no lie, and the next attempt comes to the same result."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import S3Target
from finetune_api.progress import Activity
from finetune_trainer.progress.reporter import ProgressReporter
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.storage.s3 import S3Store
from tests.support import export_job, s3_server, tiny_model, trainer_job, warm
from tests.support.export_job import LAYOUT, QuickParts
from tests.support.s3_server import S3Server
from tests.training.conftest import Job, coach_rows, make_tiny_job

pytestmark = pytest.mark.timeout(600)
KILLS = 20
SEED = 7
# Of writing one file: long enough to be hit.
SECONDS = 0.05
# What has just begun when it is killed.
REAL_KILLS: tuple[Activity, ...] = ("Converting", "Proving", "Merging", "Quantizing", "Uploading")
EXPORT: dict[str, Any] = {"gguf": ["F16", "Q8_0", "Q4_K_M"], "loraGGUF": True, "merged": True}
# They tell of the attempt itself: how long it took.
_OF_THE_ATTEMPT = ("report.json", "report.html")


@dataclass
class Bucket:
    """A bucket with a trained job in it, as the server shows it and as it lies on its disk."""

    s3: S3Server
    name: str
    root: Path
    plan: dict[str, Any]
    attempts: int = 0

    @property
    def target(self) -> S3Target:
        return S3Target(
            uri=f"s3://{self.name}/tuned",
            endpoint=self.s3.endpoint,
            force_path_style=True,
            credentials_dir=str(self.s3.credentials(self.root / "keys")),
        )

    @property
    def store(self) -> S3Store:
        return S3Store(self.target)

    @property
    def folder(self) -> Path:
        (found,) = (self.s3.root / self.name / "tuned/gym/coach").glob("*/prepared")
        return found.parent

    def copied(self, root: Path) -> "Bucket":
        """Return a bucket as this one is, always of the same name: some files tell it."""
        target = self.s3.root / f"{self.name}-copy"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.s3.root / self.name, target)
        return Bucket(self.s3, target.name, root, self.plan)

    def start(self) -> warm.Stage:
        target = self.target.model_dump(mode="json", by_alias=True)
        plan = self.root / "plan.json"
        plan.write_text(json.dumps(self.plan | {"output": {"s3": target}}))
        (self.root / "scratch").mkdir(exist_ok=True)
        variables = {
            "FINETUNE_SCRATCH": str(self.root / "scratch"),
            "FINETUNE_TERMINATION_LOG": str(self.root / "termination-log"),
            "FINETUNE_BUILD_ID": "test",
        }
        self.attempts += 1
        arguments = ["export", "--plan", str(plan), "--attempt", str(self.attempts)]
        return warm.start(arguments, self.root / f"export-{self.attempts}.out", variables, use_quick_parts)

    def finish(self) -> None:
        assert self.start().wait(300) == 0, (self.root / f"export-{self.attempts}.out").read_text()

    def files(self) -> dict[str, str]:
        """Return the sha256 of every object of the run that the server shows, but logs."""
        prefix = LAYOUT.run(self.folder.name)
        names = [stored.key.removeprefix(f"{prefix}/") for stored in self.store.list(prefix)]
        return {
            name: hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
            for name in names
            if not name.startswith("logs/")
        }


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server.running(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def prepared(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """A bucket as train leaves it."""
    root = tmp_path_factory.mktemp("trained")
    tiny = tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_SCRATCH", str(root / "scratch"))
        patch.setenv("FINETUNE_BUILD_ID", "test")
        patch.setenv("LLAMA_CPP_DIR", str(trainer_job.accepting_converter(root / "llama.cpp")))
        made = export_job.make(root, tiny, **EXPORT)
    s3.make_bucket("killed")
    bucket = Bucket(s3, "killed", root, made.plan)
    for stored in FileStore(made.output).list(""):
        bucket.store.put_file(stored.key, made.output / stored.key)
    return bucket


@pytest.fixture(scope="module")
def undisturbed(prepared: Bucket, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """Return the files that an export leaves which nobody kills, and its seconds."""
    seconds = float("inf")
    # The first one waits for the fork server, and others may want the same CPUs: the quicker one is what it takes.
    for _ in range(3):
        bucket = prepared.copied(tmp_path_factory.mktemp("calm"))
        started = time.monotonic()
        bucket.finish()
        seconds = min(seconds, time.monotonic() - started)
    return bucket.files(), seconds


def use_quick_parts() -> None:
    """In the process that exports."""
    QuickParts(seconds=SECONDS).install(pytest.MonkeyPatch())


def pulled(process: warm.Stage, seconds: float) -> bool:
    """Kill a process after so many seconds, and return whether it ran until then."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    ran = process.poll() is None
    process.kill()
    process.wait()
    return ran


def assert_no_lie(bucket: Bucket, whole: dict[str, str]) -> None:
    found = bucket.files()
    large = {name: checksum for name, checksum in found.items() if name.startswith(("gguf/", "merged/"))}
    assert large == {name: whole[name] for name in large}, "a half file has its final name"
    if "manifest.json" in found:
        listed = json.loads((bucket.folder / "manifest.json").read_text())["files"]
        assert {f["path"]: f["sha256"] for f in listed} == {n: c for n, c in found.items() if n != "manifest.json"}
    elif bucket.store.get_bytes(LAYOUT.latest) is not None:
        raise AssertionError("it is reported as complete and has no manifest")


def settled(files: dict[str, str]) -> dict[str, str]:
    return {name: c for name, c in files.items() if name not in (*_OF_THE_ATTEMPT, "manifest.json")}


def test_pulled_at_any_moment(prepared: Bucket, undisturbed: tuple[dict[str, str], float], tmp_path: Path) -> None:
    whole, seconds = undisturbed
    moments = random.Random(SEED)
    killed = 0
    for number in range(KILLS):
        root = tmp_path / str(number)
        root.mkdir()
        bucket = prepared.copied(root)
        process = bucket.start()
        killed += pulled(process, moments.uniform(0.05, 1.0) * seconds)
        # A pod's scratch space is lost with it; a laptop's is there still.
        if number % 2:
            shutil.rmtree(root / "scratch")
        assert_no_lie(bucket, whole)
        bucket.finish()
        assert settled(bucket.files()) == settled(whole)
    assert killed >= KILLS // 2


def test_pulled_again_and_again(prepared: Bucket, undisturbed: tuple[dict[str, str], float], tmp_path: Path) -> None:
    whole, seconds = undisturbed
    moments = random.Random(SEED + 1)
    bucket = prepared.copied(tmp_path)
    for _ in range(4):
        process = bucket.start()
        pulled(process, moments.uniform(0.3, 0.8) * seconds)
        assert_no_lie(bucket, whole)
    bucket.finish()
    assert settled(bucket.files()) == settled(whole)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job of a small model that was really trained."""
    root = tmp_path_factory.mktemp("small")
    model = tiny_model.build(tmp_path_factory.mktemp("models") / "small")
    job = make_tiny_job(root / "job", model, coach_rows(60, 24), maxSteps=4, learningRate=0.1)
    assert job.finish("train") == 0, job.said("train")
    plan = json.loads((job.root / "plan.json").read_text())
    (job.root / "plan.json").write_text(json.dumps(plan | {"export": EXPORT}))
    return job


def die_at(activity: Activity) -> None:
    """Have the process that exports kill itself when it reports the activity."""
    report = ProgressReporter.report

    def last(self: ProgressReporter, found: Activity, **figures: Any) -> None:
        report(self, found, **figures)
        if found == activity:
            os.kill(os.getpid(), signal.SIGKILL)

    ProgressReporter.report = last  # type: ignore[method-assign]


def test_pulled_again_and_again_with_the_real_converter_quantizer_and_proof(trained: Job, tmp_path: Path) -> None:
    job = trained.copied(tmp_path / "job")
    for number, activity in enumerate(REAL_KILLS):
        assert job.finish("export", number, before=partial(die_at, activity)) == -signal.SIGKILL
        assert not (job.run / "manifest.json").exists()
    last = len(REAL_KILLS)
    assert job.finish("export", last) == 0, job.said("export", last)
    listed = {f["path"]: f["sha256"] for f in json.loads((job.run / "manifest.json").read_text())["files"]}
    assert {name: hashlib.sha256((job.run / name).read_bytes()).hexdigest() for name in listed} == listed
    artifacts = job.result()["artifacts"]
    assert {a["name"] for a in artifacts if a.get("parity")} == {*EXPORT["gguf"], "LoRA", "Merged"}
