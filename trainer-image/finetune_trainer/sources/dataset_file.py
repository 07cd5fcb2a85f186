"""One dataset source, after it was fetched."""

from dataclasses import dataclass
from pathlib import Path

from finetune_api.dataset_spec import DatasetFormat


@dataclass(frozen=True)
class SourceFile:
    """A file on this machine."""

    name: str
    path: Path
    # What the user says that it is.
    sha256: str | None = None
    format: DatasetFormat = "Auto"
