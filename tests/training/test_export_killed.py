"""Whenever the plug is pulled, the bucket tells no lie, and the next attempt comes to the same result."""

import hashlib
import json
import multiprocessing
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from finetune_api.plan import S3Target
from finetune_trainer.storage.folder import FileStore
from finetune_trainer.storage.s3 import S3Store
from tests.support import export_job, s3_server, tiny_model
from tests.support.export_attempt import attempt
from tests.support.export_job import LAYOUT
from tests.support.s3_server import S3Server
from tests.training.conftest import Job

pytestmark = pytest.mark.timeout(600)
KILLS = 20
SEED = 7
# Of writing one file: long enough to be hit.
SECONDS = 0.05
# Most of the first ten are imports.
REAL_KILLS, REAL_SECONDS = 5, (6.0, 20.0)
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
    context: Any = field(default_factory=lambda: multiprocessing.get_context("forkserver"))

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

    def start(self) -> Any:
        plan = self.root / "plan.json"
        output = {"s3": self.target.model_dump(mode="json", by_alias=True)}
        plan.write_text(json.dumps(self.plan | {"output": output}))
        (self.root / "scratch").mkdir(exist_ok=True)
        variables = {
            "FINETUNE_SCRATCH": str(self.root / "scratch"),
            "FINETUNE_TERMINATION_LOG": str(self.root / "termination-log"),
            "FINETUNE_BUILD_ID": "test",
        }
        self.attempts += 1
        process = self.context.Process(target=attempt, args=(plan, self.attempts, variables, SECONDS))
        process.start()
        return process

    def finish(self) -> None:
        process = self.start()
        process.join(60)
        assert process.exitcode == 0, (self.root / f"export-{self.attempts}.out").read_text()

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
        made = export_job.make(root, tiny, **EXPORT)
    s3.make_bucket("killed")
    bucket = Bucket(s3, "killed", root, made.plan)
    for stored in FileStore(made.output).list(""):
        bucket.store.put_file(stored.key, made.output / stored.key)
    return bucket


@pytest.fixture(scope="module")
def undisturbed(prepared: Bucket, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """Return the files that an export leaves which nobody kills, and its seconds."""
    prepared.context.set_forkserver_preload(["tests.support.export_attempt"])
    seconds = float("inf")
    # The first one waits for the fork server, and others may want the same CPUs: the quicker one is what it takes.
    for _ in range(3):
        bucket = prepared.copied(tmp_path_factory.mktemp("calm"))
        started = time.monotonic()
        bucket.finish()
        seconds = min(seconds, time.monotonic() - started)
    return bucket.files(), seconds


def assert_no_lie(bucket: Bucket, whole: dict[str, str]) -> None:
    found = bucket.files()
    large = {name: checksum for name, checksum in found.items() if name.startswith(("gguf/", "merged/"))}
    assert large == {name: whole[name] for name in large}, "a half file has its final name"
    if "manifest.json" in found:
        listed = json.loads((bucket.folder / "manifest.json").read_text())["files"]
        assert {f["path"]: f["sha256"] for f in listed} == {n: c for n, c in found.items() if n != "manifest.json"}
    elif bucket.store.get_bytes(LAYOUT.latest) is not None:
        raise AssertionError("it is told as complete and has no manifest")


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
        process.join(moments.uniform(0.05, 1.0) * seconds)
        killed += process.exitcode is None
        process.kill()
        process.join()
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
        process.join(moments.uniform(0.3, 0.8) * seconds)
        process.kill()
        process.join()
        assert_no_lie(bucket, whole)
    bucket.finish()
    assert settled(bucket.files()) == settled(whole)


def test_pulled_again_and_again_with_the_real_converter_quantizer_and_proof(trained: Job, tmp_path: Path) -> None:
    job = trained.copied(tmp_path / "job")
    plan = json.loads((job.root / "plan.json").read_text())
    (job.root / "plan.json").write_text(json.dumps(plan | {"export": EXPORT}))
    moments = random.Random(SEED + 2)
    killed = 0
    for number in range(REAL_KILLS):
        process = job.start("export", number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(*REAL_SECONDS))
        killed += process.poll() is None
        process.kill()
        process.wait()
        assert not (job.run / "manifest.json").exists()
    assert job.finish("export", REAL_KILLS) == 0, job.said("export", REAL_KILLS)
    assert killed == REAL_KILLS
    listed = {f["path"]: f["sha256"] for f in json.loads((job.run / "manifest.json").read_text())["files"]}
    assert {name: hashlib.sha256((job.run / name).read_bytes()).hexdigest() for name in listed} == listed
    artifacts = job.result()["artifacts"]
    assert {a["name"] for a in artifacts if a.get("parity")} == {*EXPORT["gguf"], "LoRA", "Merged"}
