"""A model in a folder: a mounted volume, or a path on a laptop. It is used in place."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from finetune_trainer.errors import ModelError
from finetune_trainer.model_files import Listing, check_weights_present, combined_revision, is_needed
from finetune_trainer.prepared import ModelFile
from finetune_trainer.store import Progress

_READERS = 4
_CHUNK = 4 * 1024 * 1024


class FolderModel:
    """See `model_files.ModelFiles`. A file's identity is the sha256 of its bytes."""

    def __init__(self, folder: Path, progress: Callable[[int, int], None]) -> None:
        self._folder = folder
        self._progress = progress

    @property
    def reference(self) -> str:
        """The folder's name."""
        return self._folder.name

    def listing(self) -> Listing:
        """Read every needed file once."""
        try:
            every = sorted(p for p in self._folder.iterdir() if p.is_file())
            check_weights_present(str(self._folder), [p.name for p in every])
            needed = [p for p in every if is_needed(p.name)]
            total, done = sum(p.stat().st_size for p in needed), 0
            files = []
            with ThreadPoolExecutor(_READERS) as pool:
                for path, identity in zip(needed, pool.map(_sha256, needed), strict=True):
                    size = path.stat().st_size
                    files.append(ModelFile(path=path.name, size_bytes=size, identity=identity))
                    done += size
                    self._progress(done, total)
        except OSError as error:
            raise ModelError(
                f"the model folder {error.filename or self._folder} cannot be read: {error.strerror}; "
                "check the claim's name and the path in it"
            ) from error
        return Listing(combined_revision(files), tuple(files))

    def read_ranges(self, file: ModelFile, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Seek and read."""
        with (self._folder / file.path).open("rb") as stream:
            found = []
            for start, length in ranges:
                stream.seek(start)
                found.append(stream.read(length))
        return found

    def fetch(self, files: Sequence[ModelFile], folder: Path, progress: Progress) -> Path:  # noqa: ARG002
        """Return the folder itself."""
        return self._folder

    def close(self) -> None:
        """Nothing is open."""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
