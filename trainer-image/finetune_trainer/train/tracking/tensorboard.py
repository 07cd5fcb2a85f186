"""TensorBoard event files in the run's folder of the bucket: one per attempt."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_trainer.storage.store import Store
from finetune_trainer.train.tracking.tracker import Outcome, Point

FOLDER = "tensorboard"
# What opens every event file: `file_version` in TensorFlow's core/util/event.proto.
_VERSION = "brain.Event:2"
_UPLOAD_SECONDS = 300


class TensorBoardFiles:
    """Writes to `scratch` and copies the file to the bucket now and then, and at the end."""

    name = "the bucket (TensorBoard files)"

    def __init__(
        self,
        store: Store,
        run_folder: str,
        scratch: Path,
        *,
        attempt: int,
        resumed_step: int,
        upload_seconds: int | None,
    ) -> None:
        """`upload_seconds` None: every 300."""
        self._store = store
        # TensorBoard reads the files of a folder in the order of their names.
        self._path = scratch / f"events.out.tfevents.{time.time_ns() // 1_000_000:013d}.attempt-{attempt}"
        self._key = f"{run_folder}/{FOLDER}/{self._path.name}"
        self._resumed_step = resumed_step
        self._upload_seconds = upload_seconds or _UPLOAD_SECONDS
        self._uploaded_at = time.monotonic()
        self._writer: Any = None
        # Points of the current call that are in the file already: the call is repeated if its upload failed.
        self._written = 0

    def write(self, points: Sequence[Point]) -> None:
        """Append the points, and upload the file if it is due."""
        if self._writer is None:
            self._writer = self._opened()
        for point in points[self._written :]:
            self._append(wall_time=point.time, step=point.step, summary=_summary(point))
            self._written += 1
        self._writer.flush()
        if time.monotonic() - self._uploaded_at >= self._upload_seconds:
            self._upload()
        self._written = 0

    def close(self, outcome: Outcome) -> None:  # noqa: ARG002 - the files know no outcome
        """Upload the whole file; an attempt that logged nothing has none."""
        if self._writer is not None:
            self._writer.close()
            self._upload()

    def _opened(self) -> Any:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = RecordWriter(self._path.open("wb"))
        self._append(wall_time=time.time(), file_version=_VERSION)
        # On a session's start, TensorBoard forgets what earlier files have from its step on.
        again = self._resumed_step + 1 if self._resumed_step else 0
        self._append(wall_time=time.time(), step=again, session_log=SessionLog(status=SessionLog.START))
        return self._writer

    def _append(self, **members: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.write(Event(**members).SerializeToString())

    def _upload(self) -> None:
        self._uploaded_at = time.monotonic()
        self._store.put_file(self._key, self._path)


def _summary(point: Point) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()])
