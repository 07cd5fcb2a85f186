"""Jobs that cannot run: the status says why, in the words of what is wrong."""

import json

import pytest

from local_platform.chart import OPERATOR_NAMESPACE, RELEASE
from local_platform.platform import Platform, PlatformError, secret

from .jobs import DIAGNOSIS_SECONDS, condition, create, demo_job, finished, ready_with

pytestmark = pytest.mark.e2e


def test_bad_row_fails_with_its_line_number(platform: Platform, namespace: str) -> None:
    rows = (json.dumps({"instruction": f"question {i}", "output": f"answer {i}"}) for i in range(60))
    lines = [*rows]
    lines[16] = '{"instruction": "no answer here"}'
    data = {"train.jsonl": "\n".join(lines)}
    platform.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows", "namespace": namespace}, "data": data}
    )
    source = {"name": "coach", "configMap": {"name": "rows", "key": "train.jsonl"}}
    create(platform, namespace, demo_job("bad-row", dataset__sources=[source], export__gguf=[]))
    job = finished(platform, namespace, "bad-row")
    failure = job["status"]["failure"]
    assert failure["stage"] == "prepare"
    assert failure["exitCode"] == 65
    assert failure["reason"] == "InvalidDataset"
    assert 'source "coach", line 17' in failure["message"]
    assert condition(job, "Stalled")["status"] == "True"
    assert any(k.endswith("prepare-0.log") for k in platform.objects(f"{namespace}/"))


def test_missing_secret_is_named_in_the_status(platform: Platform, namespace: str) -> None:
    platform.kubectl("delete", "secret", "s3", "-n", namespace, "--ignore-not-found")
    create(platform, namespace, demo_job("no-secret"))
    ready = platform.wait(
        "the status says why", lambda: ready_with(platform, namespace, "no-secret", "SecretNotFound"), DIAGNOSIS_SECONDS
    )
    assert "Secret s3 does not exist" in ready["message"]


def test_wrong_s3_key_fails_as_access_denied(platform: Platform, namespace: str) -> None:
    platform.apply(secret("s3", namespace, "nobody", "wrong"))
    create(platform, namespace, demo_job("wrong-key", export__gguf=[]))
    failure = finished(platform, namespace, "wrong-key")["status"]["failure"]
    assert failure["exitCode"] == 77
    assert failure["reason"] == "AccessDenied"
    assert failure["stage"] == "prepare"
    assert "wrong" not in failure["message"].split()


def test_operator_cannot_read_secrets(platform: Platform, namespace: str) -> None:
    account = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{RELEASE}"
    with pytest.raises(PlatformError, match="forbidden"):
        platform.kubectl("get", "secret", "s3", "-n", namespace, "--as", account)
