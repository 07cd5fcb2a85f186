"""What lies in the bucket is the file that was uploaded, whatever the server knows of checksums."""

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from finetune_api.plan import S3Target
from finetune_trainer.errors import StageError
from finetune_trainer.storage.s3 import S3Store
from finetune_trainer.storage.s3_multipart import PART_BYTES
from tests.support.s3_server import S3Server


class Client:
    """The real client, some of whose methods are replaced; counts the calls."""

    def __init__(self, real: Any, **replaced: Callable[..., Any]) -> None:
        self._real = real
        self._replaced = replaced
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = self._replaced.get(name) or getattr(self._real, name)

        def call(*positional: Any, **arguments: Any) -> Any:
            self.calls.append((name, arguments))
            return method(*positional, **arguments)

        return call

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def store(s3: S3Server, tmp_path: Path) -> S3Store:
    bucket = tmp_path.name.replace("_", "-").lower()
    s3.make_bucket(bucket)
    return S3Store(
        S3Target(
            uri=f"s3://{bucket}/a",
            endpoint=s3.endpoint,
            force_path_style=True,
            credentials_dir=str(s3.credentials(tmp_path / "keys")),
        )
    )


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(PART_BYTES + 1000))
    return path


def real(store: S3Store) -> Any:
    return store._client


def use(store: S3Store, client: Client) -> Client:
    store._client = client
    return client


def test_the_server_is_given_sha256_and_keeps_it(store: S3Store, large: Path) -> None:
    client = use(store, Client(real(store)))
    store.put_file("x", large)
    data = large.read_bytes()
    digests = [hashlib.sha256(part).digest() for part in (data[:PART_BYTES], data[PART_BYTES:])]
    sent = {a["PartNumber"]: a["ChecksumSHA256"] for name, a in client.calls if name == "upload_part"}
    assert sent == {n: base64.b64encode(d).decode() for n, d in enumerate(digests, 1)}
    bucket = store.uri.split("/")[2]
    kept = client.head_object(Bucket=bucket, Key="a/x", ChecksumMode="ENABLED")["ChecksumSHA256"]
    assert kept.partition("-")[0] == base64.b64encode(hashlib.sha256(b"".join(digests)).digest()).decode()


def test_a_server_without_sha256_gets_md5(store: S3Store, large: Path) -> None:
    server = real(store)

    def create(**arguments: Any) -> Any:
        if "ChecksumAlgorithm" in arguments:
            raise ClientError(
                {"Error": {"Code": "NotImplemented"}, "ResponseMetadata": {"HTTPStatusCode": 501}}, "Create"
            )
        return server.create_multipart_upload(**arguments)

    client = use(store, Client(server, create_multipart_upload=create))
    store.put_file("x", large)
    assert all("ContentMD5" in a for name, a in client.calls if name == "upload_part")
    assert store.get_bytes("x") == large.read_bytes()


def test_an_object_that_is_not_the_file_is_uploaded_again(store: S3Store, large: Path) -> None:
    server = real(store)
    heads = 0

    def head(**arguments: Any) -> Any:
        nonlocal heads
        heads += 1
        found = server.head_object(**arguments)
        return found | {"ChecksumSHA256": "AAAA-2"} if heads == 1 else found

    client = use(store, Client(server, head_object=head))
    store.put_file("x", large)
    assert client.names().count("complete_multipart_upload") == 2


def test_a_server_that_keeps_other_bytes_is_reported_and_the_object_removed(store: S3Store, large: Path) -> None:
    server = real(store)

    def head(**arguments: Any) -> Any:
        return server.head_object(**arguments) | {"ContentLength": 1}

    use(store, Client(server, head_object=head))
    with pytest.raises(StageError, match="stored x damaged") as caught:
        store.put_file("x", large)
    assert caught.value.exit_code == 69
    assert store.list("") == []


def test_what_a_killed_attempt_left_unfinished_is_freed(store: S3Store, large: Path) -> None:
    server = real(store)
    bucket = store.uri.split("/")[2]
    server.create_multipart_upload(Bucket=bucket, Key="a/x")
    server.create_multipart_upload(Bucket=bucket, Key="a/x-other")
    store.put_file("x", large)
    left = server.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    assert [upload["Key"] for upload in left] == ["a/x-other"]


def test_a_part_that_fails_ends_the_upload_and_leaves_nothing(store: S3Store, large: Path) -> None:
    server = real(store)

    def part(**arguments: Any) -> Any:
        if arguments["PartNumber"] == 2:
            raise ClientError(
                {"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "UploadPart"
            )
        return server.upload_part(**arguments)

    use(store, Client(server, upload_part=part))
    with pytest.raises(StageError) as caught:
        store.put_file("x", large)
    assert caught.value.exit_code == 69
    assert store.list("") == []
    assert server.list_multipart_uploads(Bucket=store.uri.split("/")[2]).get("Uploads", []) == []
