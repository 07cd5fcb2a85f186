"""Dataset files on the web and on a hub that cannot be had, and servers that are not allowed."""

import hashlib
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support import s3_server, web_server
from tests.support.hub_server import HubServer
from tests.support.trainer_job import TrainerJob, alpaca_rows
from tests.support.web_server import Answer, WebServer

BODY = "".join(json.dumps(row) + "\n" for row in alpaca_rows(60)).encode()
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def body() -> bytes:
    return BODY


def _source(job: TrainerJob, **members: Any) -> None:
    job.plan["dataset"]["sources"] = [{"name": "coach", **members}]


def _url(job: TrainerJob, url: str, sha256: str = SHA256, allowed: tuple[str, ...] = ("localhost",)) -> None:
    _source(job, url=url, sha256=sha256)
    job.plan["policy"] = {"endpoints": list(allowed)}


def _hub(job: TrainerJob, hub: HubServer, **members: Any) -> None:
    known = {"repository": "org/coach", "revision": "main", "path": "train.jsonl", "endpoint": hub.endpoint}
    _source(job, hub=known | members)


def _outcome(job: TrainerJob) -> tuple[int, str]:
    code = job.run("prepare")
    return code, job.result()["message"]


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, 65, "was not found (HTTP 404); correct dataset.sources[].http.url"),
        (410, 65, "was not found (HTTP 410); correct dataset.sources[].http.url"),
        (
            401,
            77,
            "requires a login (HTTP 401); put the file on S3, a volume or the hub, which take "
            "credentials from a Secret",
        ),
        (
            403,
            77,
            "requires a login (HTTP 403); put the file on S3, a volume or the hub, which take "
            "credentials from a Secret",
        ),
    ],
)
def test_status_of_a_refusal(job: TrainerJob, web: WebServer, status: int, code: int, message: str) -> None:
    web.answers["/data.jsonl"] = Answer(status)
    _url(job, f"{web.url}/data.jsonl?token=abc")
    assert _outcome(job) == (code, f'source "coach": {web.url}/data.jsonl {message}')


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_status_of_an_outage(job: TrainerJob, web: WebServer, status: int) -> None:
    web.answers["/data.jsonl"] = Answer(status)
    _url(job, f"{web.url}/data.jsonl")
    assert _outcome(job) == (
        69,
        f'source "coach": {web.url}/data.jsonl: the server answered HTTP {status}; try again when it has recovered',
    )


def test_other_bytes(job: TrainerJob, web: WebServer) -> None:
    _url(job, f"{web.url}/data.jsonl", "0" * 64)
    assert _outcome(job) == (
        65,
        f'source "coach": {web.url}/data.jsonl has sha256 {SHA256}, not {"0" * 64}: the file changed or is a different '
        "one; check it and correct dataset.sources[].http.sha256",
    )


def test_server_that_stops_in_the_middle(job: TrainerJob, web: WebServer) -> None:
    web.answers["/data.jsonl"] = Answer(body=BODY, length=10000)
    _url(job, f"{web.url}/data.jsonl")
    assert _outcome(job) == (
        69,
        f'source "coach": {web.url}/data.jsonl: the server stopped after {len(BODY)} of 10000 bytes; try again',
    )


@pytest.mark.parametrize("length", [10**15, -1])
def test_file_that_the_disk_cannot_hold(
    job: TrainerJob, web: WebServer, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.answers["/data.jsonl"] = Answer(body=BODY, length=length)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    _url(job, f"{web.url}/data.jsonl")
    shown = "1000000.0" if length > 0 else "0.0"
    assert _outcome(job) == (
        64,
        f'source "coach" needs {shown} GB or more and the scratch space has 0.0 GB left; raise compute.scratch.size',
    )


def test_server_that_is_away(job: TrainerJob) -> None:
    port = s3_server.free_port()
    _url(job, f"http://localhost:{port}/data.jsonl")
    assert _outcome(job) == (
        69,
        f'source "coach": http://localhost:{port}/data.jsonl: the server does not answer (ConnectionRefusedError); '
        "check dataset.sources[].http.url, the network and NetworkPolicies",
    )


def test_server_that_never_answers(job: TrainerJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_trainer.network.patience.ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        _url(job, f"http://localhost:{port}/data.jsonl")
        assert _outcome(job) == (
            69,
            f'source "coach": http://localhost:{port}/data.jsonl: the server does not answer (TimeoutError); '
            "check dataset.sources[].http.url, the network and NetworkPolicies",
        )


def test_certificate_that_nobody_knows(job: TrainerJob, tmp_path: Path) -> None:
    from tests.support import https_server

    with https_server.running(tmp_path), web_server.running(tmp_path / "tls.crt", tmp_path / "tls.key") as web:
        _url(job, f"{web.url}/data.jsonl")
        assert _outcome(job) == (
            69,
            f'source "coach": {web.url}/data.jsonl: the server\'s certificate is not trusted; '
            "use a server whose certificate authority the trainer image trusts",
        )


def test_redirects_without_end(job: TrainerJob, web: WebServer) -> None:
    web.answers["/data.jsonl"] = Answer(302, headers={"Location": "/data.jsonl"})
    _url(job, f"{web.url}/data.jsonl")
    assert _outcome(job) == (
        65,
        f'source "coach": {web.url}/data.jsonl does not lead to a file within 5 redirects (HTTP 302); '
        "set dataset.sources[].http.url to the URL of the file itself",
    )


def test_six_redirects_are_one_too_many(job: TrainerJob, web: WebServer) -> None:
    for number in range(6):
        web.answers[f"/{number}"] = Answer(302, headers={"Location": f"/{number + 1}"})
    web.answers["/6"] = Answer(body=BODY)
    _url(job, f"{web.url}/0")
    assert job.run("prepare") == 65
    assert "/6" not in web.paths


def test_redirect_to_a_server_that_is_not_allowed(job: TrainerJob, web: WebServer) -> None:
    web.answers["/data.jsonl"] = Answer(302, headers={"Location": "http://192.0.2.7/data.jsonl?key=secret"})
    _url(job, f"{web.url}/data.jsonl")
    assert _outcome(job) == (
        64,
        "dataset.sources[].http.url leads to 192.0.2.7, which is not among the servers that the administrator allows "
        "(policy.endpoints of the chart); use another one, or have this one added",
    )


def test_redirect_to_the_cloud_metadata_address(job: TrainerJob, web: WebServer) -> None:
    web.answers["/data.jsonl"] = Answer(302, headers={"Location": "http://169.254.169.254/latest/meta-data"})
    _url(job, f"{web.url}/data.jsonl", allowed=("localhost", "0.0.0.0/0"))
    assert _outcome(job) == (
        64,
        "dataset.sources[].http.url leads to 169.254.169.254, which belongs to the node that the job runs on; "
        "use another server, or ask the administrator to add exactly this host to policy.endpoints of the chart",
    )


def test_redirect_to_a_local_file(job: TrainerJob, web: WebServer) -> None:
    web.answers["/data.jsonl"] = Answer(302, headers={"Location": "file:///etc/passwd"})
    _url(job, f"{web.url}/data.jsonl")
    assert _outcome(job) == (
        65,
        f'source "coach": {web.url}/data.jsonl redirects to another scheme than http(s); '
        "set dataset.sources[].http.url to the URL of the file itself",
    )


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://127.0.0.1:{port}/data.jsonl", "127.0.0.1"),
        ("http://localhost:{port}/data.jsonl", "localhost (127.0.0.1)"),
        ("http://[::ffff:127.0.0.1]:{port}/data.jsonl", "::ffff:7f00:1"),
        ("http://0.0.0.0:{port}/data.jsonl", "0.0.0.0"),
        ("http://169.254.169.254/data.jsonl", "169.254.169.254"),
        ("http://[fe80::1]/data.jsonl", "fe80::1"),
    ],
)
def test_the_nodes_own_addresses_need_an_entry(
    job: TrainerJob, web: WebServer, url: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "localhost" in url:
        _lead(monkeypatch, "localhost", "127.0.0.1")
    _url(job, url.format(port=web.port), allowed=())
    code, message = _outcome(job)
    assert code == 64
    assert message == (
        f"dataset.sources[].http.url leads to {named}, which belongs to the node that the job runs on; "
        "use another server, or ask the administrator to add exactly this host to policy.endpoints of the chart"
    )
    assert web.paths == []


def _lead(monkeypatch: pytest.MonkeyPatch, host: str, *addresses: str) -> None:
    known = socket.getaddrinfo

    def lookup(name: str, *args: Any, **kwargs: Any) -> Any:
        if name != host:
            return known(name, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def test_name_one_of_whose_addresses_is_outside_the_range(job: TrainerJob, monkeypatch: pytest.MonkeyPatch) -> None:
    _lead(monkeypatch, "files.example.com", "10.1.2.3", "192.0.2.9")
    _url(job, "https://files.example.com/data.jsonl", allowed=("10.0.0.0/8",))
    assert _outcome(job) == (
        64,
        "spec.dataset.sources[0].http.url leads to files.example.com (192.0.2.9), which is not among the servers that "
        "the administrator allows (policy.endpoints of the chart); use another one, or have this one added",
    )


def test_s3_server_that_is_not_allowed_is_never_asked(job: TrainerJob) -> None:
    target = {"uri": "s3://data/train.jsonl", "endpoint": "https://s3.example.com"}
    _source(job, s3=target)
    job.plan["policy"] = {"endpoints": ["files.example.com"]}
    assert _outcome(job) == (
        64,
        "spec.dataset.sources[0].s3.endpoint leads to s3.example.com, which is not among the servers that the "
        "administrator allows (policy.endpoints of the chart); use another one, or have this one added",
    )


def test_name_that_has_to_be_looked_up_and_cannot_be(job: TrainerJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    _source(job, s3={"uri": "s3://data/train.jsonl", "endpoint": "https://s3.example.com"})
    job.plan["policy"] = {"endpoints": ["10.0.0.0/8"]}
    assert _outcome(job) == (
        69,
        "spec.dataset.sources[0].s3.endpoint leads to s3.example.com, which cannot be looked up; "
        "check its spelling and the cluster's DNS",
    )


def test_address_of_a_hub_that_is_not_allowed(job: TrainerJob, hub: HubServer) -> None:
    _hub(job, hub)
    job.plan["policy"] = {"endpoints": ["10.0.0.0/8"]}
    assert _outcome(job) == (
        64,
        "spec.dataset.sources[0].huggingFace.endpoint leads to 127.0.0.1, which is not among the servers that the "
        "administrator allows (policy.endpoints of the chart); use another one, or have this one added",
    )
    assert hub.downloads == []


@pytest.mark.parametrize(
    ("members", "detail", "advice"),
    [
        (
            {"repository": "org/none"},
            "RepositoryNotFoundError",
            "repository, or set tokenSecretRef if the repository is private",
        ),
        (
            {"revision": "v9"},
            "RevisionNotFoundError",
            "revision, or set tokenSecretRef if the repository is private",
        ),
        ({"path": "none.jsonl"}, "RemoteEntryNotFoundError", "path"),
    ],
)
def test_what_the_hub_does_not_have(
    job: TrainerJob, hub: HubServer, members: dict[str, str], detail: str, advice: str
) -> None:
    _hub(job, hub, **members)
    file = job.plan["dataset"]["sources"][0]["hub"]
    assert _outcome(job) == (
        65,
        f'source "coach": {file["path"]} of {file["repository"]} (revision {file["revision"]}) at {hub.endpoint} '
        f"was not found ({detail}); correct dataset.sources[].huggingFace.{advice}",
    )


def test_private_dataset_without_a_token(job: TrainerJob, hub: HubServer) -> None:
    _hub(job, hub, repository="org/private-coach")
    assert _outcome(job) == (
        77,
        f'source "coach": train.jsonl of org/private-coach (revision main) at {hub.endpoint} may not be read '
        "(GatedRepoError); accept its licence on the hub and set dataset.sources[].huggingFace.tokenSecretRef",
    )


def test_private_dataset_with_another_token(job: TrainerJob, hub: HubServer, tmp_path: Path) -> None:
    token = tmp_path / "hf" / "token"
    token.parent.mkdir()
    token.write_text("wrong")
    _hub(job, hub, repository="org/private-coach", tokenFile=str(token))
    code, message = _outcome(job)
    assert code == 77
    assert message.endswith('accept its licence on the hub and check the token in Secret "hf"')
    assert "wrong" not in message


def test_secret_without_the_token_of_a_dataset(job: TrainerJob, hub: HubServer, tmp_path: Path) -> None:
    _hub(job, hub, tokenFile=str(tmp_path / "hf" / "token"))
    assert _outcome(job) == (77, 'Secret "hf" has no key token; add it')


def test_hub_of_a_dataset_that_is_away(job: TrainerJob) -> None:
    endpoint = f"http://127.0.0.1:{s3_server.free_port()}"
    file = {"repository": "org/coach", "revision": "main", "path": "train.jsonl", "endpoint": endpoint}
    _source(job, hub=file)
    code, message = _outcome(job)
    assert code == 69
    assert message == (
        f'source "coach": train.jsonl of org/coach (revision main) at {endpoint}: it does not answer (ConnectError); '
        "check dataset.sources[].huggingFace.endpoint and the network, or put the file on S3"
    )


def test_path_that_climbs_out_of_the_repository(job: TrainerJob, hub: HubServer) -> None:
    _hub(job, hub, path="../secret.jsonl")
    assert _outcome(job) == (64, 'the path "../secret.jsonl" is refused: it must be relative and without ".."')


def test_held_out_file_is_named_as_such(job: TrainerJob, web: WebServer) -> None:
    job.plan["dataset"]["holdoutSources"] = [{"name": "held", "url": f"{web.url}/none.jsonl", "sha256": SHA256}]
    job.plan["policy"] = {"endpoints": ["localhost"]}
    assert _outcome(job) == (
        65,
        f'source "held": {web.url}/none.jsonl was not found (HTTP 404); correct dataset.holdout.sources[].http.url',
    )
