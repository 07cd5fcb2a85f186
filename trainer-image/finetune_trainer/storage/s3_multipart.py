"""Uploads a file to S3 in checksummed parts, and verifies that the object equals the file.

Every part carries its checksum, which the server compares with what it received. The complete object's checksum of
checksums (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html) is compared
with what this program read from the disk. A server that does not support SHA-256 gets MD5, which all support; its ETag,
the MD5 of the parts' MD5s, is then compared.
"""

import base64
import contextlib
import hashlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.storage.store import Progress

PART_BYTES = 32 * 1024 * 1024
# S3 allows 10,000.
_MOST_PARTS = 9_000
_PARALLEL_PARTS = 4
_ATTEMPTS = 3
_UNKNOWN_STATUS = (400, 501)
log = logging.getLogger(__name__)


class DamagedError(Exception):
    """The object in the bucket differs from the file after every attempt."""


@dataclass(frozen=True)
class _Part:
    number: int
    etag: str
    sha256: bytes
    md5: bytes


class Upload:
    """The upload of one file that is not empty."""

    def __init__(self, client: Any, bucket: str, key: str, path: Path, progress: Progress | None) -> None:
        self._client = client
        self._object = {"Bucket": bucket, "Key": key}
        self._path = path
        self._progress = progress
        self._lock = threading.Lock()
        self._size = path.stat().st_size
        self._part_bytes = max(PART_BYTES, -(-self._size // _MOST_PARTS))

    def run(self) -> None:
        """Upload.

        Raises:
            DamagedError: the object differs from the file after several attempts.
            botocore's errors.
        """
        from botocore.exceptions import ClientError

        sha256 = True
        self._abort_unfinished()
        for attempt in range(_ATTEMPTS):
            try:
                parts = self._put(sha256)
            except ClientError as error:
                if not sha256 or _status(error) not in _UNKNOWN_STATUS or _code(error) == "BadDigest":
                    raise
                log.info("the S3 server refuses SHA-256 checksums (%s); MD5 is used", _code(error))
                sha256 = False
                parts = self._put(sha256)
            if self._is_whole(parts, sha256):
                return
            log.warning("the uploaded object differs from the file; attempt %d", attempt + 1)
        self._client.delete_object(**self._object)
        raise DamagedError

    def _put(self, sha256: bool) -> list[_Part]:
        """Upload all parts. The object appears when they are complete, and not at all if one fails."""
        algorithm = {"ChecksumAlgorithm": "SHA256"} if sha256 else {}
        upload_id = self._client.create_multipart_upload(**self._object, **algorithm)["UploadId"]
        try:
            count = -(-self._size // self._part_bytes)
            with ThreadPoolExecutor(_PARALLEL_PARTS, thread_name_prefix="part") as pool:
                futures = [pool.submit(self._put_part, upload_id, number, sha256) for number in range(1, count + 1)]
                try:
                    parts = [future.result() for future in futures]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            listed = [
                {"PartNumber": part.number, "ETag": part.etag}
                | ({"ChecksumSHA256": _base64(part.sha256)} if sha256 else {})
                for part in parts
            ]
            self._client.complete_multipart_upload(
                **self._object, UploadId=upload_id, MultipartUpload={"Parts": listed}
            )
        except BaseException:
            with contextlib.suppress(Exception):
                self._client.abort_multipart_upload(**self._object, UploadId=upload_id)
            raise
        return parts

    def _put_part(self, upload_id: str, number: int, sha256: bool) -> _Part:
        with self._path.open("rb") as file:
            file.seek((number - 1) * self._part_bytes)
            data = file.read(self._part_bytes)
        part_sha256 = hashlib.sha256(data).digest()
        part_md5 = hashlib.md5(data, usedforsecurity=False).digest()
        checksum = {"ChecksumSHA256": _base64(part_sha256)} if sha256 else {"ContentMD5": _base64(part_md5)}
        answer = self._client.upload_part(**self._object, UploadId=upload_id, PartNumber=number, Body=data, **checksum)
        if self._progress:
            with self._lock:
                self._progress(len(data))
        return _Part(number, answer["ETag"], part_sha256, part_md5)

    def _is_whole(self, parts: list[_Part], sha256: bool) -> bool:
        found = self._client.head_object(**self._object, **({"ChecksumMode": "ENABLED"} if sha256 else {}))
        if found["ContentLength"] != self._size:
            return False
        if sha256 and (checksum := found.get("ChecksumSHA256")):
            composite = _base64(hashlib.sha256(b"".join(part.sha256 for part in parts)).digest())
            return str(checksum).partition("-")[0] == composite
        # With server-side encryption an ETag is not an MD5; the parts were checked one by one.
        if found.get("ServerSideEncryption", "AES256") != "AES256":
            return True
        # A server with other ETags is recognized by those of the parts.
        if any(part.etag.strip('"') != part.md5.hex() for part in parts):
            return True
        whole = hashlib.md5(b"".join(part.md5 for part in parts), usedforsecurity=False).hexdigest()
        return str(found["ETag"]).strip('"') == f"{whole}-{len(parts)}"

    def _abort_unfinished(self) -> None:
        """Abort the unfinished uploads of a killed attempt: they are invisible and take up space."""
        from botocore.exceptions import ClientError

        # The permission may be missing; a lifecycle rule of the bucket then cleans up.
        with contextlib.suppress(ClientError):
            for upload_id in self._unfinished():
                self._client.abort_multipart_upload(**self._object, UploadId=upload_id)

    def _unfinished(self) -> Iterator[str]:
        found = self._client.list_multipart_uploads(Bucket=self._object["Bucket"], Prefix=self._object["Key"])
        for upload in found.get("Uploads", []):
            if upload["Key"] == self._object["Key"]:
                yield upload["UploadId"]


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
