"""The interface of a store for results: a bucket or a folder."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from finetune_trainer.errors import SettingsError

Progress = Callable[[int], None]  # called with the bytes moved since the last call


@dataclass(frozen=True)
class StoredObject:
    """One object in a listing."""

    key: str
    size_bytes: int
    etag: str
    # By the store's own clock, in UTC.
    modified: datetime


class Store(Protocol):
    """Keys are relative to the store's root and never start with a slash.

    Every put is atomic: a reader sees the old object, the new one or none, never a part.

    Every method raises:
        AccessDeniedError: the credentials are missing, wrong, or lack the permission.
        UnavailableError: the server does not answer for as long as `network.patience` allows.
        SettingsError: the bucket does not exist.
    """

    @property
    def uri(self) -> str:
        """The root as a user writes it: s3://... or file:///..."""

    def put_bytes(self, key: str, data: bytes) -> None:
        """Write a small object."""

    def put_file(self, key: str, path: Path, progress: Progress | None = None) -> None:
        """Write a file of any size."""

    def get_bytes(self, key: str) -> bytes | None:
        """Return an object's bytes, or None if there is none."""

    def get_file(self, key: str, path: Path, progress: Progress | None = None) -> None:
        """Download to `path`, which appears only when complete. Raises FileNotFoundError if there is no object."""

    def list(self, prefix: str) -> list[StoredObject]:
        """Return the objects of the folder `prefix` ("" is the root), or the one object of that key, by key."""

    def delete(self, prefix: str) -> None:
        """Delete every object of the folder `prefix`, or the object of that key."""


def checked_key(key: str) -> str:
    """Return the key.

    Raises:
        SettingsError: it could leave the store's root.
    """
    if not key or key.startswith("/") or "\\" in key or "\0" in key or ".." in key.split("/"):
        raise SettingsError(f'the path "{key}" is refused: it must be relative and without ".."')
    return key
