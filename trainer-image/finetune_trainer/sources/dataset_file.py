"""One dataset source, after it was fetched."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from finetune_api.dataset_spec import DatasetFormat
from finetune_trainer.errors import DatasetError


@dataclass(frozen=True)
class SourceFile:
    """A file on this machine."""

    name: str
    path: Path
    # What the user says that it is.
    sha256: str | None = None
    format: DatasetFormat = "Auto"


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
