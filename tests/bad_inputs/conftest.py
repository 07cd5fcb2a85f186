"""One tiny model and one S3 server for all cases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_trainer.network import patience
from tests.support import s3_server, tiny_model, trainer_job
from tests.support.s3_server import S3Server
from tests.support.source_servers import hub, web  # noqa: F401 - fixtures
from tests.support.trainer_job import TrainerJob


@pytest.fixture(autouse=True)
def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is away: no test waits for it."""
    monkeypatch.setattr(patience, "OUTAGE", 0)
    monkeypatch.setattr(patience, "UNKNOWN_NAME", 0)


@pytest.fixture(scope="session")
def good_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server.running(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket("models")
        yield server


@pytest.fixture
def job(tmp_path: Path, good_model: Path, monkeypatch: pytest.MonkeyPatch) -> TrainerJob:
    made = trainer_job.make(tmp_path, good_model)
    monkeypatch.setenv("FINETUNE_TERMINATION_LOG", str(made.termination_log))
    monkeypatch.setenv("FINETUNE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("LLAMA_CPP_DIR", str(trainer_job.accepting_converter(tmp_path / "llama.cpp")))
    return made
