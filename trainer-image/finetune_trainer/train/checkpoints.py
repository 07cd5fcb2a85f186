"""Checkpoints in the bucket: complete or absent, and only ever resumed by the run that wrote them.

A checkpoint is a folder `<step>/` of files and, written last, a marker that names each file's size and sha256, the
run id (which covers model, data and settings) and the order of the rows.
"""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetune_api.base import Model
from finetune_trainer.errors import StageError
from finetune_trainer.network import patience
from finetune_trainer.storage.checksum import sha256_of
from finetune_trainer.storage.store import Store

MARKER = "complete.json"
KEEP = 2
# What resuming reads; the rest of a trainer's folder is copies of the tokenizer and a pickle.
FILES = frozenset(
    {
        "adapter_config.json",
        "adapter_model.safetensors",
        "curve.json",
        "optimizer.pt",
        "rng_state.pth",
        "scaler.pt",
        "scheduler.pt",
        "trainer_state.json",
    }
)
_CHUNK = 1024 * 1024
log = logging.getLogger(__name__)


class FileEntry(Model):
    """One file of a checkpoint."""

    size_bytes: int
    sha256: str


class Marker(Model):
    """`complete.json`."""

    step: int
    run_id: str
    order_sha256: str
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one job (uid) below `prefix`. Another run id or order of rows makes them invisible."""

    store: Store
    prefix: str
    run_id: str
    order_sha256: str

    def newest(self) -> Marker | None:
        """Return the newest complete checkpoint of this run, or None."""
        for step in sorted(self._steps(), reverse=True):
            marker = self._marker(step)
            if marker is not None:
                return marker
        return None

    def upload(self, folder: Path, step: int, best: int | None = None) -> None:
        """Write one checkpoint, then delete all but the newest few and that of step `best`.

        Raises:
            StageError: the bucket cannot be written.
        """
        paths = sorted(p for p in folder.iterdir() if p.name in FILES)
        # What a killed attempt may have left of the same step must not count before it is replaced completely.
        self.store.delete(self._key(step, MARKER))
        for path in paths:
            self.store.put_file(self._key(step, path.name), path)
        files = {p.name: FileEntry(size_bytes=p.stat().st_size, sha256=sha256_of(p)) for p in paths}
        marker = Marker(step=step, run_id=self.run_id, order_sha256=self.order_sha256, files=files)
        self.store.put_bytes(self._key(step, MARKER), marker.model_dump_json(by_alias=True).encode())
        self._prune(best)

    def download(self, marker: Marker, folder: Path) -> bool:
        """Fetch a checkpoint; return whether every file matches its marker."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, entry in marker.files.items():
            path = folder / name
            try:
                self.store.get_file(self._key(marker.step, name), path)
            except FileNotFoundError:
                return False
            if sha256_of(path) != entry.sha256:
                return False
        return True

    def download_file(self, step: int, name: str, folder: Path) -> bool:
        """Fetch one file of the complete checkpoint of `step`; return whether it is there and matches its marker."""
        marker = self._marker(step)
        if marker is None or name not in marker.files:
            return False
        return self.download(marker.model_copy(update={"files": {name: marker.files[name]}}), folder)

    def discard(self, step: int) -> None:
        """Delete a checkpoint that turned out to be damaged."""
        self.store.delete(f"{self.prefix}/{step}")

    def _prune(self, best: int | None) -> None:
        complete = [step for step in sorted(self._steps(), reverse=True) if self._marker(step) is not None]
        for step in complete[KEEP:]:
            if step == best:
                continue
            # The marker first: a half deleted checkpoint must not look complete.
            self.store.delete(self._key(step, MARKER))
            self.discard(step)

    def _key(self, step: int, name: str) -> str:
        return f"{self.prefix}/{step}/{name}"

    def _steps(self) -> set[int]:
        names = (stored.key[len(self.prefix) + 1 :].split("/")[0] for stored in self.store.list(self.prefix))
        return {int(name) for name in names if name.isdigit()}

    def _marker(self, step: int) -> Marker | None:
        marker = _read(self.store, self._key(step, MARKER))
        if marker is None:
            return None
        matches = (marker.step, marker.run_id, marker.order_sha256) == (step, self.run_id, self.order_sha256)
        return marker if matches and set(marker.files) <= FILES else None


def newest_step(store: Store, prefix: str, run_id: str) -> int | None:
    """Return the step of the newest complete checkpoint of a run, whatever the order of its rows.

    Raises:
        StageError: the bucket cannot be read.
    """
    keys = (stored.key for stored in store.list(prefix) if stored.key.endswith(f"/{MARKER}"))
    markers = [marker for key in keys if (marker := _read(store, key)) is not None and marker.run_id == run_id]
    return max((marker.step for marker in markers), default=None)


def _read(store: Store, key: str) -> Marker | None:
    data = store.get_bytes(key)
    try:
        return Marker.model_validate_json(data) if data is not None else None
    except ValidationError:
        return None


class BackgroundUpload:
    """Uploads one checkpoint at a time while training continues."""

    def __init__(self, checkpoints: Checkpoints, newest_step: int | None) -> None:
        self._checkpoints = checkpoints
        self._thread: threading.Thread | None = None
        # The newest complete checkpoint in the bucket.
        self.newest_step = newest_step

    @property
    def busy(self) -> bool:
        """True while an upload is in progress."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, folder: Path, step: int, best: int | None = None) -> None:
        """Upload in the background, after an upload in progress. A failure is only logged."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(folder, step, best), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being uploaded."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, folder: Path, step: int, best: int | None) -> None:
        try:
            # While the bucket is away, training continues.
            with patience.brief():
                self._checkpoints.upload(folder, step, best)
        except StageError as error:
            # The next checkpoint tries again; the adapter's own upload is what fails the stage.
            log.warning("the checkpoint of step %d was not saved: %s", step, error.message)
        else:
            self.newest_step = step
            log.info("checkpoint of step %d saved", step)


def checkpoint_folder(trainer: Path, step: int) -> Path:
    """Return where a checkpoint lies below a trainer's folder: the trainer reads the step from its name."""
    return trainer / f"checkpoint-{step}"
