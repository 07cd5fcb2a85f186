"""Counts the bytes that are hashed."""

import hashlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import pytest


@dataclass
class Hashed:
    """How many bytes sha256 has seen."""

    total_bytes: int = 0


def count_sha256(patch: pytest.MonkeyPatch) -> Hashed:
    """Count the bytes given to hashlib's sha256 from now on."""
    found, real = Hashed(), hashlib.sha256

    class Counting:
        def __init__(self, data: Any = b"", **options: Any) -> None:
            self._digest = real(**options)
            self.update(data)

        def update(self, data: Any) -> None:
            found.total_bytes += memoryview(data).nbytes
            self._digest.update(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._digest, name)

    def file_digest(file: BinaryIO, _name: str) -> Any:
        return Counting(file.read())

    patch.setattr(hashlib, "sha256", Counting)
    patch.setattr(hashlib, "file_digest", file_digest)
    return found
