"""Uploads one file in the background while the next one is made."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from finetune_trainer.storage.store import Progress

_POLL_SECONDS = 0.5
# How long to wait until an abandoned upload stops: it notices after the part that it is uploading.
_GIVE_UP_SECONDS = 10.0


class _GivenUpError(Exception):
    """The stage failed and abandoned this upload."""


class Uploader:
    """Runs one upload at a time. At most one file waits for it, which limits the disk space.

    Used as a context: a block that succeeds waits for the last upload, one that fails abandons it.
    """

    def __init__(self, show: Callable[[int], None]) -> None:
        """`show` is called with the percentage done, from the caller's thread and only while it waits."""
        self._show = show
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._given_up = False
        self._total = self._moved = 0
        # Seconds spent uploading, whether or not the caller waited.
        self.seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
            return
        self._given_up = True
        if self._thread is not None:
            self._thread.join(_GIVE_UP_SECONDS)

    def start(self, size_bytes: int, upload: Callable[[Progress], None]) -> None:
        """Wait for the previous upload, then call `upload` in the background with a progress callback.

        Raises:
            BaseException: what the previous upload raised.
        """
        self.wait()
        self._total, self._moved = size_bytes, 0
        self._thread = threading.Thread(target=self._run, args=(upload,), name="upload", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what an upload raised, so that the caller does not continue for an hour before it learns of it."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Return when everything is uploaded.

        Raises:
            BaseException: what an upload raised.
        """
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(_POLL_SECONDS)
            if self._thread.is_alive():
                self._show(100 * self._moved // self._total if self._total else 100)
        self._thread = None
        self.check()

    def _run(self, upload: Callable[[Progress], None]) -> None:
        started = time.monotonic()
        try:
            upload(self._progress)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
        finally:
            self.seconds += time.monotonic() - started

    def _progress(self, count: int) -> None:
        if self._given_up:
            raise _GivenUpError
        self._moved += count
