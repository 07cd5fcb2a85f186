"""A model in a folder: on a mounted volume, or on a laptop. It is used in place."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from finetune_trainer.errors import ModelError
from finetune_trainer.sources.hash_cache import HashCache
from finetune_trainer.sources.model_files import Listing, check_weights_present, combined_revision, is_needed
from finetune_trainer.sources.resolved import ModelFile
from finetune_trainer.storage.checksum import sha256_of
from finetune_trainer.storage.store import Progress

_READERS = 4
# File systems record times in steps of up to 2 s: a file can change twice within one.
_SETTLED_NS = 2_000_000_000


class FolderModel:
    """See `model_files.ModelFiles`. A file's identity is the sha256 of its bytes.

    An unchanged file of the same size is not read again if `known` (the files that prepare pinned) or `cache`, which is
    kept up to date, has its checksum.
    """

    def __init__(
        self,
        folder: Path,
        progress: Callable[[int, int], None],
        known: Sequence[ModelFile] = (),
        cache: HashCache | None = None,
    ) -> None:
        self._folder = folder
        self._progress = progress
        self._known = known
        self._cache = cache

    @property
    def reference(self) -> str:
        """The folder's name."""
        return self._folder.name

    def listing(self) -> Listing:
        """List the needed files, without their identities."""
        with self._readable():
            every = sorted(p for p in self._folder.iterdir() if p.is_file())
            check_weights_present(str(self._folder), [p.name for p in every])
            return Listing("", tuple(_unread(p) for p in every if is_needed(p.name)))

    def identified(self, listing: Listing) -> Listing:
        """Read the files without a known checksum."""
        with self._readable():
            # Their state just before they are read: they may have changed since the listing.
            found = [_unread(self._folder / f.path) for f in listing.files]
            files = self._identified(found, self._known or (self._cache.get(found) if self._cache else ()))
        return Listing(combined_revision(files), tuple(files))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelError(
                f"the model folder {error.filename or self._folder} cannot be read: {error.strerror}; "
                "check the name of the PersistentVolumeClaim and the path in it"
            ) from error

    def _identified(self, found: Sequence[ModelFile], known: Sequence[ModelFile]) -> list[ModelFile]:
        identities = {_state(f): f.identity for f in known if f.changed_ns is not None}
        unknown = [f for f in found if _state(f) not in identities]
        total, done = sum(f.size_bytes for f in unknown), 0
        with ThreadPoolExecutor(_READERS) as pool:
            hashes = pool.map(sha256_of, [self._folder / f.path for f in unknown])
            for file, identity in zip(unknown, hashes, strict=True):
                identities[_state(file)] = identity
                done += file.size_bytes
                self._progress(done, total)
        files = [f.model_copy(update={"identity": identities[_state(f)]}) for f in found]
        if unknown and self._cache:
            self._cache.put(files)
        return files

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
        """Do nothing: no file stays open."""


def _unread(path: Path) -> ModelFile:
    """Return the file without its identity."""
    state = path.stat()
    # Archives and copies may preserve mtime; ctime is set by the file system.
    changed = max(state.st_mtime_ns, state.st_ctime_ns)
    settled = time.time_ns() - changed > _SETTLED_NS
    return ModelFile(path=path.name, size_bytes=state.st_size, identity="", changed_ns=changed if settled else None)


def _state(file: ModelFile) -> tuple[str, int, int | None]:
    return file.path, file.size_bytes, file.changed_ns
