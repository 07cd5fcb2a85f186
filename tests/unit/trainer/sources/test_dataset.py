"""Dataset files from a path, a bucket, a hub and the web arrive as they are."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from finetune_api.layout import JobLayout
from finetune_api.plan import HubFile, Plan, S3Target, SourcePlan
from finetune_api.policy import Policy
from finetune_trainer.data.rows import collect
from finetune_trainer.errors import DatasetError
from finetune_trainer.progress.reporter import ProgressReporter
from finetune_trainer.runtime.context import Context
from finetune_trainer.runtime.sigterm import StopFlag
from finetune_trainer.sources.dataset import fetch
from finetune_trainer.storage.folder import FileStore
from tests.support import hashing, https_server, web_server
from tests.support.hub_server import COMMIT, TOKEN, HubServer
from tests.support.s3_server import S3Server
from tests.support.trainer_job import TrainerJob
from tests.support.web_server import Answer, WebServer

BODY = '{"instruction": "스쿼트", "output": "b"}\n'.encode() * 100_000
SHA256 = hashlib.sha256(BODY).hexdigest()


def _context(job: TrainerJob, *allowed: str) -> Context:
    plan = Plan.model_validate(job.plan).model_copy(update={"policy": Policy(endpoints=list(allowed))})
    scratch = job.root / "scratch"
    scratch.mkdir(exist_ok=True)
    store = FileStore(job.output)
    return Context(plan, JobLayout("gym", "coach", "1"), store, ProgressReporter("prepare", 0), scratch, 0, StopFlag())


def _bytes(context: Context, **members: Any) -> bytes:
    (found,) = fetch(context, [SourcePlan(name="coach", format="Alpaca", **members)])
    assert (found.name, found.format) == ("coach", "Alpaca")
    return found.path.read_bytes()


def _url(server: WebServer, path: str = "/data.jsonl") -> dict[str, str]:
    return {"url": f"{server.url}{path}", "sha256": SHA256}


@pytest.fixture
def body() -> bytes:
    return BODY


def test_path_is_used_in_place(job: TrainerJob) -> None:
    (found,) = fetch(_context(job), [SourcePlan(name="coach", path=str(job.dataset))])
    assert found.path == job.dataset


def test_object_in_a_bucket(job: TrainerJob, s3: S3Server, tmp_path: Path) -> None:
    s3.make_bucket("sources")
    (s3.root / "sources" / "train.jsonl").write_bytes(BODY)
    (s3.root / "sources" / "train.jsonl.old").write_bytes(b"another")
    target = S3Target(
        uri="s3://sources/train.jsonl",
        endpoint=s3.endpoint,
        force_path_style=True,
        credentials_dir=str(s3.credentials(tmp_path / "s3-keys")),
    )
    assert _bytes(_context(job), s3=target) == BODY


def test_file_on_the_web(job: TrainerJob, web: WebServer) -> None:
    assert _bytes(_context(job, "localhost"), **_url(web)) == BODY


def test_file_of_unknown_length(job: TrainerJob, web: WebServer) -> None:
    web.answers["/data.jsonl"].length = -1
    assert _bytes(_context(job, "localhost"), **_url(web)) == BODY


def test_five_redirects_are_followed(job: TrainerJob, web: WebServer) -> None:
    for number in range(5):
        web.answers[f"/{number}"] = Answer(302, headers={"Location": f"/{number + 1}"})
    web.answers["/5"] = Answer(body=BODY)
    assert _bytes(_context(job, "localhost"), **_url(web, "/0")) == BODY


def test_redirect_to_another_allowed_server(job: TrainerJob, web: WebServer) -> None:
    with web_server.running() as other:
        other.answers["/data.jsonl"] = Answer(body=BODY)
        web.answers["/data.jsonl"] = Answer(301, headers={"Location": f"http://127.0.0.1:{other.port}/data.jsonl"})
        assert _bytes(_context(job, f"localhost:{web.port}", "127.0.0.0/8"), **_url(web)) == BODY


def test_https_with_an_authority_that_is_known(
    job: TrainerJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with https_server.running(tmp_path):
        pass  # it leaves a certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "tls.crt"))
    with web_server.running(tmp_path / "tls.crt", tmp_path / "tls.key") as server:
        server.answers["/data.jsonl"] = Answer(body=BODY)
        assert _bytes(_context(job, "localhost"), **_url(server)) == BODY


def test_proxy_of_the_environment_is_asked(job: TrainerJob, web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", web.url)
    monkeypatch.setenv("no_proxy", "")
    web.answers["http://192.0.2.7/data.jsonl"] = Answer(body=BODY)
    source = {"url": "http://192.0.2.7/data.jsonl", "sha256": SHA256}
    assert _bytes(_context(job), **source) == BODY
    assert web.paths == ["http://192.0.2.7/data.jsonl"]


def test_file_of_a_private_dataset_comes_from_one_commit(job: TrainerJob, hub: HubServer, tmp_path: Path) -> None:
    token = tmp_path / "hf" / "token"
    token.parent.mkdir()
    token.write_text(TOKEN)
    file = HubFile(
        repository="org/private-coach",
        revision="main",
        path="train.jsonl",
        endpoint=hub.endpoint,
        token_file=str(token),
    )
    assert _bytes(_context(job), hub=file) == BODY
    assert set(hub.revisions) == {"main", COMMIT}
    assert [name for name, _ in hub.downloads] == ["train.jsonl"]


def test_checksum_of_each_file(job: TrainerJob) -> None:
    job.dataset.write_bytes(BODY)
    (found,) = fetch(_context(job), [SourcePlan(name="coach", path=str(job.dataset))])
    assert found.sha256 == SHA256


@pytest.mark.parametrize("where", ["path", "web"])
def test_bytes_are_hashed_once_from_source_to_rows(
    job: TrainerJob, web: WebServer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    job.dataset.write_bytes(BODY)
    members = {"path": str(job.dataset), "sha256": SHA256} if where == "path" else _url(web)
    hashed = hashing.count_sha256(monkeypatch)
    files = fetch(_context(job, "localhost"), [SourcePlan(name="coach", format="Alpaca", **members)])
    (source,) = collect.collect(files, {}, "SFT").sources
    assert source.sha256 == SHA256
    assert hashed.total_bytes == len(BODY)


def test_file_that_is_not_what_the_user_means(job: TrainerJob) -> None:
    with pytest.raises(DatasetError, match="0000"):
        fetch(_context(job), [SourcePlan(name="coach", path=str(job.dataset), sha256="0" * 64)])
