"""Wrong credentials, buckets and servers that are away: they fail in seconds, in the first stage."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import s3_server
from tests.support.s3_server import S3Server
from tests.support.trainer_job import TrainerJob, alpaca_rows, write_rows

needs_s3 = pytest.mark.skipif(s3_server.binary() is None, reason="versitygw is not built")


def _target(server: S3Server, uri: str, credentials: Path) -> dict[str, Any]:
    return {
        "uri": uri,
        "endpoint": server.endpoint,
        "forcePathStyle": True,
        "credentialsDir": str(credentials),
    }


@needs_s3
def test_good_credentials_prepare_in_a_bucket(job: TrainerJob, s3: S3Server, tmp_path: Path) -> None:
    keys = s3.credentials(tmp_path / "s3-keys")
    write_rows(s3.root / "models" / "train.jsonl", alpaca_rows(60))
    job.plan["output"] = {"s3": _target(s3, "s3://models/good", keys)}
    job.plan["dataset"]["sources"] = [{"name": "coach", "s3": _target(s3, "s3://models/train.jsonl", keys)}]
    assert job.run("prepare") == 0
    run = s3.root / "models" / "good" / "gym" / "coach" / job.result()["runId"]
    assert sorted(p.name for p in (run / "prepared").iterdir()) == ["holdout.parquet", "prepared.json", "train.parquet"]
    assert (run / "logs" / "prepare-0.log").is_file()


@needs_s3
def test_model_in_a_bucket_is_checked_without_downloading_its_weights(
    job: TrainerJob, s3: S3Server, good_model: Path, tmp_path: Path
) -> None:
    keys = s3.credentials(tmp_path / "s3-keys")
    shutil.copytree(good_model, s3.root / "models" / "base", dirs_exist_ok=True)
    job.plan["model"] = {k: v for k, v in job.plan["model"].items() if k != "path"}
    job.plan["model"]["s3"] = _target(s3, "s3://models/base/", keys)
    assert job.run("prepare") == 0
    assert job.result()["model"]["architecture"] == "LlamaForCausalLM"


@needs_s3
def test_wrong_secret_key_is_access_denied(
    job: TrainerJob, s3: S3Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = "another-secret-key"
    job.plan["output"] = {
        "s3": _target(s3, "s3://models/tuned", s3.credentials(tmp_path / "s3-keys", secret_key=wrong))
    }
    started = time.monotonic()
    assert job.run("prepare") == 77
    assert time.monotonic() - started < 10
    assert job.result()["message"] == (
        f'bucket "models" at {s3.endpoint} refused to write s3://models/tuned (SignatureDoesNotMatch); '
        'check the keys in Secret "s3-keys" and their permission on the bucket'
    )
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed
    assert wrong not in printed


@needs_s3
def test_unknown_access_key_is_access_denied(job: TrainerJob, s3: S3Server, tmp_path: Path) -> None:
    keys = s3.credentials(tmp_path / "s3-keys")
    (keys / "AWS_ACCESS_KEY_ID").write_text("nobody")
    job.plan["output"] = {"s3": _target(s3, "s3://models/tuned", keys)}
    assert job.run("prepare") == 77
    assert job.result()["message"] == (
        f'bucket "models" at {s3.endpoint} refused to write s3://models/tuned (XAdminUserNotFound); '
        'check the keys in Secret "s3-keys" and their permission on the bucket'
    )


@needs_s3
def test_secret_without_its_key_is_access_denied(job: TrainerJob, s3: S3Server, tmp_path: Path) -> None:
    keys = s3.credentials(tmp_path / "s3-keys")
    (keys / "AWS_SECRET_ACCESS_KEY").unlink()
    job.plan["output"] = {"s3": _target(s3, "s3://models/tuned", keys)}
    assert job.run("prepare") == 77
    assert job.result()["message"] == 'Secret "s3-keys" has no key AWS_SECRET_ACCESS_KEY; add it'


@needs_s3
def test_missing_bucket_is_a_settings_error(job: TrainerJob, s3: S3Server, tmp_path: Path) -> None:
    job.plan["output"] = {"s3": _target(s3, "s3://no-such-bucket/tuned", s3.credentials(tmp_path / "s3-keys"))}
    assert job.run("prepare") == 64
    assert job.result()["message"] == (
        f'bucket "no-such-bucket" at {s3.endpoint} does not exist; '
        "create it or correct the URI s3://no-such-bucket/tuned"
    )


@needs_s3
def test_missing_dataset_object_is_a_dataset_error(job: TrainerJob, s3: S3Server, tmp_path: Path) -> None:
    target = _target(s3, "s3://models/none.jsonl", s3.credentials(tmp_path / "s3-keys"))
    job.plan["dataset"]["sources"] = [{"name": "coach", "s3": target}]
    assert job.run("prepare") == 65
    assert job.result()["message"] == (
        'source "coach": there is no object s3://models/none.jsonl; correct dataset.sources[].s3.uri'
    )


@needs_s3
def test_empty_model_folder_in_a_bucket_is_a_model_error(job: TrainerJob, s3: S3Server, tmp_path: Path) -> None:
    del job.plan["model"]["path"]
    job.plan["model"]["s3"] = _target(s3, "s3://models/nothing/", s3.credentials(tmp_path / "s3-keys"))
    assert job.run("prepare") == 66
    assert job.result()["message"] == (
        "s3://models/nothing has no model.safetensors and no model.safetensors.index.json; "
        "check the path, and that the upload was complete"
    )


def test_server_that_is_away_is_unavailable(job: TrainerJob, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    endpoint = f"http://127.0.0.1:{s3_server.free_port()}"
    keys = tmp_path / "s3-keys"
    keys.mkdir()
    (keys / "AWS_ACCESS_KEY_ID").write_text("a")
    (keys / "AWS_SECRET_ACCESS_KEY").write_text("b")
    job.plan["output"] = {
        "s3": {
            "uri": "s3://models/tuned",
            "endpoint": endpoint,
            "forcePathStyle": True,
            "credentialsDir": str(keys),
        }
    }
    assert job.run("prepare") == 69
    assert job.result()["message"] == (
        f"{endpoint} does not answer (EndpointConnectionError); check endpoint, network and NetworkPolicies"
    )
    assert "Traceback" not in "".join(capfd.readouterr())


def test_hub_that_is_away_is_unavailable(job: TrainerJob) -> None:
    endpoint = f"http://127.0.0.1:{s3_server.free_port()}"
    del job.plan["model"]["path"]
    job.plan["model"]["hub"] = {"repository": "org/model", "revision": "main", "endpoint": endpoint}
    assert job.run("prepare") == 69
    assert job.result()["message"] == (
        f"{endpoint} does not answer (ConnectError); check the network, or put the model on S3 or a volume"
    )


def test_secret_without_the_hub_token_is_access_denied(job: TrainerJob, tmp_path: Path) -> None:
    del job.plan["model"]["path"]
    job.plan["model"]["hub"] = {"repository": "org/model", "revision": "main", "tokenFile": str(tmp_path / "hf/token")}
    assert job.run("prepare") == 77
    assert job.result()["message"] == 'Secret "hf" has no key token; add it'


def test_output_that_is_a_file_is_a_settings_error(job: TrainerJob, tmp_path: Path) -> None:
    job.output.write_text("")
    assert job.run("prepare") == 64
    assert job.result()["message"] == (
        f"{job.output}/.partial is a file, not a folder; give another folder as --output"
    )
