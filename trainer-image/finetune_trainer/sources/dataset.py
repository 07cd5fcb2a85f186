"""Fetches the dataset's files."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from finetune_api.plan import S3Target, SourcePlan
from finetune_trainer.errors import DatasetError, SettingsError
from finetune_trainer.runtime.context import Context
from finetune_trainer.sources import http as http_source
from finetune_trainer.sources import hub_dataset
from finetune_trainer.sources.dataset_file import SourceFile
from finetune_trainer.storage.checksum import sha256_of
from finetune_trainer.storage.open import open_s3_object
from finetune_trainer.storage.store import Progress

# Disk space that is kept free for the files made from the dataset.
_RESERVE_BYTES = 64 * 1024 * 1024


def fetch(context: Context, sources: Sequence[SourcePlan]) -> list[SourceFile]:
    """Return the plan's sources, or its hold-out sources, as files.

    Raises:
        DatasetError: a file does not exist, or its checksum is not the expected one.
        AccessDeniedError, UnavailableError: as `store.Store`.
        SettingsError: the scratch space is too small, or the policy does not allow a server.
    """
    return [_Source(context, source).fetch() for source in sources]


class _Source:
    """One source of the plan."""

    def __init__(self, context: Context, source: SourcePlan) -> None:
        self._context = context
        self._source = source
        held = source in context.plan.dataset.holdout_sources
        self._field = "dataset.holdout.sources[]" if held else "dataset.sources[]"

    def fetch(self) -> SourceFile:
        source = self._source
        if source.path is not None:
            return self._checked(self._local(Path(source.path)))
        self._context.reporter.report("Downloading")
        folder = Path(tempfile.mkdtemp(prefix="source-", dir=self._context.scratch))
        if source.hub:
            return self._checked(hub_dataset.download(source.hub, source.name, self._field, folder, self._room))
        path = folder / "data"
        if source.s3:
            self._from_s3(source.s3, path)
            return self._checked(path)
        if source.url and source.sha256:
            http_source.download(
                source.url,
                source.sha256,
                path,
                policy=self._context.plan.policy,
                name=source.name,
                field=self._field,
                room=self._room,
            )
            # The download has compared it with the bytes.
            return SourceFile(source.name, path, source.sha256, source.format)
        raise SettingsError(f'source "{source.name}": the plan has no location for it; render it again')

    def _checked(self, path: Path) -> SourceFile:
        """Read the file once for its checksum, which later parts take from the result."""
        source, digest = self._source, sha256_of(path)
        if source.sha256 is not None and digest != source.sha256:
            raise DatasetError(
                f'source "{source.name}" has sha256 {digest}, not {source.sha256}; '
                f"the file was changed: correct {self._field}.s3.sha256 or restore the file"
            )
        return SourceFile(source.name, path, digest, source.format)

    def _local(self, path: Path) -> Path:
        try:
            path.open("rb").close()
        except FileNotFoundError:
            raise DatasetError(
                f'source "{self._source.name}": {path} does not exist; correct its key or path'
            ) from None
        except OSError as error:
            raise DatasetError(
                f'source "{self._source.name}": {path} cannot be read: {error.strerror}; '
                "correct its path, or set compute.fsGroup to a group that may read the volume"
            ) from error
        return path

    def _from_s3(self, target: S3Target, path: Path) -> None:
        store, key = open_s3_object(target)
        try:
            size = next((o.size_bytes for o in store.list(key) if o.key == key), None)
            if size is None:
                raise FileNotFoundError(key)
            store.get_file(key, path, self._room(size))
        except FileNotFoundError:
            raise DatasetError(
                f'source "{self._source.name}": there is no object {target.uri}; correct {self._field}.s3.uri'
            ) from None

    def _room(self, size: int) -> Progress:
        """Return a progress callback for a download of `size` bytes (0: unknown), which fails if the disk is full."""
        free = max(0, shutil.disk_usage(self._context.scratch).free - _RESERVE_BYTES)
        done = 0

        def refuse_above(needed: int) -> None:
            if needed > free:
                raise SettingsError(
                    f'source "{self._source.name}" needs {needed / 1e9:.1f} GB or more and the scratch space has '
                    f"{free / 1e9:.1f} GB left; raise compute.scratch.size"
                )

        def progress(count: int) -> None:
            nonlocal done
            done += count
            refuse_above(done)
            self._context.reporter.report("Downloading", percent=min(100, 100 * done // size) if size else None)

        refuse_above(size)
        return progress
