"""The checksum of a dataset source."""

import hashlib
from pathlib import Path

from finetune_trainer.errors import DatasetError


def checked_sha256(name: str, path: Path, expected: str | None) -> str:
    """Return the sha256 of the file.

    Raises:
        DatasetError: it is not the expected one.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and digest != expected:
        raise DatasetError(
            f'source "{name}" has sha256 {digest}, not {expected}; '
            "the file was changed: correct dataset.sources[].s3.sha256 or restore the file"
        )
    return digest
