"""A folder as a store, for runs without S3."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import NamedTemporaryFile

from finetune_trainer.errors import AccessDeniedError, SettingsError, UnavailableError
from finetune_trainer.storage.store import Progress, StoredObject, checked_key

# Unfinished files live here, on the same file system, so that a crash leaves no partial result.
_PARTIAL = ".partial"
_CHUNK = 4 * 1024 * 1024


class FileStore:
    """See `store.Store`."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    @property
    def uri(self) -> str:
        """file:///..."""
        return self._root.as_uri()

    def put_bytes(self, key: str, data: bytes) -> None:
        """Write a small object."""
        with self._writing(key) as partial:
            partial.write_bytes(data)

    def put_file(self, key: str, path: Path, progress: Progress | None = None) -> None:
        """Copy a file in."""
        with self._writing(key) as partial:
            _copy(path, partial, progress)

    def get_bytes(self, key: str) -> bytes | None:
        """Return an object's bytes, or None if there is none."""
        with self._mapped_errors():
            try:
                return self._path(key).read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

    def get_file(self, key: str, path: Path, progress: Progress | None = None) -> None:
        """Copy a file out."""
        source = self._path(key)
        if not source.is_file():
            raise FileNotFoundError(key)
        partial = path.with_name(f"{path.name}.part")
        with self._mapped_errors():
            _copy(source, partial, progress)
            partial.replace(path)

    def list(self, prefix: str) -> list[StoredObject]:
        """Return the objects below a prefix, by key."""
        folder = self._path(prefix) if prefix else self._root
        with self._mapped_errors():
            files = [folder] if folder.is_file() else [p for p in folder.rglob("*") if p.is_file()]
            found = [self._stored(p) for p in files if _PARTIAL not in p.relative_to(self._root).parts]
        return sorted(found, key=lambda o: o.key)

    def delete(self, prefix: str) -> None:
        """Delete every object below a prefix, or the object of that key."""
        path = self._path(prefix)
        with self._mapped_errors():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _stored(self, path: Path) -> StoredObject:
        stat = path.stat()
        modified = datetime.fromtimestamp(stat.st_mtime, UTC)
        return StoredObject(path.relative_to(self._root).as_posix(), stat.st_size, str(stat.st_mtime_ns), modified)

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    @contextmanager
    def _writing(self, key: str) -> Iterator[Path]:
        target = self._path(key)
        with self._mapped_errors():
            folder = self._root / _PARTIAL
            folder.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=folder, delete=False) as file:
                partial = Path(file.name)
            try:
                yield partial
                _sync(partial)
                partial.replace(target)
                _sync(target.parent)
            finally:
                partial.unlink(missing_ok=True)

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            name = error.filename or self._root
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise AccessDeniedError(
                    f"{name} may not be written or read: {error.strerror}; give another folder as --output"
                ) from error
            if error.errno in (errno.ENOTDIR, errno.EEXIST):
                raise SettingsError(f"{name} is a file, not a folder; give another folder as --output") from error
            raise UnavailableError(f"{name} cannot be used: {error.strerror}") from error


def _copy(source: Path, target: Path, progress: Progress | None) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            writer.write(chunk)
            if progress:
                progress(len(chunk))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
