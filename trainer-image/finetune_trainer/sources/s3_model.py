"""A model in a bucket."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from finetune_trainer.errors import ModelError
from finetune_trainer.sources.model_files import Listing, check_weights_present, combined_revision, is_needed
from finetune_trainer.sources.resolved import ModelFile
from finetune_trainer.storage.s3 import S3Store
from finetune_trainer.storage.store import Progress

_PARALLEL_FILES = 4


class S3Model:
    """See `model_files.ModelFiles`. A file's identity is its object's ETag."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    @property
    def reference(self) -> str:
        """The last folder of the URI."""
        return self._store.uri.rsplit("/", 1)[-1]

    def listing(self) -> Listing:
        """List the folder."""
        objects = self._store.list("")
        check_weights_present(self._store.uri, [o.key for o in objects])
        files = [ModelFile(path=o.key, size_bytes=o.size_bytes, identity=o.etag) for o in objects if is_needed(o.key)]
        return Listing(combined_revision(files), tuple(files))

    def identified(self, listing: Listing) -> Listing:
        """Return it as it is: the bucket lists the identities."""
        return listing

    def read_ranges(self, file: ModelFile, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Ask for each range."""
        try:
            return [self._store.get_range(file.path, start, length) for start, length in ranges]
        except FileNotFoundError as error:
            raise self._gone(file) from error

    def fetch(self, files: Sequence[ModelFile], folder: Path, progress: Progress) -> Path:
        """Download several files at a time."""
        folder.mkdir(parents=True, exist_ok=True)

        def get(file: ModelFile) -> None:
            try:
                self._store.get_file(file.path, folder / file.path, progress)
            except FileNotFoundError as error:
                raise self._gone(file) from error

        with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
            for _ in pool.map(get, files):
                pass
        return folder

    def close(self) -> None:
        """Do nothing: the client closes its connections itself."""

    def _gone(self, file: ModelFile) -> ModelError:
        return ModelError(
            f"{self._store.uri}/{file.path} was deleted while the job ran; delete this FineTuneJob and create it again"
        )
