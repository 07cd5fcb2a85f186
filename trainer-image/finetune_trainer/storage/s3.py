"""A folder in an S3 bucket as a store."""

import base64
import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from finetune_api.plan import S3Target
from finetune_trainer.errors import AccessDeniedError, NoAnswerError, SettingsError, StageError, UnavailableError
from finetune_trainer.network import patience
from finetune_trainer.storage.s3_multipart import PART_BYTES, DamagedError, Upload
from finetune_trainer.storage.store import Progress, StoredObject, checked_key

DEFAULT_REGION = "us-east-1"
_PARALLEL_PARTS = 4
# Codes of servers that answer a wrong key with another status than 403.
_ACCESS_CODES = {
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "XAdminUserNotFound",
}


P = ParamSpec("P")
T = TypeVar("T")


def _patient(method: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(method)
    def tried(*arguments: P.args, **named: P.kwargs) -> T:
        return patience.patiently(lambda: method(*arguments, **named))

    return tried


@contextmanager
def _taken_back(progress: Progress | None) -> Iterator[Progress | None]:
    """Yield a progress callback whose bytes are subtracted again if the transfer fails: it may be tried again."""
    if progress is None:
        yield None
        return
    done = 0

    def counted(count: int) -> None:
        nonlocal done
        done += count
        progress(count)

    try:
        yield counted
    except Exception:
        progress(-done)
        raise


class S3Store:
    """See `store.Store`. The root is everything below `target.uri`."""

    def __init__(self, target: S3Target) -> None:
        parts = urlsplit(target.uri)
        if parts.scheme != "s3" or not parts.netloc:
            raise SettingsError(f'"{target.uri}" is not an S3 URI; write s3://bucket/folder')
        self._target = target
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._client = _client(target)

    @property
    def uri(self) -> str:
        """s3://bucket/folder."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @_patient
    def put_bytes(self, key: str, data: bytes) -> None:
        """Write a small object."""
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        with self._mapped_errors("write", key):
            self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=data, ChecksumSHA256=digest)

    @_patient
    def put_file(self, key: str, path: Path, progress: Progress | None = None) -> None:
        """Write a file of any size; the object is compared with it by checksum."""
        if path.stat().st_size <= PART_BYTES:
            data = path.read_bytes()
            self.put_bytes(key, data)
            if progress:
                progress(len(data))
            return
        with self._mapped_errors("write", key), _taken_back(progress) as counted:
            try:
                Upload(self._client, self._bucket, self._key(key), path, counted).run()
            except DamagedError as error:
                raise UnavailableError(
                    f"{self._server} stored {key} damaged: its checksum is not the file's; check the server's disks"
                ) from error

    @_patient
    def get_bytes(self, key: str) -> bytes | None:
        """Return an object's bytes, or None if there is none."""
        try:
            with self._mapped_errors("read", key):
                return bytes(self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"].read())
        except FileNotFoundError:
            return None

    @_patient
    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return `length` bytes from `start` on, or fewer at the end. Raises FileNotFoundError without an object."""
        with self._mapped_errors("read", key):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._key(key), Range=f"bytes={start}-{start + length - 1}"
            )
            return bytes(answer["Body"].read())

    @_patient
    def get_file(self, key: str, path: Path, progress: Progress | None = None) -> None:
        """Download to `path`, which appears only when it is complete."""
        partial = path.with_name(f"{path.name}.part")
        with self._mapped_errors("read", key), _taken_back(progress) as counted:
            self._client.download_file(self._bucket, self._key(key), str(partial), Callback=counted, Config=_transfer())
        partial.replace(path)

    @_patient
    def list(self, prefix: str) -> list[StoredObject]:
        """Return the objects below a prefix, by key."""
        full = self._key(prefix) if prefix else self._prefix
        strip = len(self._prefix) + 1 if self._prefix else 0
        found = []
        with self._mapped_errors("list", prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=full)
            for page in pages:
                for item in page.get("Contents", []):
                    key: str = item["Key"]
                    # A prefix is not a folder: step-1 must not find step-10. Some servers list folders as objects.
                    if (not full or key == full or key.startswith(f"{full}/")) and not key.endswith("/"):
                        etag = item["ETag"].strip('"')
                        found.append(StoredObject(key[strip:], item["Size"], etag, item["LastModified"]))
        return sorted(found, key=lambda o: o.key)

    @_patient
    def delete(self, prefix: str) -> None:
        """Delete every object below a prefix, or the object of that key."""
        for found in self.list(prefix):
            with self._mapped_errors("delete", found.key):
                self._client.delete_object(Bucket=self._bucket, Key=self._key(found.key))

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{checked_key(key)}" if self._prefix else checked_key(key)

    @contextmanager
    def _mapped_errors(self, verb: str, key: str) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            raise self._client_error(error, verb, key) from error
        except (BotoCoreError, Boto3Error) as error:
            cause = error.__context__ if isinstance(error, Boto3Error) else error
            if isinstance(cause, ClientError):
                raise self._client_error(cause, verb, key) from error
            raise self._transport_error(error) from error

    def _client_error(self, error: Any, verb: str, key: str) -> Exception:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        where = f'bucket "{self._bucket}" at {self._server}'
        if code == "NoSuchBucket":
            return SettingsError(f"{where} does not exist; create it or correct the URI {self._target.uri}")
        if code in ("NoSuchKey", "404", "NotFound"):
            return FileNotFoundError(key)
        if status in (401, 403) or code in _ACCESS_CODES:
            return AccessDeniedError(
                f"{where} refused to {verb} {self._target.uri} ({code or status}); "
                f"check the keys in {self._credentials} and their permission on the bucket"
            )
        if status >= 500 or status == 429:
            return NoAnswerError(f"{where} answered {status} ({code}) to {verb}; try again when it has recovered")
        if code in ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
            return SettingsError(f"{where} is in another region ({code}); set region")
        return SettingsError(f"{where} refused to {verb} ({status} {code}); check uri, endpoint and region")

    def _transport_error(self, error: Exception) -> StageError:
        from botocore.exceptions import (
            NoCredentialsError,
            PartialCredentialsError,
            SSLError,
        )

        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return AccessDeniedError(
                f"there are no credentials for {self._target.uri}; set credentialsSecretRef to a Secret with "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if isinstance(error, SSLError):
            return UnavailableError(
                f"the certificate of {self._server} is not trusted; set caBundle to the ConfigMap with its authority"
            )
        return NoAnswerError(
            f"{self._server} does not answer ({type(error).__name__}); check endpoint, network and NetworkPolicies",
            unknown_name=patience.is_unknown_name(error),
        )

    @property
    def _server(self) -> str:
        return self._target.endpoint or "AWS S3"

    @property
    def _credentials(self) -> str:
        if self._target.credentials_dir:
            return f'Secret "{Path(self._target.credentials_dir).name}"'
        return "the pod's identity or environment"


def _transfer() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=_PARALLEL_PARTS
    )


def _client(target: S3Target) -> Any:
    import boto3
    import botocore.session
    from botocore.config import Config

    session = botocore.session.get_session()
    if target.credentials_dir:
        provider = _mounted_credentials_provider(Path(target.credentials_dir))
        session.get_component("credential_provider").insert_before("env", provider)
    return boto3.Session(botocore_session=session).client(
        "s3",
        endpoint_url=target.endpoint,
        region_name=target.region or DEFAULT_REGION,
        verify=target.ca_file,
        config=Config(
            connect_timeout=patience.S3_CONNECT,
            read_timeout=patience.S3_ANSWER,
            retries={"mode": "standard", "total_max_attempts": patience.S3_TRIES},
            s3={"addressing_style": "path" if target.force_path_style else "auto"},
            # Older on-premises servers do not support the checksums that AWS's client sends by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=2 * _PARALLEL_PARTS,
        ),
    )


def read_key(folder: Path, name: str, required: bool) -> str | None:
    """Return one key of a mounted Secret.

    Raises:
        AccessDeniedError: it is required and missing or empty.
    """
    try:
        value = (folder / name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        value = ""
    if required and not value:
        raise AccessDeniedError(f'Secret "{folder.name}" has no key {name}; add it')
    return value or None


def _mounted_credentials_provider(folder: Path) -> Any:
    from botocore.credentials import CredentialProvider, Credentials, ReadOnlyCredentials

    def read() -> Any:
        return ReadOnlyCredentials(
            read_key(folder, "AWS_ACCESS_KEY_ID", required=True),
            read_key(folder, "AWS_SECRET_ACCESS_KEY", required=True),
            read_key(folder, "AWS_SESSION_TOKEN", required=False),
        )

    class MountedCredentials(Credentials):  # type: ignore[misc]
        """Signs every request with the currently mounted keys, so that rotation works."""

        def get_frozen_credentials(self) -> Any:
            return read()

    class Provider(CredentialProvider):  # type: ignore[misc]
        METHOD = "mounted-secret"

        def load(self) -> Any:
            first = read()
            return MountedCredentials(first.access_key, first.secret_key, first.token, method=self.METHOD)

    return Provider()
