"""Which servers the administrator's policy lets a job lead to."""

from typing import Any

import pytest
from pydantic import ValidationError

from finetune_api import endpoints
from finetune_api.endpoints import Endpoint, allowed_address, refused
from finetune_api.job import FineTuneJob
from finetune_api.plan import Defaults
from finetune_api.policy import Policy
from finetune_api.render import render

SPEC: dict[str, Any] = {
    "model": {"huggingFace": {"repository": "org/model"}, "adapter": {"s3": {"uri": "s3://results/adapter/"}}},
    "dataset": {
        "sources": [
            {"configMap": {"name": "rows", "key": "a.jsonl"}},
            {"s3": {"uri": "s3://data/a.jsonl", "endpoint": "https://data.corp:9000"}},
            {"huggingFace": {"repository": "org/rows", "path": "a.csv", "endpoint": "https://mirror.corp"}},
            {"http": {"url": "http://files.corp/a.csv", "sha256": "0a" * 32}},
        ],
        "holdout": {"sources": [{"http": {"url": "http://exams.corp/a.csv", "sha256": "0a" * 32}}]},
    },
    "output": {"s3": {"uri": "s3://results/"}},
    "tracking": {"mlflow": {"uri": "http://mlflow.corp:5000"}},
}


def of_spec(spec: dict[str, Any], defaults: Defaults | None = None) -> dict[str, str]:
    job = FineTuneJob.model_validate({"metadata": {"name": "a", "namespace": "b", "uid": "c"}, "spec": spec})
    return {e.field: e.url for e in endpoints.of(render(job, defaults or Defaults()))}


def is_refused(url: str, *allowed: str) -> bool:
    return refused(Policy(endpoints=list(allowed)), [Endpoint("spec.field", url)]) is not None


def test_every_server_of_a_job_is_known_with_its_field() -> None:
    assert of_spec(SPEC) == {
        "spec.output.s3.endpoint": "https://amazonaws.com",
        "spec.model.huggingFace": "https://huggingface.co",
        "spec.model.adapter.s3.endpoint": "https://amazonaws.com",
        "spec.dataset.sources[1].s3.endpoint": "https://data.corp:9000",
        "spec.dataset.sources[2].huggingFace.endpoint": "https://mirror.corp",
        "spec.dataset.sources[3].http.url": "http://files.corp/a.csv",
        "spec.dataset.holdout.sources[0].http.url": "http://exams.corp/a.csv",
        "spec.tracking.mlflow.uri": "http://mlflow.corp:5000",
    }


@pytest.mark.parametrize(
    ("place", "field", "url"),
    [
        ({"huggingFace": {"repository": "org/a"}}, "huggingFace", "https://huggingface.co"),
        ({"s3": {"uri": "s3://models/a/", "endpoint": "https://minio.corp"}}, "s3.endpoint", "https://minio.corp"),
    ],
)
def test_the_original_weights_are_among_them(place: dict[str, Any], field: str, url: str) -> None:
    found = of_spec({**SPEC, "export": {"gguf": ["F16"], "originalModel": place}})
    assert found[f"spec.export.originalModel.{field}"] == url


def test_a_model_in_a_bucket_leads_to_the_server_of_the_output() -> None:
    spec = {
        **SPEC,
        "model": {"s3": {"uri": "s3://models/a/"}},
        "output": {"s3": {"uri": "s3://results/", "endpoint": "https://minio.corp"}},
    }
    assert of_spec(spec)["spec.model.s3.endpoint"] == "https://minio.corp"


def test_what_the_chart_fills_in_counts_too() -> None:
    found = of_spec(SPEC, Defaults(hugging_face_endpoint="https://hub.corp"))
    assert found["spec.model.huggingFace"] == "https://hub.corp"


def test_without_a_policy_everything_is_allowed() -> None:
    assert not is_refused("https://anywhere.example")


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("https://minio.corp:9000", "minio.corp"),
        ("https://MinIO.Corp.", "minio.corp"),
        ("https://minio.corp", "MINIO.corp"),
        ("https://minio.corp:9000", "minio.corp:9000"),
        ("https://minio.corp", "minio.corp:443"),
        ("http://minio.corp/file", "minio.corp:80"),
        ("https://a.b.corp", "*.corp"),
        ("https://amazonaws.com", "*.amazonaws.com"),
        ("https://10.1.2.3:9000", "10.0.0.0/8"),
        ("https://10.1.2.3:9000", "10.1.2.3"),
        ("https://[fd00::1]:9000", "fd00::/8"),
        ("https://[fd00:0::1]:9000", "[fd00::1]:9000"),
        ("https://[::ffff:10.1.2.3]", "10.0.0.0/8"),
        ("https://저장소.corp", "*.corp"),
    ],
)
def test_a_listed_server_is_allowed(url: str, entry: str) -> None:
    assert not is_refused(url, "other.corp", entry)


@pytest.mark.parametrize(
    ("url", "entry"),
    [
        ("https://evil.example", "minio.corp"),
        ("https://minio.corp.evil.example", "minio.corp"),
        ("https://evilcorp", "*.corp"),
        ("https://xminio.corp", "minio.corp"),
        ("https://minio.corp:9001", "minio.corp:9000"),
        ("http://minio.corp", "minio.corp:443"),
        ("https://11.1.2.3", "10.0.0.0/8"),
        ("https://10.1.2.3", "*.corp"),
        ("https://[fe80::1]", "10.0.0.0/8"),
        # What some programs take for evil.example and others for a name below corp.
        (r"https://evil.example\.corp", "*.corp"),
        ("https://evil.example?.corp", "*.corp"),
        ("https://minio.corp:99999", "minio.corp"),
    ],
)
def test_any_other_server_is_refused(url: str, entry: str) -> None:
    assert is_refused(url, entry)


def test_a_name_is_left_to_who_can_look_it_up_where_there_are_address_ranges() -> None:
    assert not is_refused("https://minio.corp", "10.0.0.0/8")


def test_the_message_names_field_and_host() -> None:
    found = [Endpoint("spec.output.s3.endpoint", "https://a.corp"), Endpoint("spec.tracking.mlflow.uri", "http://x.y")]
    assert refused(Policy(endpoints=["*.corp"]), found) == (
        "spec.tracking.mlflow.uri leads to x.y, which is not among the servers that the administrator allows "
        "(policy.endpoints of the chart); use another one, or have this one added."
    )


@pytest.mark.parametrize(
    ("host", "addresses", "allowed"),
    [
        ("minio.corp", ["8.8.8.8"], True),
        ("MINIO.corp.", [], True),
        ("other.example", ["10.1.2.3"], True),
        ("other.example", ["10.1.2.3", "8.8.8.8"], False),
        ("other.example", ["8.8.8.8"], False),
        ("other.example", ["::ffff:10.1.2.3"], True),
        ("other.example", [], False),
        ("10.1.2.3", ["10.1.2.3"], True),
    ],
)
def test_a_connection_is_allowed_by_name_or_by_all_its_addresses(
    host: str, addresses: list[str], allowed: bool
) -> None:
    policy = Policy(endpoints=["minio.corp", "10.0.0.0/8"])
    assert allowed_address(policy, host, 443, addresses) is allowed


def test_a_port_counts_for_a_connection() -> None:
    policy = Policy(endpoints=["minio.corp:9000"])
    found = [allowed_address(policy, "minio.corp", port, ["10.0.0.1"]) for port in (9000, 22)]
    assert found == [True, False]


def test_any_connection_is_allowed_without_a_policy() -> None:
    assert allowed_address(Policy(), "anywhere.example", 443, ["8.8.8.8"])


@pytest.mark.parametrize(
    "entry", ["https://minio.corp", "minio.corp/path", "10.0.0.0/40", "10.0.0.1/8", "*", "a b", "[minio]", "a:port"]
)
def test_an_entry_that_can_never_match_is_refused(entry: str) -> None:
    with pytest.raises(ValidationError, match="must be host, host:port"):
        Policy(endpoints=[entry])
