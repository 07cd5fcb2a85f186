"""The real tokenizer, loaded once, and one tiny model."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.network import patience
from local_platform.smollm2 import model_dir
from tests.support import https_server as https
from tests.support import s3_server, tiny_model, trainer_job
from tests.support.https_server import HTTPSServer
from tests.support.s3_server import S3Server
from tests.support.source_servers import hub, web  # noqa: F401 - fixtures
from tests.support.trainer_job import TrainerJob

# As the trainer does, before torch is imported: threads that spin while they wait take the cores from those that work.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


@pytest.fixture(autouse=True)
def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is away: no test waits for it."""
    monkeypatch.setattr(patience, "OUTAGE", 0)
    monkeypatch.setattr(patience, "UNKNOWN_NAME", 0)


@pytest.fixture(scope="session")
def converter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainer_job.accepting_converter(tmp_path_factory.mktemp("converter") / "llama.cpp")


@pytest.fixture(autouse=True)
def accepting_converter(converter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is turned down for its tokenizer, which takes seconds to find out."""
    monkeypatch.setenv("LLAMA_CPP_DIR", str(converter))


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir(), local_files_only=True)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if s3_server.binary() is None:
        pytest.skip("versitygw is not built")
    import botocore.session

    # Each client reads the description of S3, a third of a second of CPU; here the first one reads it for all.
    read_once = functools.cache(botocore.session.create_loader)
    with pytest.MonkeyPatch.context() as patch, s3_server.running(tmp_path_factory.mktemp("s3")) as server:
        patch.setattr(botocore.session, "create_loader", read_once)
        yield server


@pytest.fixture
def job(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> TrainerJob:
    made = trainer_job.make(tmp_path, tiny)
    monkeypatch.setenv("FINETUNE_TERMINATION_LOG", str(made.termination_log))
    monkeypatch.setenv("FINETUNE_SCRATCH", str(tmp_path / "scratch"))
    return made


@pytest.fixture
def https_server(tmp_path: Path) -> Iterator[HTTPSServer]:
    with https.running(tmp_path) as server:
        yield server


@pytest.fixture
def https_port(https_server: HTTPSServer) -> int:
    return https_server.port
