"""Identifies this build of the trainer. It is part of a run's id, because another build may give another result."""

import hashlib
import importlib.metadata
import os
from functools import cache
from pathlib import Path

import finetune_api
import finetune_trainer

# What the result depends on.
_PACKAGES = (
    "accelerate",
    "bitsandbytes",
    "llama-cpp-python",
    "peft",
    "torch",
    "transformers",
    "trl",
    "unsloth",
    "unsloth_zoo",
)


def build_id() -> str:
    """Return FINETUNE_BUILD_ID, which the image's build computes from its content, or else a checksum.

    The checksum is over this program's files and the versions of its libraries: two different trainers never share a
    run.
    """
    return os.environ.get("FINETUNE_BUILD_ID", "") or checksum()


def package_versions() -> dict[str, str]:
    """Return the versions of the libraries that the result depends on, if they are installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def checksum() -> str:
    """Return the checksum of this program's files and the versions of its libraries."""
    digest = hashlib.sha256(repr(sorted(package_versions().items())).encode())
    for package in (finetune_api, finetune_trainer):
        root = Path(package.__path__[0])
        for path in sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            digest.update(f"{path.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
