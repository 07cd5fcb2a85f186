"""One dataset source as a local file."""

from dataclasses import dataclass
from pathlib import Path

from finetune_api.dataset_spec import DatasetFormat
from finetune_trainer.storage.checksum import sha256_of


@dataclass(frozen=True)
class SourceFile:
    """A local file."""

    name: str
    path: Path
    # The checksum of its bytes.
    sha256: str
    format: DatasetFormat = "Auto"


def local_file(name: str, path: Path, row_format: DatasetFormat = "Auto") -> SourceFile:
    """Return a file of this machine; it is read once for its checksum."""
    return SourceFile(name, path, sha256_of(path), row_format)
